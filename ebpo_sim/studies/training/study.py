"""Do the paper's training results appear where everything is known? A skill-chain policy, trained by each estimator.

Every method is tuned on the same grid of learning rates with the same runs, then run on fresh seeds at its own best
rate; a comparison at one shared rate (the best of GRPO) is reported as such. SGD and Adam are kept apart.

worlds: chain                  random chains of shared skills, a quarter of the steps exceptions to their skill
        observed:MODEL, ...    the same, starting success probabilities matched to a world's quantiles
        bandit:WORLD           one step a prompt, nothing shared
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ebpo_sim import budget, cli, folders, report
from ebpo_sim.chains.rung import METRICS, OLD_NAMES, OPTIMISERS, ORDERS
from ebpo_sim.compare import text
from ebpo_sim.compare.jobs import finish, refuse_failed
from ebpo_sim.compare.plan import series
from ebpo_sim.compare.tables import curve_rows, final, learning_curves
from ebpo_sim.labels import REFERENCE
from ebpo_sim.studies import costs
from ebpo_sim.studies.training.cells import CELLS, Chains, Settings, plan
from ebpo_sim.studies.training.findings import Found, findings
from ebpo_sim.studies.training.plots import plot

Rows = list[dict[str, Any]]

SETTINGS = Settings(
    worlds=("observed:Qwen2.5-7B",),
    estimators=("grpo", "dr_grpo", "rloo", "grpo_batch_norm", "ebpo", "ebpo_released", "ebpo_debiased"),
    swept=("grpo", "ebpo", "ebpo_debiased"),
    group_sizes=(2, 4, 8, 16, 32),
    optimisers=("sgd", "adam"),
    orders=("shuffled", "blocked", "easy_to_hard"),
)
QUICK = Settings(
    worlds=("observed:Qwen2.5-7B",),
    estimators=("grpo", "dr_grpo", "ebpo", "ebpo_debiased"),
    swept=("grpo", "ebpo"),
    group_sizes=(4, 16),
    optimisers=("sgd", "adam"),
    orders=("shuffled", "blocked"),
    population=512, validation=128, prompts=32, steps=48, record_every=8, gradient_redraws=4, seeds=6, tuning_seeds=3,
    sgd_rates=(4.0, 8.0, 16.0, 32.0), adam_rates=(0.04, 0.08, 0.16),
)  # fmt: skip


def simulate(settings: Settings, out: Path, threads: int = 1) -> Found:
    """All runs, a file each in out/cells; see `compare.jobs.finish`. Raises InputError where one failed."""
    settings.check()
    chains, asked = Chains(settings), plan(settings)
    done, failed = finish(asked, chains, out / CELLS, threads)
    refuse_failed(failed)
    return series(asked, chains, done)


def table(found: Found) -> Rows:
    """The long table. Keys: estimator, world, group_size, optimiser, order, tuning ("own" or "shared"), learning_rate,
    edge (of the grid), metric, step, value, se, difference and difference_se (to GRPO in the same cell, paired by
    seed; None for GRPO itself), seeds. A quantity that fewer than two seeds have has no row."""
    return [row for row in curve_rows(found.values(), METRICS) if row["se"] is not None]


def rows(settings: Settings, out: Path, threads: int = 1) -> Rows:
    """The long table of the study."""
    return table(simulate(settings, out, threads))


def show(settings: Settings, rows: Rows, found: Rows) -> str:
    """Final pass@1 and entropy with differences to GRPO, then a line per finding."""
    entropy = {_key(r): r for r in final(rows, "entropy")}
    headers = ("optimiser", "G", "order", "rate", "lr", "estimator", "pass@1", "to grpo", "entropy", "to grpo")
    parts = []
    for world in settings.worlds:
        here = sorted((r for r in final(rows, "pass1") if r["world"] == world), key=_sorting(settings))
        lines = [
            (
                *(r["optimiser"], str(r["group_size"]), r["order"], r["tuning"]),
                text.rate(r["learning_rate"], r["edge"]), r["estimator"],
                *(report.with_error(x[v], x[e]) for x in (r, entropy[_key(r)])
                  for v, e in (("value", "se"), ("difference", "difference_se"))),
            )
            for r in here
        ]  # fmt: skip
        title = (
            f"{world}, {settings.seeds} seeds, {settings.steps} steps of {settings.prompts} prompts: held-out "
            "pass@1 and training entropy (nats a token) at the end ± se; * the grid's edge"
        )
        align = ("left", "right", *("left",) * 4, *("right",) * 4)
        parts.append(f"{title}\n{report.text_table(headers, lines, align)}")
        edges = (f"{r['estimator']}, {r['optimiser']}, G = {r['group_size']}, {r['order']}" for r in here
                 if r["edge"] and r["tuning"] == "own")  # fmt: skip
        parts += text.edges(edges)
    return "\n\n".join([*parts, _winners_text(rows), _findings_text(found)])


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[k] for k in ("world", "estimator", "group_size", "optimiser", "order", "tuning"))


def _sorting(settings: Settings) -> Any:
    names = (REFERENCE, *settings.estimators)
    return lambda r: (
        OPTIMISERS.index(r["optimiser"]), r["group_size"], ORDERS.index(r["order"]), r["tuning"],
        names.index(r["estimator"]),
    )  # fmt: skip


def winners(rows: Rows) -> Rows:
    """For each world, optimiser, group size, order and tuning the row of the highest final pass@1."""
    best: dict[tuple[Any, ...], dict[str, Any]] = {}
    for r in final(rows, "pass1"):
        place = tuple(r[k] for k in ("world", "optimiser", "group_size", "order", "tuning"))
        if place not in best or r["value"] > best[place]["value"]:
            best[place] = r
    return list(best.values())


def _winners_text(rows: Rows) -> str:
    lines = [
        (r["world"], r["optimiser"], str(r["group_size"]), r["order"], r["tuning"], r["estimator"],
         report.with_error(r["difference"], r["difference_se"]))
        for r in winners(rows)
    ]  # fmt: skip
    headers = ("world", "optimiser", "G", "order", "rate", "highest pass@1", "to grpo")
    return f"Which wins where (the best of several is flattered by chance)\n{report.text_table(headers, lines)}"


def _findings_text(found: Rows) -> str:
    lines = []
    for r in found:
        where = f"{r['world']}, {r['optimiser']}, {'own best rates' if r['tuning'] == 'own' else 'one shared rate'}"
        number = f"{r['value']:+.4f} [{r['low']:+.4f}, {r['high']:+.4f}]"
        lines.append((where, r["estimator"], r["finding"], r["verdict"], number, r["measure"]))
    headers = ("where", "estimator", "finding", "here", "number, 95 % interval", "measure, > 0 as in the paper")
    return f"The paper's findings (intervals one at a time, not joint)\n{report.text_table(headers, lines)}"


def settings_from(args: argparse.Namespace) -> Settings:
    """The full or quick settings with what the command line names in their place."""
    base = QUICK if args.quick else SETTINGS
    given: dict[str, Any] = {
        "worlds": tuple(dict.fromkeys(args.world)), "estimators": tuple(dict.fromkeys(args.estimator)),
        "group_sizes": tuple(sorted(set(args.group_size))), "optimisers": tuple(dict.fromkeys(args.optimiser)),
        "orders": tuple(dict.fromkeys((ORDERS[0], *args.order))) if args.order else (),
        "steps": args.steps, "seeds": args.seeds, "seed": args.seed,
    }  # fmt: skip
    given = {k: v for k, v in given.items() if v not in ((), None)}
    if args.estimator:
        given["swept"] = given["estimators"]
    if args.steps is not None:
        given["record_every"] = max(1, args.steps // 10)
    return replace(base, **given)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line of the study."""
    parser = cli.Parser(
        prog="python -m ebpo_sim.training_study", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("--quick", action="store_true", help="a small version of everything, for a first look")
    add("--world", action="append", default=[], metavar="WORLD", help="population (repeatable; list above)")
    add("--estimator", action="append", default=[], metavar="NAME", help="registered preset, run at all G (repeatable)")
    add("--group-size", action="append", default=[], type=int, metavar="G", help="rollouts per prompt (repeatable)")
    add("--optimiser", action="append", default=[], choices=OPTIMISERS, help="(repeatable; default both)")
    add(
        "--order",
        action="append",
        default=[],
        choices=(*ORDERS, *OLD_NAMES),
        help="of the stream, beside shuffled (repeatable)",
    )
    add("--seeds", type=int, metavar="R", help="final runs of a cell")
    add("--steps", type=int, metavar="T", help="steps of a run")
    add("--seed", type=int, default=0, help="same seed, same bytes, for any number of threads (default 0)")
    add("--threads", type=int, default=cli.available_cores(), help="worker processes; default: all cores")
    add("--out", default="results/training_study", metavar="DIR", help="where files go")
    add("--json", action="store_true", help="print only the JSON summary")
    cli.add_yes(parser)
    args = parser.parse_args(argv)
    args.out = folders.own_folder(parser, args, argv)
    cli.check_threads(args.threads)
    cli.check_seed(args.seed)
    for size in args.group_size:
        cli.check_group_size(size)
    for name, low in (("seeds", 2), ("steps", 1)):
        if getattr(args, name) is not None:
            cli.between(f"--{name}", getattr(args, name), low, cli.COUNTS)
    return args


def main(argv: Sequence[str]) -> None:
    args = parse(argv)
    settings = settings_from(args)
    settings.check()
    cost = costs.training(settings, args.threads)
    what = f"training of {len(list(plan(settings).places()))} cells of {settings.steps} steps, {settings.seeds} seeds,"
    remedy = "lower --steps, --seeds, --group-size or --threads"
    budget.require(memory=cost.memory, seconds=cost.seconds, what=what, remedy=remedy, yes=args.yes)
    out = report.writable_folder(args.out)
    home = Path(folders.shared_folder(args.out, "results/training_study"))
    with report.locked(out), report.locked(home / CELLS):
        _study(settings, out, home, args.threads, args.json)


def _study(settings: Settings, out: Path, home: Path, threads: int, json: bool) -> None:
    found = simulate(settings, home, threads)
    listed, told = table(found), findings(settings, found)
    at_end = [r for metric in dict.fromkeys(r["metric"] for r in listed) for r in final(listed, metric)]
    summary = report.to_json(
        {
            "settings": asdict(settings),
            "findings": told,
            "final": at_end,
            "learning_curves": learning_curves(listed, "pass1"),
        }
    )
    report.write_csv(out / "table.csv", listed)
    if told:
        report.write_csv(out / "findings.csv", told)
    report.write_bytes(out / "summary.json", summary.encode())
    figures = plot(listed)
    for name, figure in figures.items():
        report.save_figure(out / name, figure)
    report.say(summary if json else show(settings, listed, told))
    if not json:
        report.say(f"All {len(listed)} rows: {out / 'table.csv'}; figures: {', '.join(str(out / n) for n in figures)}")


if __name__ == "__main__":
    cli.run(main)
