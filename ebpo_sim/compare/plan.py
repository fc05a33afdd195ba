"""Which runs a comparison consists of, in which order. Pure: what is finished goes in, what is wanted comes out.

1. Tuning: every arm at every rate of its cell's grid, on seeds of their own; the highest mean score wins.
2. Evaluation: every arm at its own rate, and in some cells also at the reference's ("shared"); paired by seed.
3. Equal time, where a clock is named: arms that are faster or slower than it, with as many steps as fit its seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, get_args

import numpy as np

from ebpo_sim.labels import REFERENCE

Record = dict[str, Any]  # what a run leaves: what JSON can hold
Tuning = Literal["own", "shared"]


class Job(NamedTuple):
    """One run of an arm (a compared method); cell: a NamedTuple. Runs of one cell and seed are paired. tuning: it is
    for the choice of a rate, so only its score is of interest, and its seeds are others than those of evaluation."""

    arm: str
    cell: Any
    rate: float
    seed: int
    steps: int
    tuning: bool = False


class Runner(Protocol):
    """A host: it does one run. It goes to worker processes, so it must pickle."""

    def key(self, job: Job) -> str:
        """A name for all that decides the record (`ebpo_sim.cache.key`)."""
        ...

    def prepare(self, job: Job) -> None:
        """What must be there before the first run, once; by default nothing."""
        return

    def run(self, job: Job) -> Record:
        """The record: "curve", a row of metrics a step that is recorded, each with "step"; what else the host wants.
        "wall_seconds", where it is there, tells how long runs take."""
        ...

    def score(self, record: Record) -> float:
        """What tuning maximises."""
        ...

    def seconds(self, record: Record) -> float:
        """Of training, for equal time; by default not measured."""
        return 0.0


Done = Mapping[Job, Record]


class Choice(NamedTuple):
    """A learning rate, whether a better one may lie outside the grid, and the mean score of each."""

    rate: float
    edge: bool
    scores: dict[float, float]


def choose_rate(scores: Mapping[float, Sequence[float]]) -> Choice:
    """The rate of the highest mean score, the smaller one of equals; edge: it is the first or last of several."""
    means = {rate: float(np.mean(scores[rate])) for rate in sorted(scores)}
    best = max(means, key=lambda rate: (means[rate], -rate))
    return Choice(best, len(means) > 1 and best in (min(means), max(means)), means)


def middle(group_sizes: Sequence[int]) -> int:
    """The group size nearest to 4."""
    return min(group_sizes, key=lambda g: (abs(g - 4), g))


@dataclass(frozen=True)
class Plan:
    """arms: those of each cell, the reference first. rates: a cell's common grid. shared: cells that are also run at
    the reference's best rate. clock: the arm whose seconds the others are given; empty: no runs at equal time."""

    arms: Mapping[Any, tuple[str, ...]]
    rates: Mapping[Any, tuple[float, ...]]
    steps: int
    seeds: int
    tuning_seeds: int
    shared: frozenset[Any] = frozenset()
    clock: str = ""

    def places(self) -> Iterator[tuple[str, Any]]:
        """(arm, cell), cell by cell."""
        return ((arm, cell) for cell, arms in self.arms.items() for arm in arms)


Chosen = dict[tuple[str, Any], Choice]


def tuning_jobs(plan: Plan) -> list[Job]:
    """Every arm at every rate on the tuning seeds; none where the grid leaves no choice."""
    return [
        Job(arm, cell, rate, s, plan.steps, True)
        for s in range(plan.tuning_seeds)
        for arm, cell in plan.places()
        for rate in plan.rates[cell]
        if len(plan.rates[cell]) > 1
    ]


def choices(plan: Plan, runner: Runner, done: Done) -> Chosen:
    """The learning rate of each (arm, cell) whose tuning runs are all there."""
    scores: dict[tuple[str, Any], dict[float, list[float]]] = {}
    for job in tuning_jobs(plan):
        found = scores.setdefault((job.arm, job.cell), {rate: [] for rate in plan.rates[job.cell]})
        if job in done:
            found[job.rate].append(runner.score(done[job]))
    fixed = {(a, c): Choice(plan.rates[c][0], False, {}) for a, c in plan.places() if (a, c) not in scores}
    whole = {k: v for k, v in scores.items() if all(len(x) == plan.tuning_seeds for x in v.values())}
    return fixed | {place: choose_rate(found) for place, found in whole.items()}


