"""Do the paper's training results appear where everything is known? A skill-chain policy, trained by each estimator.

Every method is tuned on the same grid of learning rates with the same runs, then run on fresh seeds at its own best
rate; a comparison at one shared rate (the best of GRPO) is reported as such. SGD and Adam are kept apart, and so are
regimes: how noisy a step is, nu/N, measured for GRPO at G = 4 and the same N at every group size. Where it is below 1
methods that differ in noise must tie, and a tie there has no resolving power.

regimes: plateau, balanced, noisy: nu/N of about 0.3, 3 and 30 for GRPO at G = 4 at the start

worlds: chain                  random chains of shared skills, a quarter of the steps exceptions to their skill
        observed:MODEL, ...    the same, starting success probabilities matched to a world's quantiles
        bandit:WORLD           one step a prompt, nothing shared
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ebpo_sim import budget, cli, folders, report
from ebpo_sim.chains.rung import METRICS, OLD_NAMES, OPTIMISERS, ORDERS
from ebpo_sim.compare import text
from ebpo_sim.compare.jobs import finish, refuse_failed
from ebpo_sim.compare.plan import series
from ebpo_sim.compare.tables import curve_rows, final
from ebpo_sim.labels import REFERENCE
from ebpo_sim.studies import costs
from ebpo_sim.studies.prediction.outcomes import COSTS
from ebpo_sim.studies.regimes import REGIMES, sizes
from ebpo_sim.studies.training.cells import CELLS, Chains, Settings, plan, steps_of, typical
from ebpo_sim.studies.training.findings import Found, findings
from ebpo_sim.studies.training.outcomes import ASYMPTOTE, MIDPOINT, outcomes
from ebpo_sim.studies.training.placement import placement, sentence
from ebpo_sim.studies.training.plots import plot

Rows = list[dict[str, Any]]

SETTINGS = Settings(
    worlds=(
        "observed:Qwen2.5-7B", "observed:Qwen2.5-Math-1.5B-Instruct/MATH", "observed:GPT-4-0613/LiveCodeBench",
    ),
    estimators=(
        "grpo", "dr_grpo", "grpo_batch_norm", "ebpo", "ebpo_released", "ebpo_debiased",
        "loo_table:weights=score,memory=0.95", "reinforce",
    ),  # without rloo: a constant times dr_grpo
    swept=("grpo", "ebpo", "ebpo_debiased"),
    group_sizes=(2, 4, 16),
    regimes=tuple(REGIMES),
    optimisers=("sgd", "adam"),
    orders=("shuffled", "blocked", "easy_to_hard"),
)  # fmt: skip
QUICK = replace(
    SETTINGS, worlds=SETTINGS.worlds[:1], estimators=("grpo", "dr_grpo", "ebpo", "ebpo_debiased"),
    swept=("grpo", "ebpo"), group_sizes=(4, 16), regimes=("plateau", "noisy"), orders=("shuffled", "blocked"),
    population=512, validation=128, steps=48, records=6, seeds=4, tuning_seeds=1, thin=2,
)  # fmt: skip


def simulate(settings: Settings, out: Path, threads: int = 1) -> Found:
    """All runs, a file each in out/cells; see `compare.jobs.finish`. Raises InputError where one failed."""
    settings.check()
    chains, asked = Chains(settings), plan(settings, sizes(settings, out / CELLS, threads))
    done, failed = finish(asked, chains, out / CELLS, threads)
    refuse_failed(failed)
    return series(asked, chains, done)


def table(found: Found) -> Rows:
    """The long table. Keys: estimator, world, regime, group_size, optimiser, order, rollouts, noise_ratio (nu/N of GRPO
    at G = 4 at the start), tuning ("own" or "shared"), learning_rate, edge (of the grid), metric, step, value, se,
    difference and difference_se (to GRPO in the same cell, paired by seed; None for GRPO itself), seeds. A quantity
    that fewer than two seeds have has no row."""
    return [row for row in curve_rows(found.values(), METRICS) if row["se"] is not None]


def rows(settings: Settings, out: Path, threads: int = 1) -> Rows:
    """The long table of the study."""
    return table(simulate(settings, out, threads))


def show(settings: Settings, rows: Rows, told: Rows, priced: Rows) -> str:
    """By world and regime what every arm reaches and costs, its pass@1 and entropy at the end, then the findings."""
    parts, at = list[str](), {(_key(r), r["quantity"], r["target"]): r for r in priced}
    entropy = {_key(r): r for r in final(rows, "entropy")}
    names = (REFERENCE, *settings.estimators)
    for world, regime in dict.fromkeys((r["world"], r["regime"]) for r in rows):
        ends = [r for r in final(rows, "pass1") if (r["world"], r["regime"], r["tuning"]) == (world, regime, "own")]
        ends.sort(key=lambda r: (
            OPTIMISERS.index(r["optimiser"]), ORDERS.index(r["order"]), r["group_size"], names.index(r["estimator"]),
        ))  # fmt: skip
        lines = [
            (
                *(r["optimiser"], r["order"], str(r["group_size"])), text.rate(r["learning_rate"], r["edge"]),
                r["estimator"],
                *(report.with_error(x[v], x[e]) for x in (r, entropy[_key(r)])
                  for v, e in (("value", "se"), ("difference", "difference_se"))),
                *(_effect(at.get((_key(r), quantity, target))) for quantity, target in SHOWN),
            )
            for r in ends
        ]  # fmt: skip
        title = (
            f"{world}, {regime}: nu/N = {ends[0]['noise_ratio']:.2g}, {ends[0]['rollouts']} rollouts a step, "
            f"{steps_of(settings, regime)} steps, {settings.seeds} seeds: held-out pass@1 and training entropy (nats a "
            "token) at the end ± se, and to grpo; ratios to grpo's and the asymptote's difference, 95 %; * the grid's "
            "edge"
        )
        headers = ("optimiser", "order", "G", "lr", "estimator", "pass@1", "to grpo", "entropy", "to grpo",
                   *(" ".join(filter(None, x)) for x in SHOWN))  # fmt: skip
        align = ("left", "left", *("right",) * 2, "left", *("right",) * (4 + len(SHOWN)))
        parts.append(f"{title}\n{report.text_table(headers, lines, align)}")
        parts += text.edges(
            f"{r['estimator']}, {r['optimiser']}, G = {r['group_size']}, {r['order']}" for r in ends if r["edge"]
        )
    return "\n\n".join([*parts, _findings_text(told), sentence(placement())])


SHOWN = (("rollouts", "near"), ("rollouts", "far"), ("rows", "far"), *((name, "far") for name in COSTS),
         (ASYMPTOTE, ""), (MIDPOINT, ""))  # fmt: skip


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[k] for k in ("world", "regime", "estimator", "group_size", "optimiser", "order"))


def _effect(row: dict[str, Any] | None) -> str:
    """A ratio or difference with its interval and, where it is a direction after correction, a mark."""
    if row is None or row["value"] is None:
        return "-"
    unit = float if row["quantity"] == ASYMPTOTE else math.exp
    value, low, high = (unit(row[k]) for k in ("value", "low", "high"))
    sign = "+" if row["quantity"] == ASYMPTOTE else ""
    mark = "!" if row["verdict"] in ("appears", "the opposite") else " "
    return f"{value:{sign}.2f} [{low:{sign}.2f}, {high:{sign}.2f}]{mark}"


def _findings_text(told: Rows) -> str:
    lines = []
    for r in told:
        rates = "own best rates" if r["tuning"] == "own" else "one shared rate"
        where = f"{r['world']}, {r['regime']}, {r['optimiser']}, {rates}"
        number = f"{r['value']:+.4f} [{r['low']:+.4f}, {r['high']:+.4f}]"
        lines.append((where, r["estimator"], r["finding"], r["verdict"], number, r["measure"]))
    headers = ("where", "estimator", "finding", "here", "number, 95 % interval", "measure, > 0 as in the paper")
    about = "intervals one at a time; words after Holm's correction within a world, regime, estimator and tuning"
    return f"The paper's findings ({about}; ! above: a direction after it)\n{report.text_table(headers, lines)}"


def settings_from(args: argparse.Namespace) -> Settings:
    """The full or quick settings with what the command line names in their place."""
    base = QUICK if args.quick else SETTINGS
    given: dict[str, Any] = {
        "worlds": tuple(dict.fromkeys(args.world)), "estimators": tuple(dict.fromkeys(args.estimator)),
        "group_sizes": tuple(sorted(set(args.group_size))), "regimes": tuple(dict.fromkeys(args.regime)),
        "optimisers": tuple(dict.fromkeys(args.optimiser)),
        "orders": tuple(dict.fromkeys((ORDERS[0], *args.order))) if args.order else (),
        "steps": args.steps, "seeds": args.seeds, "seed": args.seed,
    }  # fmt: skip
    given = {k: v for k, v in given.items() if v not in ((), None)}
    if args.estimator:
        given["swept"] = given["estimators"]
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
    add("--regime", action="append", default=[], metavar="NAME", help="(repeatable; list above; default all)")
    add("--optimiser", action="append", default=[], choices=OPTIMISERS, help="(repeatable; default both)")
    add(
        "--order",
        action="append",
        default=[],
        choices=(*ORDERS, *OLD_NAMES),
        help="of the stream, beside shuffled (repeatable)",
    )
    add("--seeds", type=int, metavar="R", help="final runs of a cell")
    add("--steps", type=int, metavar="T", help="steps of a run; default: the regime's")
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
    cells = len(list(plan(settings, typical(settings)).places()))
    longest = max(steps_of(settings, regime) for regime in settings.regimes)
    what = f"training of {cells} cells of up to {longest} steps, {settings.seeds} seeds,"
    remedy = "lower --steps, --seeds, --group-size or --threads"
    budget.require(memory=cost.memory, seconds=cost.seconds, what=what, remedy=remedy, yes=args.yes)
    out = report.writable_folder(args.out)
    home = Path(folders.shared_folder(args.out, "results/training_study"))
    with report.locked(out), report.locked(home / CELLS):
        _study(settings, out, home, args.threads, args.json)


def _study(settings: Settings, out: Path, home: Path, threads: int, json: bool) -> None:
    found = simulate(settings, home, threads)
    listed, told, priced = table(found), findings(settings, found), outcomes(settings, found)
    at_end = [r for metric in dict.fromkeys(r["metric"] for r in listed) for r in final(listed, metric)]
    placed = placement()
    summary = report.to_json(
        {
            "settings": asdict(settings),
            "regimes": {name: REGIMES[name]._asdict() for name in settings.regimes},
            "paper": {"placement": placed, "conclusion": sentence(placed)},
            "findings": told,
            "outcomes": priced,
            "final": at_end,
        }
    )
    report.write_csv(out / "table.csv", listed)
    report.write_csv(out / "outcomes.csv", priced)
    if told:
        report.write_csv(out / "findings.csv", told)
    report.write_bytes(out / "summary.json", summary.encode())
    figures = plot(listed, priced)
    for name, figure in figures.items():
        report.save_figure(out / name, figure)
    report.say(summary if json else show(settings, listed, told, priced))
    if not json:
        report.say(f"All {len(listed)} rows: {out / 'table.csv'}; figures: {', '.join(str(out / n) for n in figures)}")


if __name__ == "__main__":
    cli.run(main)
