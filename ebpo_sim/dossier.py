"""All that can be computed of one estimator, on one page: `python -m ebpo_sim.dossier FILE.py:NAME`, or a name.

Baseline error and gradient noise beside all shipped rules that stand on success counts, with its ranks; bias of the
direction, silent signal and entropy; the laws of the contract; what the ledger decided of it; the rungs of the ladder
where it stands; microseconds a step. Files: dossier.html (one page, no network), error.csv, noise.csv, dossier.json.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ebpo_sim import cli, html, plugins, report, rungs
from ebpo_sim.check.batches import batch, build
from ebpo_sim.check.laws import LAWS, broken
from ebpo_sim.claims.about import about
from ebpo_sim.errors import InputError
from ebpo_sim.estimators import Estimator, make, names
from ebpo_sim.estimators.registry import SHIPPED
from ebpo_sim.labels import REFERENCE, label
from ebpo_sim.methods.recipes import RECIPES
from ebpo_sim.methods.selected import is_oracle
from ebpo_sim.methods.table import capabilities
from ebpo_sim.studies.base import Rows, Settings
from ebpo_sim.studies.mse import simulate as error
from ebpo_sim.studies.mse import study as mse
from ebpo_sim.studies.noise import study as noise

PROMPTS, GROUP_SIZE, STEPS = 256, 8, 21  # of the batches that are timed


@dataclass(frozen=True)
class Options:
    """The command line."""

    what: str = cli.option("", "the estimator, in a file of your own or registered", metavar="FILE.py:NAME", nargs="?")
    quick: bool = cli.option(False, "two worlds and one group size, few rivals")
    threads: int = cli.threads_option()
    out: str = cli.out_option(default="results/dossier")
    json: bool = cli.json_option("JSON")


def named(text: str) -> str:
    """NAME[:settings] of FILE.py:NAME, the file loaded; a file that registers one estimator needs no name.

    Raises InputError where nothing, or more than one, is named."""
    if ".py" not in text:
        if not text:
            raise InputError("name an estimator: FILE.py:NAME, or a registered one")
        return text
    file, _, name = text.partition(".py")
    plugins.load([f"{file}.py"])
    own = [n for n in names() if n not in SHIPPED]
    if not name and len(own) != 1:
        raise InputError(f"{text!r} registers {', '.join(own) or 'no estimator'}: name one, as in {text}:NAME")
    return name.removeprefix(":") or own[0]


def rivals(name: str, quick: bool) -> tuple[str, ...]:
    """The estimator, then the shipped ones that stand on counts and learn from data; with `quick` a few."""
    standing = rungs.standing(rungs.COUNTS)
    # A recipe of the same name is more than the estimator, and does not stand on counts.
    shipped = [n for n in SHIPPED if n in standing and n not in RECIPES and not is_oracle(n)]
    if quick:
        shipped = [n for n in noise.SETTINGS.estimators if n in shipped]
    return tuple(dict.fromkeys((name, *shipped)))


def microseconds(estimator: Estimator) -> float:
    """Median time of a step on a batch of 256 groups of 8, in microseconds; varies from run to run."""
    groups, state, found = batch(estimator, 1, (GROUP_SIZE,) * PROMPTS), estimator.init(), []
    for _ in range(STEPS):
        start = time.perf_counter()
        _, _, state = estimator.step(state, groups)
        found.append(time.perf_counter() - start)
    return float(np.median(found)) * 1e6


def ranks(rows: Rows, column: str) -> list[dict[str, Any]]:
    """Geometric mean of a ratio to GRPO's over all cells, by rule, smallest first."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if row[column] is not None and row[column] > 0:
            found.setdefault(row["estimator"], []).append(row[column])
    cells = max(map(len, found.values()), default=0)
    means = {name: float(np.exp(np.mean(np.log(x)))) for name, x in found.items() if len(x) == cells}
    order = sorted(means, key=means.__getitem__)
    return [{"rank": i + 1, "estimator": name, "ratio": means[name]} for i, name in enumerate(order)]


def place(name: str, table: Sequence[dict[str, Any]], what: str) -> str:
    """Where the estimator is in a ranking, in words."""
    mine = next((r for r in table if r["estimator"] == name), None)
    if mine is None:
        return f"no {what} on success counts"
    return f"{what} {mine['ratio']:.3g} of {REFERENCE}'s, rank {mine['rank']} of {len(table)}"