def evaluation_jobs(plan: Plan, chosen: Chosen, tuning: Tuning = "own") -> list[Job]:
    """Every tuned arm at its own rate, or at the reference's, all arms of one seed before the next seed."""
    source = {(a, c): (a if tuning == "own" else REFERENCE, c) for a, c in plan.places()}
    return [
        Job(arm, cell, chosen[source[arm, cell]].rate, seed, plan.steps)
        for seed in range(plan.seeds)
        for arm, cell in plan.places()
        if source[arm, cell] in chosen and (tuning == "own" or cell in plan.shared)
    ]


def equal_steps(steps: int, seconds_R: Sequence[float], target_R: Sequence[float]) -> int:
    """Steps that last as long as the runs of `target_R`, where `steps` take `seconds_R`: medians over seeds.

    Medians, since a busy machine disturbs single runs; in eighths of `steps`, so that small disturbances do not matter
    and runs of about the same length stand for each other.
    """
    eighths = max(1, round(8 * float(np.median(target_R) / np.median(seconds_R))))
    return max(1, round(eighths * steps / 8))


def equal_time_jobs(plan: Plan, evaluation: Sequence[Job], runner: Runner, done: Done) -> list[Job]:
    """Runs as long as the clock's: a schedule that is cut short by the clock has not decayed its learning rate.

    An arm's length is known when its evaluation runs and the clock's are all there; where it is the usual one, the
    evaluation runs stand.
    """
    spent: dict[tuple[str, Any], list[float]] = {}
    for job in evaluation:
        if job in done:
            spent.setdefault((job.arm, job.cell), []).append(runner.seconds(done[job]))
    found = []
    for job in evaluation if plan.clock else ():
        mine, clock = (spent.get((arm, job.cell), []) for arm in (job.arm, plan.clock))
        if len(mine) == len(clock) == plan.seeds:
            steps = equal_steps(job.steps, mine, clock)
            found += [job._replace(steps=steps)] if steps != job.steps else []
    return found


def wanted(plan: Plan, runner: Runner, done: Done) -> list[tuple[str, Job]]:
    """(stage, run) of all runs that are known of, in the order in which they are started.

    Rates are chosen by tuning runs, and lengths at equal time by evaluation runs, so the list grows with `done`.
    """
    chosen = choices(plan, runner, done)
    evaluation = evaluation_jobs(plan, chosen)
    plain = set(evaluation)
    stages = {
        "tuning": tuning_jobs(plan),
        "evaluation": evaluation,
        "shared": [*dict.fromkeys(j for j in evaluation_jobs(plan, chosen, "shared") if j not in plain)],
        "equal_time": equal_time_jobs(plan, evaluation, runner, done),
    }
    return [(stage, job) for stage, jobs in stages.items() for job in jobs]


def progress(plan: Plan, runner: Runner, done: Done) -> str:
    """How many of the runs are done, and what to do about the rest."""
    listed = wanted(plan, runner, done)
    there = Counter(stage for stage, job in listed if job in done)
    total = Counter(stage for stage, _ in listed)
    total["evaluation"] = len(list(plan.places())) * plan.seeds
    parts = ", ".join(f"{stage.replace('_', ' ')} {there[stage]} of {n}" for stage, n in total.items() if n)
    if there.total() == total.total():
        return f"All {total.total()} runs are done ({parts})."
    later = "; faster arms run again at equal time afterwards" if plan.clock else ""
    return f"{there.total()} of {total.total()} runs done ({parts}{later}): repeat the command to go on."


class Series(NamedTuple):
    """The runs of an arm at one rate. place: the columns that name its cell; only series of one place are compared.
    curves: seed -> the records of its run."""

    arm: str
    place: dict[str, Any]
    rate: float
    edge: bool
    curves: dict[int, list[Record]]


def series(plan: Plan, runner: Runner, done: Done) -> dict[tuple[str, Any, Tuning], Series]:
    """The finished evaluation runs by (arm, cell, tuning), all at own rates first."""
    chosen, found = choices(plan, runner, done), dict[tuple[str, Any, Tuning], Series]()
    for tuning in get_args(Tuning):
        for job in evaluation_jobs(plan, chosen, tuning):
            if job in done:
                choice = chosen[job.arm if tuning == "own" else REFERENCE, job.cell]
                place = {**job.cell._asdict(), "tuning": tuning}
                empty = Series(job.arm, place, choice.rate, choice.edge, {})
                found.setdefault((job.arm, job.cell, tuning), empty).curves[job.seed] = done[job]["curve"]
    return found
