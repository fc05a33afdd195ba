"""Does gradient noise, measured before training, predict how soon each method reaches a target?

First nu, the gradient noise scale of every method in every cell, on the untrained policy, and from it the predicted
ratio of steps to a target, (1 + nu_m/N) / (1 + nu_grpo/N); written to table.csv before anything is trained. Then every
method at its own learning rate of a common grid, seeds paired: steps, rollouts, trained rows and modelled seconds to
the targets; without --quick also runs to where curves end, with and without the groups that all pass or all fail.
Beside noise stand what baseline error, silent groups and the gradient's cosine expect. A tie where nu/N is below 1 has
no resolving power, and is not called a tie.

regimes: plateau, balanced, noisy: nu/N of about 0.3, 3 and 30 for GRPO at G = 4 at the start
targets: near and far, 40 and 70 % of what GRPO at G = 4 gains in a calibration run; rates are tuned for the far one
setups: adam (on-policy, constant rate) for all worlds and group sizes; sgd, adam_decay (linear, to 0) and adam_stale
(four mini-batches a step) in the first world at the group size nearest to 4
evidence.csv is what the ledger's claims E1 to E7 rest on: its committed copy is ebpo_sim/claims/training.csv
runs.csv: what each seed's targets cost
The full study takes about a quarter of an hour on two cores, --quick under one minute; finished
pieces are kept and gone on from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from ebpo_sim import budget, cli, folders, report
from ebpo_sim.compare import text
from ebpo_sim.compare.jobs import finish, refuse_failed
from ebpo_sim.compare.plan import series
from ebpo_sim.labels import REFERENCE
from ebpo_sim.studies.base import Cost
from ebpo_sim.studies.prediction.cells import CELLS, REGIMES, SETUPS, Ladder, Settings, plan
from ebpo_sim.studies.prediction.dominance import WORTH, dominance
from ebpo_sim.studies.prediction.dominance import table as dominance_table
from ebpo_sim.studies.prediction.ends import MEASURES, SCORE, end_rows, ends, equal_rows
from ebpo_sim.studies.prediction.ends import table as ends_table
from ebpo_sim.studies.prediction.evidence import evidence, run_rows
from ebpo_sim.studies.prediction.language_model import compared
from ebpo_sim.studies.prediction.outcomes import Found, Point, averages, fits, measured_rows, noise_rows, points, spent
from ebpo_sim.studies.prediction.plots import plot
from ebpo_sim.studies.prediction.predict import at_the_start, calibrated, midway

Rows = list[dict[str, Any]]

HALF, FEW = (f"{SCORE} + keep_rows:share={share}" for share in (0.5, 0.15))
SETTINGS = Settings(
    worlds=(
        "observed:Qwen2.5-7B", "observed:Qwen2.5-Math-1.5B-Instruct/MATH", "observed:GPT-4-0613/LiveCodeBench",
    ),
    estimators=(
        "ebpo", "loo_table:memory=0.95", SCORE, "reinforce", HALF,
    ),
    group_sizes=(2, 4, 8),
    regimes=tuple(REGIMES),
    setups=tuple(SETUPS),
    central=(
        "rloo", "ebpo:shrinkage=1", "ebpo_debiased:memory=0.95", "loo_table:weights=length,memory=0.95", "raft",
        "optimal_token_baseline", "optimal:memory=0.95", "regression:weights=score,memory=0.95",
    ),  # without dr_grpo and opo: a constant times rloo where a prompt's answers are of one length
    setup_estimators=("rloo", "ebpo", SCORE, "reinforce", HALF, FEW),
)  # fmt: skip
QUICK = replace(
    SETTINGS, worlds=SETTINGS.worlds[:1], estimators=("ebpo", SCORE), central=(), setup_estimators=(),
    group_sizes=(2, 8), regimes=("plateau", "noisy"), setups=("adam", "sgd"), population=1024, validation=256, seeds=2,
    tuning_seeds=1, thin=2, redraws=48,
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """The command line."""

    quick: bool = cli.option(False, "a small version of everything, for a first look")
    world: tuple[str, ...] = cli.option((), "starting pass rates (repeatable), as in training_study", metavar="WORLD")
    estimator: tuple[str, ...] = cli.option((), "method, beside grpo alone (repeatable)", metavar="NAME")
    group_size: tuple[int, ...] = cli.option(
        (), "rollouts per prompt (repeatable)", check=cli.check_group_size, metavar="G"
    )
    regime: tuple[str, ...] = cli.option((), "(repeatable; list above)", metavar="NAME")
    setup: tuple[str, ...] = cli.option((), "(repeatable; list above)", choices=tuple(SETUPS))
    seeds: int | None = cli.option(None, "final runs of a cell", 2, metavar="R")
    seed: int = cli.seed_option()
    threads: int = cli.threads_option()
    out: str = cli.out_option(default="results/prediction_study")
    json: bool = cli.json_option()
    yes: bool = cli.yes_option()


class Outcome(NamedTuple):
    """The long table, and the points of the figure."""

    rows: Rows
    points: list[Point]


def simulate(
    settings: Settings, out: Path, threads: int = 1, home: Path | None = None, to_the_end: bool = False
) -> Outcome:
    """Predictions, which are written before the runs; then the runs, kept in `home`, or out, for other settings to use;
    to_the_end: also those without a target. Raises InputError where one failed."""
    settings.check()
    folder, ladder = (home or out) / CELLS, Ladder(settings)
    asked = plan(settings, calibrated(settings, folder, threads))
    starts = at_the_start(settings, asked, folder, threads)
    rows = noise_rows(starts, "start")
    report.write_csv(out / "table.csv", rows)
    done, failed = finish(asked, ladder, folder, threads)
    refuse_failed(failed)
    found = series(asked, ladder, done)
    report.write_csv(out / "runs.csv", run_rows(found))
    later = midway(settings, asked, _met(found), folder, threads)
    rows += noise_rows(later, "midway") + measured_rows(settings, found, starts)
    if to_the_end:
        rows += end_rows(ends(settings, found, folder, threads))
        rows += equal_rows(settings, found, starts, folder, threads)
    return Outcome(rows, points(settings, found, starts, later))


def _met(found: Found) -> dict[Any, tuple[int, float]]:
    """(steps, rate) with which GRPO meets the near target, by cell, where its first run does."""
    runs = {cell: (x.rate, spent(x, "near")) for (arm, cell, _), x in found.items() if arm == REFERENCE}
    return {cell: (max(1, round(met[0]["step"])), rate) for cell, (rate, met) in runs.items() if 0 in met}


def conclusion(fitted: Rows) -> str:
    """One line, computed: slope and rank correlation of noise, and the others' rank correlations."""
    lines = []
    for setup in dict.fromkeys(r["setup"] for r in fitted):
        mine = {
            r["predictor"]: r for r in fitted
            if (r["setup"], r["target"], r["regime"]) == (setup, "far", "all") and r["slope"] is not None
        }  # fmt: skip
        if "noise" in mine:
            x = mine["noise"]
            others = ", ".join(f"{n} {r['rank']:.2f}" for n, r in mine.items() if n != "noise")
            lines.append(
                f"{setup}: log measured on log predicted ratio of steps has slope {x['slope']:.2f} "
                f"[{x['slope_low']:.2f}, {x['slope_high']:.2f}], rank correlation {x['rank']:.2f} "
                f"[{x['rank_low']:.2f}, {x['rank_high']:.2f}] over {x['points']} points in {x['cells']} cells"
                + (f"; rank correlation of the others: {others}" if others else "")
            )
    return "; ".join(lines) + "." if lines else "Too few points for a slope: add methods, group sizes or worlds."