def measure(name: str, quick: bool, threads: int) -> dict[str, Any]:
    """Everything on the page; error and noise stay empty, with the reason, where success counts are not enough."""
    estimator = build(name) if ":" not in name else make(name)
    laws = [{"law": law, "broken": broken(estimator, law)} for law in LAWS]
    preset = name.partition(":")[0]
    stands = next((r for r in capabilities() if (r["kind"], r["part"]) == ("estimator", preset)), {})
    found: dict[str, Any] = {"error": [], "noise": [], "reason": ""}
    try:
        rungs.check(name, estimator.needs, rungs.COUNTS)
        found |= {"error": _error(name, quick, threads), "noise": _noise(name, quick, threads)}
    except InputError as refusal:
        found["reason"] = str(refusal)
    rules = [r for r in found["noise"] if r["estimator"] not in noise.TABLES]  # functions of counts, no estimators
    by_error, by_noise = ranks(found["error"], "ratio_exact"), ranks(rules, "nu_ratio")
    lead = "; ".join((
        place(name, by_error, "baseline error"), place(name, by_noise, "gradient noise"),
        f"{sum(not law['broken'] for law in laws)} of {len(laws)} laws hold",
    ))  # fmt: skip
    return {
        "estimator": name, "conclusion": lead, **found, "error_ranks": by_error, "noise_ranks": by_noise,
        "ledger": [entry._asdict() for entry in about(preset, [label(preset).source])], "laws": laws,
        "rungs": {rung.name: stands.get(rung.name) or "stands" for rung in rungs.RUNGS},
        "microseconds": microseconds(estimator),
    }  # fmt: skip


def _error(name: str, quick: bool, threads: int) -> Rows:
    base = mse.QUICK
    worlds, sizes = (base.worlds[1:3], (4,)) if quick else (base.worlds, base.group_sizes)
    return error.simulate(Settings(worlds, sizes, rivals(name, quick), base.design), threads)


def _noise(name: str, quick: bool, threads: int) -> Rows:
    base = noise.QUICK
    sizes = (4,) if quick else base.group_sizes
    return noise.simulate(replace(base, group_sizes=sizes, estimators=rivals(name, quick)), threads)


def _table(title: str, rows: Sequence[dict[str, Any]], columns: Sequence[str], note: str = "") -> html.Table:
    cells = [[report.number(r[c]) if isinstance(r[c], float | None) else str(r[c]) for c in columns] for r in rows]
    return html.Table(title, columns, cells, note, (("broken", "bad"), ("holds", "good")))


def page(found: dict[str, Any]) -> bytes:
    """The dossier as one HTML page."""
    name = found["estimator"]
    errors, noises = ([r for r in found[part] if r["estimator"] == name] for part in ("error", "noise"))
    laws = [{"law": r["law"], "verdict": f"broken: {r['broken']}" if r["broken"] else "holds"} for r in found["laws"]]
    stands = [{"rung": rung, "stands": says} for rung, says in found["rungs"].items()]
    ranked = "geometric mean over all cells, relative to the group mean's (GRPO's); below 1 is better"
    parts: list[html.Part] = [html.Text("Not computed", [found["reason"]])] if found["reason"] else []
    parts += [
        _table("Rank by baseline error", found["error_ranks"], ("rank", "estimator", "ratio"), ranked),
        _table("Rank by gradient noise", found["noise_ranks"], ("rank", "estimator", "ratio"), ranked),
        _table("Baseline error", errors, ("world", "group_size", "ratio_exact", "ratio_mc", "ratio_mc_se", "verdict"),
               "E (baseline - p)^2 over the group mean's: exact in the long run, simulated with its standard error"),
        _table("Gradient: noise, direction, silent groups, entropy", noises,
               ("world", "group_size", "scores", "nu_ratio", "nu_ratio_mc", "nu_ratio_mc_se", "cosine", "silent",
                "rows", "entropy_per_reward"),
               "cosine of the expected and the true gradient: 1 is unbiased up to a step size"),
        _table("The contract", laws, ("law", "verdict")),
        _table("The ledger on it", found["ledger"], ("id", "claim", "verdicts"),
               "as committed; the claims that name it or are of its paper"),
        _table("Where it stands", stands, ("rung", "stands")),
        html.Text("Cost", [f"{found['microseconds']:.0f} microseconds a step of {PROMPTS} groups of {GROUP_SIZE}"]),
    ]  # fmt: skip
    return html.page(f"Dossier of {name}", f"{found['conclusion']}.", parts)


def main(argv: Sequence[str]) -> None:
    """Measure, write the folder, print the ranks; with --json all of it."""
    args = cli.parse(Options, "python -m ebpo_sim.dossier", __doc__, argv)
    name = named(args.what)
    out: Path = report.writable_folder(args.out)
    with report.locked(out):
        found = measure(name, args.quick, args.threads)
        text = report.to_json(found)
        tables = {f"{part}.csv": found[part] for part in ("error", "noise") if found[part]}
        report.write_bytes(out / "dossier.html", page(found))
        report.write_files(out, {**tables, "dossier.json": text})
    if args.json:
        report.say(text)
        return
    for title, ranked in (("Baseline error", found["error_ranks"]), ("Gradient noise", found["noise_ranks"])):
        if ranked:
            report.say(f"{title} relative to {REFERENCE}'s\n{report.columns_table(ranked, tuple(ranked[0]))}\n")
    for law in found["laws"]:
        if law["broken"]:
            report.say(f"Broken: {law['law']}: {law['broken']}")
    report.say(f"All of it: {out / 'dossier.html'}")
    report.say(f"Conclusion: {name}: {found['conclusion']}.")


if __name__ == "__main__":
    cli.run(main)
