"""Which baseline, group size and normalisation suit your rollouts?

FILE: JSONL, CSV (both also .gz) or Parquet, one row a rollout (prompt id, reward; optional step, cluster, model,
length, score_norm or log-probabilities) or one row a prompt (rollouts, successes), or a folder of such files; one of
ours is ebpo_sim/diagnose/sample.csv. verl's rollout dumps and TRL's completion tables are read as they are written.
Rewards may be any numbers; what needs two values says so.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ebpo_sim import cli, report
from ebpo_sim.diagnose import diagnosis_plots, text
from ebpo_sim.diagnose.columns import Columns, detect, overrides
from ebpo_sim.diagnose.diagnosis import Plan, as_json, as_rows, diagnose
from ebpo_sim.diagnose.gathering import gather
from ebpo_sim.diagnose.libraries import convention_of
from ebpo_sim.diagnose.page import diagnosis_page
from ebpo_sim.diagnose.population import Population, populations
from ebpo_sim.diagnose.ratios import selection
from ebpo_sim.diagnose.runs import apart
from ebpo_sim.errors import InputError, unknown_name
from ebpo_sim.tables import Chunk, chunks, expand, peek


@dataclass(frozen=True)
class Options:
    """The command line."""

    file: tuple[str, ...] = cli.option(
        (), "log of rollouts or counts; several, or a folder, are read as one", nargs="+", metavar="FILE"
    )
    group_size: tuple[int, ...] = cli.option(
        (), "G to recommend for (the first); repeatable: beside the usual ones also these are evaluated",
        check=cli.check_group_size, metavar="G",
    )  # fmt: skip
    estimator: tuple[str, ...] = cli.option((), "registered estimator (repeatable)", metavar="NAME")
    by: Literal["cluster", "step"] | None = cli.option(
        None, "only this breakdown; default: both where the log has them"
    )
    model: str = cli.option("", "one model of the log, as MODEL or MODEL/BENCHMARK", metavar="NAME")
    columns: tuple[str, ...] = cli.option(
        (), "override the columns found, as in reward=score,prompt=input; ROLE= leaves one out",
        metavar="ROLE=NAME,...",
    )  # fmt: skip
    filtered: bool = cli.option(False, "the log holds only groups with different rewards (dynamic sampling)")
    library: str = cli.option(
        "", 'whose "grpo" to compare with ours on these groups, as in trl or verl', metavar="NAME"
    )
    html: bool = cli.option(False, "write diagnosis.html as well: one file with advice, tables and pictures")
    quick: bool = cli.option(False, "fewer bootstrap draws, for a first look")
    seed: int = cli.seed_option("same seed, same bytes (default 0)")
    out: str = cli.out_option(default="results/diagnose")
    json: bool = cli.json_option("JSON")


def main(argv: Sequence[str]) -> None:
    """Read, diagnose, then write; nothing is written unless everything succeeded."""
    args = cli.parse(Options, "python -m ebpo_sim.diagnose", __doc__, argv)
    plan = Plan(
        args.group_size, args.estimator, *((400, 40) if args.quick else (2000, 100)),
        (args.by,) if args.by else ("cluster", "step"), args.seed, args.filtered, args.library,
    )  # fmt: skip
    chosen = selection(plan.estimators)
    if args.library:
        convention_of(args.library)  # refused before any work
    out = report.writable_folder(args.out)
    columns, found = read(args.file, args.columns)
    if args.by and args.by not in columns.role:
        raise InputError(f"--by {args.by}: the log has no such column (read: {columns.said()}); name it with --columns")
    found = _chosen(found, args.model)
    with report.progress(len(found), "diagnose") as bar:
        made = []
        for population in found:
            made.append(diagnose(population, columns.said(), plan, chosen))
            bar.update(1)
    content = report.to_json(
        {"files": len(args.file), "seed": args.seed, "level": 0.95, "models": [as_json(d) for d in made]}
    )
    figures = diagnosis_plots.figures(made[0]) if len(made) == 1 else {}
    rows = [row for d in made for row in as_rows(d)]
    files = {**({"ratios.csv": rows} if rows else {}), "diagnosis.json": content, **figures}
    page = diagnosis_page(made, {name: report.png(f) for name, f in figures.items()}) if args.html else b""
    report.write_files(out, {**files, **({"diagnosis.html": page.decode()} if page else {})})
    if args.json:
        report.say(content)
        return
    report.say(text.full(made[0]) if len(made) == 1 else text.overview(made))
    listed = ", ".join((*files, *(["diagnosis.html"] if page else [])))
    report.say("\n".join(text.wrapped(f"Files in {out}: {listed}")))


def read(files: Sequence[str], given: Sequence[str] = ()) -> tuple[Columns, list[Population]]:
    """The columns found and each model's population. Raises InputError for anything that cannot be diagnosed."""
    paths = expand(files)
    names, first = peek(paths[0])
    columns = detect(names, first, overrides(given), str(paths[0]))
    with _no_collector():
        log = apart(gather(_all(paths, columns), columns))
    return columns, populations(log)


@contextmanager
def _no_collector() -> Iterator[None]:
    """Rows are millions of short-lived lists without a cycle: looking for one among them takes half of the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _all(paths: Sequence[Path], columns: Columns) -> Iterator[Chunk]:
    for path in paths:
        yield from chunks(path, columns.wanted)


def _chosen(found: list[Population], name: str) -> list[Population]:
    if not name:
        return found
    exact = [p for p in found if p.name.lower() == name.lower()]
    near = exact or [p for p in found if p.name.lower().split("/")[0] == name.lower()]
    if not near:
        raise unknown_name("--model", name, (p.name for p in found))
    return near


if __name__ == "__main__":
    cli.run(main)