def show(rows: Rows, fitted: Rows, means: Rows, best: Rows) -> str:
    """Ratios of steps to the far target cell by cell, their means by regime in every currency, the best methods, the
    ends, fits, the language model's points, conclusion."""
    place = ("world", "regime", "setup", "group_size")
    values = {(*(r[k] for k in place), r["estimator"], r["quantity"], r["target"]): r for r in rows}
    lines = []
    for key, r in values.items():
        if key[-2:] == ("ratio of steps", "far"):
            start = {
                q: values[(*key[:4], arm, f"{q}, start", None)]["value"]
                for q, arm in (("nu/N", REFERENCE), ("predicted ratio of steps", r["estimator"]))
            }
            rate = values[(*key[:4], r["estimator"], "learning rate", None)]
            lines.append((
                r["world"], r["regime"], report.number(start["nu/N"]), str(r["rollouts"]), r["setup"],
                str(r["group_size"]), r["estimator"], text.rate(rate["value"], rate["verdict"] is not None),
                report.number(start["predicted ratio of steps"]), _interval(r), r["verdict"],
            ))  # fmt: skip
    headers = (
        "world", "regime", "nu/N", "N", "setup", "G", "method", "rate", "predicted", "measured, 95 %", "verdict",
    )  # fmt: skip
    title = "Steps to the far target, method / grpo; * the grid's edge"
    shown = [
        (r["setup"], r["target"], r["regime"], r["predictor"], str(r["points"]),
         *(f"{r[n]:.2f} [{r[f'{n}_low']:.2f}, {r[f'{n}_high']:.2f}]" if r[n] is not None else "-"
           for n in ("slope", "rank")))
        for r in fitted
    ]  # fmt: skip
    fit_headers = ("setup", "target", "regime", "predictor", "points", "slope", "rank correlation")
    lm = [
        (r["estimator"], f"{float(r['target']):.0%}", f"{r['predicted']:.2f}", _interval({**r, "value": r["measured"]}),
         f"{r['residual']:+.2f}")
        for r in compared()
    ]  # fmt: skip
    currencies = list(dict.fromkeys(r["quantity"] for r in means))
    by = {(r["setup"], r["regime"], r["estimator"], r["quantity"]): r for r in means}
    table = [
        (*key, str(by[(*key, currencies[0])]["cells"]), *(_interval(by[(*key, c)]) for c in currencies))
        for key in dict.fromkeys(k[:3] for k in by)
    ]
    mean_headers = ("setup", "regime", "method", "cells", *currencies)
    parts = [
        f"{title}\n{report.text_table(headers, lines)}",
        f"Geometric means over worlds and group sizes, far target\n{report.text_table(mean_headers, table)}",
        "Best, with its interval, and who is within it: geometric means over worlds, method / grpo\n"
        + report.text_table(("regime", "G", *WORTH), dominance_table(best)),
        report.text_table(fit_headers, shown),
        "Tiny language model, G = 2, nu/N of GRPO 3.1, one rate for all (llm/measured/noise): steps, method / grpo\n"
        + report.text_table(("method", "pass@1", "predicted", "measured, 95 %", "log measured / predicted"), lm),
        conclusion(fitted),
    ]
    last = ends_table(rows)
    if last:
        title = "At the end of runs without a target, difference to grpo or, of silent groups, to the method with them"
        parts.insert(3, f"{title}\n{report.text_table(('regime', 'method', *MEASURES), last)}")
    return "\n\n".join(parts)


