"""Which prompts should get the rollouts? Allocations and dynamic sampling, replayed on a recorded run and trained with.

Part 1, replay: at each visit of a recorded RL run every rule plans one batch from what it has seen, and is shown that
visit's own recorded rollouts. Silent groups; signal, the squared deviations from a group's mean, per rollout drawn and
per second where a rollout costs a and a row that is trained on b (a:b as 1:1, 4:1, 1:4); what is climbed instead of the
mean pass rate: the effective share of prompts, 1/mean(omega^2) of the prompts' weights omega, and how many have less
than a tenth of their fair weight. Intervals: 95 %, bootstrap over prompts. Groups are at most as large as recorded.

Part 2, training on skill chains from three starts whose steps are nearly free of noise (plateau), balanced or mostly
noise (noisy): rollouts, trained rows and modelled seconds to pass@1 targets, method / GRPO with shuffled epochs, each
at its own best rate of one grid by tuning seeds of their own; paired seeds, Holm over methods, regimes and group sizes.
near and far: 40 and 70 % of what GRPO at G = 4 gains in a calibration run. Such runs last at most a few epochs of their
1,024 prompts, so memories start from four epochs of rollouts of the starting policy, neither trained on nor counted: in
favour of rules that need to know.

More signal per rollout is no faster training by itself: the objective is another one, and where steps are nearly free
of noise there is little to save. A method that drops silent groups has fewer, but pays for those it drew.
--world: starting pass rates of part 2; --run: the recorded run of part 1; --estimator: a method, as "grpo + knapsack".
evidence.csv is what the ledger's claims M4 to M7 rest on: its committed copy is ebpo_sim/claims/allocation.csv
The full study takes about a quarter of an hour on one core, --quick under one minute; finished runs are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ebpo_sim import budget, cli, folders, report
from ebpo_sim.compare import text
from ebpo_sim.compare.jobs import finish, refuse_failed
from ebpo_sim.compare.plan import middle, series
from ebpo_sim.errors import InputError
from ebpo_sim.labels import REFERENCE
from ebpo_sim.studies.allocation import replay
from ebpo_sim.studies.allocation.outcomes import QUANTITIES, Rows, Warm, row, training_rows
from ebpo_sim.studies.allocation.plots import plot
from ebpo_sim.studies.base import Cost
from ebpo_sim.studies.prediction.cells import CELLS, REGIMES
from ebpo_sim.studies.prediction.cells import Settings as Training
from ebpo_sim.studies.prediction.cells import plan as plan_of
from ebpo_sim.studies.prediction.predict import calibrated
from ebpo_sim.worlds import Recorded, recorded, recorded_source

DYNAMIC = "grpo + dynamic"
RULES = (
    DYNAMIC, "grpo + variance_aware", "grpo + variance_proportional:power=1,floor=0", "grpo + mopps",
    "grpo + mopps:weights=unbiased", "grpo + skip_silent", "grpo + knapsack", "grpo + least_variance",
)  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """run, prompts, visits, burn_in, replicates: of the replay. training: of the chains; its methods and group sizes
    are those of the replay too, as far as the run has enough rollouts. epochs: of `Warm`."""

    run: str
    training: Training
    prompts: int = 250
    visits: int = 64
    burn_in: int = 4
    replicates: int = 4
    epochs: int = 4


SETTINGS = Settings(
    "qwen2.5-math-1.5b-grpo",
    Training(
        worlds=("observed:Qwen2.5-7B",), estimators=RULES, group_sizes=(4, 8), regimes=tuple(REGIMES),
        setups=("adam",), population=1024, validation=512, seeds=8, thin=1,
    ),
)  # fmt: skip
QUICK = replace(
    SETTINGS, visits=16, replicates=1,
    training=replace(
        SETTINGS.training, estimators=(DYNAMIC, "grpo + mopps", "grpo + knapsack"), group_sizes=(4,),
        regimes=("plateau", "noisy"), population=512, validation=256, seeds=2, tuning_seeds=1, thin=2, redraws=32,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """The command line."""

    quick: bool = cli.option(False, "a small version of everything, for a first look")
    run: str = cli.option("", "recorded run of part 1, NAME or FILE.csv, as in recorded_study", metavar="NAME")
    world: tuple[str, ...] = cli.option((), "starting pass rates of part 2 (repeatable)", metavar="WORLD")
    estimator: tuple[str, ...] = cli.option((), "method, beside grpo (repeatable)", metavar="METHOD")
    group_size: tuple[int, ...] = cli.option(
        (), "rollouts per prompt, on average (repeatable)", check=cli.check_group_size, metavar="G"
    )
    regime: tuple[str, ...] = cli.option((), "start of part 2 (repeatable; list above)", metavar="NAME")
    seeds: int | None = cli.option(None, "final runs of a cell of part 2", 2, metavar="R")
    seed: int = cli.seed_option()
    threads: int = cli.threads_option()
    out: str = cli.out_option(default="results/allocation_study")
    json: bool = cli.json_option()
    yes: bool = cli.yes_option()


def check(settings: Settings) -> Recorded:
    """The recorded run. Raises InputError unless all can be replayed and trained."""
    settings.training.check()
    run = recorded(settings.run)
    if run.successes_PV.shape[1] <= settings.burn_in:
        raise InputError(f"recorded:{settings.run} has too few visits: a replay needs more than {settings.burn_in}")
    for name in settings.training.arms:
        replay.method_of(name, run.rollouts)
    return run


def replay_rows(settings: Settings, run: Recorded, advance: Any = lambda: None) -> Rows:
    """Part 1: every method at each group size that was recorded; where groups could not be unequal, not that one."""
    rows: Rows = []
    seed, visits = settings.training.seed, min(settings.visits, run.successes_PV.shape[1])
    prompts, seeds = min(settings.prompts, len(run.prompts)), range(seed, seed + settings.replicates)
    for size in settings.training.group_sizes:
        if size <= run.rollouts:
            asked = (size, prompts, visits, settings.burn_in, seeds)
            found = []
            for name in settings.training.arms:
                if getattr(replay.method_of(name, run.rollouts).allocation, "most", size + 1) > size:
                    found.append((name, replay.drawn(run, name, *asked)))
                advance()
            place: dict[str, Any] = {"part": "replay", "world": f"recorded:{settings.run}", "group_size": size}
            rows += [row(**r, **place) for r in replay.rows_of(run, found, seed)]
    return rows


def simulate(settings: Settings, out: Path, threads: int = 1, home: Path | None = None) -> Rows:
    """Both parts; runs are kept in `home`, or out, for other settings to use. Raises InputError where one failed."""
    run, training = check(settings), settings.training
    with report.progress(len(training.arms) * len(training.group_sizes), "replays") as bar:
        rows = replay_rows(settings, run, bar.update)
    folder = (home or out) / CELLS
    asked = plan_of(training, calibrated(training, folder, threads))
    ladder = Warm(training, settings.epochs)
    done, failed = finish(asked, ladder, folder, threads)
    refuse_failed(failed)
    return rows + training_rows(series(asked, ladder, done), training.seeds)


def conclusion(rows: Rows, training: Training) -> str:
    """Computed: most signal per rollout and what it costs the objective; the cheapest by regime."""
    size = middle(training.group_sizes)
    lines = []
    gains = [r for r in rows if r["quantity"] == f"signal per rollout / {REFERENCE}'s" and r["group_size"] == size]
    if gains:
        best = max(gains, key=lambda r: r["value"])
        share = next(
            r["value"] for r in rows
            if r["quantity"] == "effective share of prompts"
            and all(r[k] == best[k] for k in ("estimator", "group_size"))
        )  # fmt: skip
        kept = "" if share is None else f", its objective that of {share:.2f} of the prompts"
        lines.append(f"most signal per rollout on the recorded run: {_short(best)} {_interval(best)} times{kept}")
    for regime in training.regimes:
        told = []
        for name in ("rollouts", "seconds 1:1"):
            mine = [
                r for r in rows
                if (r["regime"], r["quantity"], r["target"], r["group_size"])
                == (regime, QUANTITIES[name], "far", size) and r["value"] is not None
            ]  # fmt: skip
            if mine:
                best = min(mine, key=lambda r: r["value"])
                told.append(f"{name} {_short(best)} {_interval(best)} ({best['verdict']})")
        lines.append(f"{regime}: {', '.join(told) or 'no method met the target with all seeds'}")
    return f"Conclusion (G = {size}; to the far target, / {REFERENCE}'s, least): {'; '.join(lines)}."


def _short(found: Mapping[str, Any]) -> str:
    return str(found["estimator"]).removeprefix(f"{REFERENCE} + ")


def _interval(found: Mapping[str, Any]) -> str:
    if found["value"] is None:
        return "-"
    ends = "" if found["low"] is None else f" [{found['low']:.2f}, {found['high']:.2f}]"
    return f"{found['value']:.2f}{ends}"


def show(settings: Settings, rows: Rows) -> str:
    """Both parts as tables, and the conclusion."""
    training = settings.training
    by = {
        (r["part"], r["world"], r["regime"], r["group_size"], r["estimator"], r["quantity"], r["target"]): r
        for r in rows
    }
    shown = ("silent groups", f"signal per rollout / {REFERENCE}'s", f"signal per seconds 1:1 / {REFERENCE}'s",
             f"signal per seconds 4:1 / {REFERENCE}'s", f"signal per seconds 1:4 / {REFERENCE}'s",
             "effective share of prompts", "prompts left out", "effective share of rollouts")  # fmt: skip
    first = [
        (str(size), name, *(_interval(by.get((*place, name, q, None), {"value": None})) for q in shown))
        for place in dict.fromkeys(k[:4] for k in by if k[0] == "replay")
        for size in place[3:]
        for name in training.arms
    ]
    headers = ("G", "method", "silent", "signal / rollout", "/ second 1:1", "4:1", "1:4", "effective share", "left out",
               "of rollouts")  # fmt: skip
    second = []
    for place in dict.fromkeys(k[:4] for k in by if k[0] == "training"):
        for name in training.arms[1:]:
            rate = by[(*place, name, "learning rate", None)]
            mine = [by[(*place, name, q, "far")] for q in QUANTITIES.values()]
            words = f"{mine[1]['verdict']}; {mine[3]['verdict']}"
            told = text.rate(rate["value"], rate["verdict"] is not None)
            second.append((place[2], str(place[3]), name, told, *map(_interval, mine), words))
    more = ("regime", "G", "method", "rate", *QUANTITIES, "verdict: rollouts; seconds 1:1")
    return "\n\n".join((
        f"Replay of recorded:{settings.run}, / {REFERENCE}'s\n{report.text_table(headers, first)}",
        f"Training, to the far target, / {REFERENCE}'s; * the grid's edge\n{report.text_table(more, second)}",
        conclusion(rows, training),
        f"Source of recorded:{settings.run}: {recorded_source(settings.run)}",
    ))  # fmt: skip


def cost(settings: Settings, threads: int) -> Cost:
    """Seconds and bytes, from the sizes alone."""
    training = settings.training
    runs = len(training.worlds) * len(training.arms) * len(training.group_sizes)
    each = training.seeds + training.tuning_seeds * 4.5 / training.thin
    seconds = sum(runs * each * REGIMES[r].steps * 2e-3 for r in training.regimes)
    replays = len(training.arms) * len(training.group_sizes) * settings.replicates * settings.visits * 2e-2
    worker = 300e6 + 16 * (training.population + training.validation) * 500.0
    return Cost((threads + 1) * worker, replays + seconds / max(1, min(threads, cli.available_cores())) + 10)


def settings_from(args: Options) -> Settings:
    """The full or quick settings with what the command line names in their place."""
    base = QUICK if args.quick else SETTINGS
    given: Mapping[str, Any] = {
        "worlds": args.world, "estimators": args.estimator, "group_sizes": tuple(sorted(set(args.group_size))),
        "regimes": args.regime, "seeds": args.seeds,
    }  # fmt: skip
    training = replace(base.training, seed=args.seed, **{k: v for k, v in given.items() if v})
    return replace(base, run=args.run or base.run, training=training)


def main(argv: Sequence[str]) -> None:
    args = cli.parse(Options, "python -m ebpo_sim.allocation_study", __doc__, argv)
    settings = settings_from(args)
    check(settings)
    needed, training = cost(settings, args.threads), settings.training
    remedy = "lower --seeds, or name fewer of --world, --estimator, --group-size, --regime"
    what = f"allocation study of {len(training.arms)} methods on {len(training.worlds)} worlds, {training.seeds} seeds,"
    budget.require(memory=needed.memory, seconds=needed.seconds, what=what, remedy=remedy, yes=args.yes)
    out = report.writable_folder(args.out)
    home = Path(folders.shared_folder(args.out, "results/allocation_study"))
    with report.locked(out), report.locked(home / CELLS):
        rows = simulate(settings, out, args.threads, home)
        evidence = [r for r in rows if r["part"] == "training" and r["target"] == "far" and r["quantity"] != "steps"]
        summary = {"settings": asdict(settings), "regimes": {r: REGIMES[r]._asdict() for r in training.regimes}}
        printed = report.to_json({**summary, "conclusion": conclusion(rows, training), "rows": rows})
        report.write_files(out, {
            "table.csv": rows, "evidence.csv": evidence, "summary.json": printed,
            **plot(rows, training.arms, middle(training.group_sizes)),
        })  # fmt: skip
    report.say(printed if args.json else show(settings, rows))
    if not args.json:
        report.say(f"All {len(rows)} rows: {out / 'table.csv'}; figure: {out / 'allocation.png'}")


if __name__ == "__main__":
    cli.run(main)
