"""Is DAPO, GSPO or CISPO better for me? All published recipes that stand on the skill chains, on one tuning budget.

Each is tuned on one grid of learning rates with the same runs, for rollouts to the far target, then run on fresh seeds
at its own best rate, paired by seed with GRPO. A batch is cut into mini-batches, so that all updates but the first are
off-policy; else most objectives coincide. Leaderboards, by regime: rollouts, trained rows and modelled seconds to the
target, ratios to GRPO, corrected (Holm) over the methods of the regime; asymptote and midpoint of the fitted sigmoid
apart. A tie where nu/N is below 1 has no resolving power. Two controls: GRPO with its rewards in random order, and GRPO
at the rate whose steps are as long as the method's. Which parts matter: shares of variance of log rollouts over
allocation, selection, estimator, objective and aggregation, in a balanced design and with the recipes in it.

regimes: plateau, balanced, noisy: nu/N of about 0.3, 3 and 30 for GRPO at G = 4 at the start
targets: near and far, 40 and 70 % of what GRPO gains in a calibration run at a low rate
sweeps: further values of --staleness and --mismatch, one at a time, in the first world's balanced regime
The full study takes about a quarter of an hour on two cores, --quick about one minute; finished runs are kept and gone
on from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ebpo_sim import budget, cli, folders, report
from ebpo_sim.compare.jobs import finish, refuse_failed
from ebpo_sim.compare.plan import Job, series
from ebpo_sim.labels import REFERENCE
from ebpo_sim.studies.base import Cost
from ebpo_sim.studies.methods.arms import Left, arms, standing
from ebpo_sim.studies.methods.cells import (
    CELLS,
    RATES,
    Settings,
    Zoo,
    aimed,
    cells_of,
    plan,
    rates_of,
    records,
    steps_of,
)
from ebpo_sim.studies.methods.evidence import evidence
from ebpo_sim.studies.methods.outcomes import Runs, boards, gains, known_numbers, table
from ebpo_sim.studies.methods.page import page
from ebpo_sim.studies.methods.plots import plot
from ebpo_sim.studies.methods.shares import part_rows
from ebpo_sim.studies.methods.text import conclusion, show
from ebpo_sim.studies.regimes import REGIMES, Size, rollouts_of, sizes

OWN = ("rloo", "ebpo", "ebpo_debiased")  # beside the recipes
SETTINGS = Settings(
    worlds=("observed:Qwen2.5-7B", "observed:Qwen2.5-Math-1.5B-Instruct/MATH"),
    methods=(),  # the recipes that stand, and OWN
    regimes=tuple(REGIMES), staleness=(4, 1, 16), mismatch=(0.0, 0.5),
)  # fmt: skip
QUICK = replace(
    SETTINGS, worlds=SETTINGS.worlds[:1], regimes=("balanced", "noisy"), staleness=(4,), mismatch=(0.0,), seeds=4,
    tuning_seeds=1, thin=2, length=0.3,
)  # fmt: skip
TABLES = ("table", "leaderboard", "shares", "effects", "gains", "evidence")
STEP = 1.1e-3  # s of a step, mean over recipes and regimes
TUNED = 0.7  # share of a run that tuning lasts, which ends at the target


@dataclass(frozen=True)
class Options:
    """The command line."""

    quick: bool = cli.option(False, "a small version of everything, for a first look")
    world: tuple[str, ...] = cli.option((), "starting pass rates (repeatable), as in training_study", metavar="WORLD")
    estimator: tuple[str, ...] = cli.option(
        (), "method or recipe in place of all (repeatable); without the design", metavar="NAME"
    )
    group_size: int | None = cli.option(
        None, "rollouts per prompt (default 8)", check=cli.check_group_size, metavar="G"
    )
    regime: tuple[str, ...] = cli.option((), "(repeatable; list above)", metavar="NAME")
    staleness: tuple[int, ...] = cli.option(
        (), "mini-batches a batch (repeatable; the first everywhere; default 4, 1, 16)", 1, metavar="S"
    )
    mismatch: tuple[float, ...] = cli.option(
        (), "noise of the sampler's logits (repeatable; the first everywhere; default 0, 0.5)", metavar="SD"
    )
    seeds: int | None = cli.option(None, "final runs of a cell", 2, metavar="R")
    seed: int = cli.seed_option()
    threads: int = cli.threads_option()
    out: str = cli.out_option(default="results/methods_study")
    html: bool = cli.option(False, "also a page with controls, methods.html")
    json: bool = cli.json_option()
    yes: bool = cli.yes_option()


def simulate(settings: Settings, home: Path, threads: int = 1) -> Runs:
    """All runs, a file each in home/cells. Raises InputError where one failed."""
    settings.check()
    folder, zoo = home / CELLS, Zoo(settings)
    cells = aimed(settings, cells_of(settings, sizes(settings, folder, threads)), folder, threads)
    asked = plan(settings, cells, arms(settings))
    done, failed = finish(asked, zoo, folder, threads)
    refuse_failed(failed)
    jobs = [
        Job(REFERENCE, cell, rate, seed, asked.steps)
        for cell in cells for rate in rates_of(settings, cell) for seed in range(settings.seeds)
    ]  # fmt: skip
    return Runs(series(asked, zoo, done), records(zoo, jobs, folder, threads))


def results(settings: Settings, runs: Runs, left: list[Left]) -> dict[str, Any]:
    """The tables by name, and what is said of them."""
    known = known_numbers(runs)
    cells = list(dict.fromkeys(cell for _, cell, _ in known))
    plain = [c for c in cells if c == next(x for x in cells if (x.world, x.regime) == (c.world, c.regime))]
    told = boards(settings, known, cells)
    shares, effects = part_rows(runs, known, plain, settings.seed)
    gained = gains(runs, plain)
    return {
        "conclusion": conclusion(told, shares, gained), "left_out": [x._asdict() for x in left],
        "leaderboard": told, "shares": shares, "effects": effects, "gains": gained, "table": table(runs, known),
        "evidence": evidence(shares, gained),
    }  # fmt: skip


def cost(settings: Settings, threads: int) -> Cost:
    """Seconds and bytes, from the sizes alone."""
    each = settings.seeds + TUNED * settings.tuning_seeds * len(range(RATES)[:: settings.thin])
    guessed = [
        Size(w, r, rollouts_of(settings, REGIMES[r], REGIMES[r].typical), 0.0, 0.0, 0.0)
        for w in settings.worlds for r in settings.regimes
    ]  # fmt: skip
    asked = plan(settings, cells_of(settings, guessed), arms(settings))
    seconds = sum(each * steps_of(settings, cell.regime) * STEP for _, cell in asked.places())
    worker = 250e6 + 32 * (settings.population + settings.validation) * 500.0
    return Cost((threads + 1) * worker, seconds / max(1, min(threads, cli.available_cores())) + 30)


def settings_from(args: Options) -> tuple[Settings, list[Left]]:
    """(the full or quick settings with what the command line names in their place, recipes left out)."""
    found, left = standing()
    given: Mapping[str, Any] = {
        "worlds": args.world, "methods": args.estimator, "regimes": args.regime, "seeds": args.seeds,
        "group_size": args.group_size, "staleness": args.staleness, "mismatch": args.mismatch,
    }  # fmt: skip
    base = replace(QUICK if args.quick else SETTINGS, methods=(*found, *OWN), seed=args.seed)
    named = {k: v for k, v in given.items() if v not in ((), None)}
    return replace(base, **named, design=not args.estimator), [] if args.estimator else left


def main(argv: Sequence[str]) -> None:
    args = cli.parse(Options, "python -m ebpo_sim.methods_study", __doc__, argv)
    settings, left = settings_from(args)
    settings.check()
    needed = cost(settings, args.threads)
    what = f"methods study of {len(settings.methods)} methods on {len(settings.worlds)} worlds, {settings.seeds} seeds,"
    remedy = "lower --seeds or --threads, or name fewer of --world, --estimator, --regime"
    budget.require(memory=needed.memory, seconds=needed.seconds, what=what, remedy=remedy, yes=args.yes)
    out = report.writable_folder(args.out)
    home = Path(folders.shared_folder(args.out, "results/methods_study"))
    if not args.json:
        report.say(f"Expected: about {budget.readable_seconds(needed.seconds)}, less what is kept from before.")
    with report.locked(out), report.locked(home / CELLS):
        runs = simulate(settings, home, args.threads)
        found = results(settings, runs, left)
        tables = {name: found.pop(name) for name in TABLES}
        described = {"settings": asdict(settings), "regimes": {r: REGIMES[r]._asdict() for r in settings.regimes}}
        summary = report.to_json({**described, **found, **{k: v for k, v in tables.items() if k in TABLES[1:-1]}})
        figures = plot(tables["leaderboard"], tables["shares"], tables["effects"])
        written = {f"{name}.csv": rows for name, rows in tables.items() if rows}
        report.write_files(out, {**written, "summary.json": summary, **figures})
        if args.html:
            report.write_bytes(out / "methods.html", page(settings, runs, tables, found["conclusion"], figures))
    if args.json:
        report.say(summary)
        return
    report.say(show(tables, found["conclusion"], left))
    drawn = ", ".join(str(out / name) for name in (*figures, *(("methods.html",) if args.html else ())))
    report.say(f"All {len(tables['table'])} rows: {out / 'table.csv'}; figures: {drawn}")


if __name__ == "__main__":
    cli.run(main)