def _interval(row: Mapping[str, Any]) -> str:
    return "-" if row["value"] is None else f"{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"


def cost(settings: Settings, threads: int) -> Cost:
    """Seconds and bytes, from the sizes alone: runs last to the longest step, N is what the default worlds have."""
    runs = len(settings.worlds) * (len(settings.arms) * len(settings.group_sizes) + len(settings.central))
    runs += len(settings.setups[1:]) * len(settings.setup_estimators or settings.arms)
    each = settings.seeds + settings.tuning_seeds * 4.5 / settings.thin
    seconds = sum(runs * (each * REGIMES[r].steps * 1.2e-3 + settings.redraws * 6e-3) for r in settings.regimes)
    gradient = max(REGIMES[r].topics * REGIMES[r].skills for r in settings.regimes) * 8 * 8.0
    worker = 250e6 + 3.0 * settings.redraws * gradient + 16 * (settings.population + settings.validation) * 500.0
    return Cost((threads + 1) * worker, seconds / max(1, min(threads, cli.available_cores())) + 5)


def settings_from(args: Options) -> Settings:
    """The full or quick settings with what the command line names in their place."""
    given: Mapping[str, Any] = {
        "worlds": args.world, "estimators": args.estimator, "group_sizes": tuple(sorted(args.group_size)),
        "regimes": args.regime, "setups": args.setup, "seeds": args.seeds,
    }  # fmt: skip
    settings = replace(QUICK if args.quick else SETTINGS, seed=args.seed, **{k: v for k, v in given.items() if v})
    return replace(settings, central=(), setup_estimators=()) if args.estimator else settings


def main(argv: Sequence[str]) -> None:
    args = cli.parse(Options, "python -m ebpo_sim.prediction_study", __doc__, argv)
    settings = settings_from(args)
    settings.check()
    needed = cost(settings, args.threads)
    remedy = "lower --seeds, or name fewer of --world, --estimator, --group-size, --regime"
    what = f"prediction study of {len(settings.arms)} methods on {len(settings.worlds)} worlds, {settings.seeds} seeds,"
    budget.require(memory=needed.memory, seconds=needed.seconds, what=what, remedy=remedy, yes=args.yes)
    out = report.writable_folder(args.out)
    home = Path(folders.shared_folder(args.out, "results/prediction_study"))
    with report.locked(out), report.locked(home / CELLS):
        rows, listed = simulate(settings, out, args.threads, home, to_the_end=not args.quick)
        fitted = fits(listed, settings.seed)
        summary = {"settings": asdict(settings), "regimes": {r: REGIMES[r]._asdict() for r in settings.regimes}}
        means, best = averages(rows), dominance(rows, settings.setups[0])
        judged = {"conclusion": conclusion(fitted), "means": means, "dominance": best, "fits": fitted}
        judged["language_model"] = compared()
        printed = report.to_json({**summary, **judged, "rows": rows})
        report.write_csv(out / "table.csv", rows)
        report.write_csv(out / "evidence.csv", evidence(rows))
        report.write_bytes(out / "summary.json", printed.encode())
        figures = {f"prediction_{setup}.png": plot(listed, setup) for setup in settings.setups}
        for name, figure in figures.items():
            report.save_figure(out / name, figure)
    report.say(printed if args.json else show(rows, fitted, means, best))
    if not args.json:
        report.say(f"All {len(rows)} rows: {out / 'table.csv'}; figures: {', '.join(str(out / n) for n in figures)}")


if __name__ == "__main__":
    cli.run(main)
