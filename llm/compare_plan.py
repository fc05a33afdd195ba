"""Which runs a comparison consists of, in which order. Pure: what is finished goes in, what is wanted comes out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from ebpo_sim import make
from ebpo_sim.errors import InputError
from llm import compare_analysis as analysis
from llm.settings import Settings

TUNING_SEED = 1000  # tuning runs take their seeds from here on, evaluation runs from 0
Record = dict[str, Any]


class Job(NamedTuple):
    """One training run."""

    arm: str
    group_size: int
    order: str
    rate: float
    seed: int
    steps: int

    @property
    def cell(self) -> tuple[int, str]:
        """Runs of one cell are compared with each other."""
        return self.group_size, self.order


Done = Mapping[Job, Record]


@dataclass(frozen=True)
class Plan:
    """What is compared. Every arm sees the same prompts, sampling seeds and warm start at a seed: runs are paired.

    arms: estimators, GRPO first; where EBPO is among them, so are S = 0 and S = 1. orders beside the first are run at
    the group size nearest to 4. rates: one grid for all arms. budget: rollouts a step, the same at every group size.
    base: all other settings. equal_time: run faster arms again with more steps; see `equal_time_jobs`.
    Raises InputError for what could not be run or compared.
    """

    arms: tuple[str, ...]
    group_sizes: tuple[int, ...] = (2, 4, 8)
    orders: tuple[str, ...] = ("shuffled",)
    rates: tuple[float, ...] = (3e-4, 6e-4, 1.2e-3)
    seeds: int = 6
    tuning_seeds: int = 2
    budget: int = 256
    base: Settings = field(default_factory=Settings)
    equal_time: bool = True

    def __post_init__(self) -> None:
        for name in ("arms", "group_sizes", "orders", "rates"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise InputError(f"{name} must be different and at least one, got {values}")
        if self.seeds < 1 or self.tuning_seeds < 1:
            raise InputError(f"seeds must be at least 1, got {self.seeds} and {self.tuning_seeds} for tuning")
        if self.seeds > TUNING_SEED:
            raise InputError(f"--seeds must be at most {TUNING_SEED}, got {self.seeds}: the next are for tuning")
        for arm in self.arms:
            make(arm)
        for size in self.group_sizes:
            if size < 1 or self.budget % size:
                raise InputError(
                    f"--group-size must divide the {self.budget} rollouts of a step, got {size}: change --budget"
                )
        for rate in self.rates:
            self.settings(Job(self.arms[0], self.group_sizes[0], self.orders[0], rate, 0, self.base.steps))

    @property
    def middle(self) -> int:
        """The group size nearest to 4."""
        return min(self.group_sizes, key=lambda g: (abs(g - 4), g))

    @property
    def cells(self) -> list[tuple[int, str]]:
        """(group size, order) of each comparison."""
        return [(g, o) for g in self.group_sizes for o in (self.orders if g == self.middle else self.orders[:1])]

    def settings(self, job: Job) -> Settings:
        """The settings of a run. Tuning validates at the end only, a run of other length as often as the plain one."""
        every = self.base.eval_every
        every = job.steps if job.seed >= TUNING_SEED else max(1, round(every * job.steps / self.base.steps))
        return replace(
            self.base, estimator=job.arm, group_size=job.group_size, prompts=self.budget // job.group_size,
            order=job.order, lr=job.rate, seed=job.seed, steps=job.steps, eval_every=every,
            checkpoint_every=job.steps,
        )  # fmt: skip


def tuning_jobs(plan: Plan) -> list[Job]:
    """Every arm at every rate on the tuning seeds; none where the grid leaves no choice."""
    if len(plan.rates) == 1:
        return []
    return [
        Job(arm, *cell, rate, TUNING_SEED + s, plan.base.steps)
        for s in range(plan.tuning_seeds)
        for cell in plan.cells
        for arm in plan.arms
        for rate in plan.rates
    ]


def rates(plan: Plan, done: Done) -> dict[tuple[str, int, str], analysis.Choice]:
    """The learning rate of each (arm, group size, order) whose tuning runs are all there."""
    scores: dict[tuple[str, int, str], dict[float, list[float]]] = {}
    for job in tuning_jobs(plan):
        found = scores.setdefault((job.arm, *job.cell), {rate: [] for rate in plan.rates})
        if job in done:
            found[job.rate].append(final(done[job]))
    if not scores:
        only = analysis.Choice(plan.rates[0], False, {})
        return {(arm, *cell): only for cell in plan.cells for arm in plan.arms}
    complete = {k: v for k, v in scores.items() if all(len(x) == plan.tuning_seeds for x in v.values())}
    return {key: analysis.choose_rate(found) for key, found in complete.items()}


def evaluation_jobs(plan: Plan, chosen: Mapping[tuple[str, int, str], analysis.Choice]) -> list[Job]:
    """Every tuned arm at its own rate, all arms of one seed before the next seed."""
    return [
        Job(arm, *cell, chosen[arm, *cell].rate, seed, plan.base.steps)
        for seed in range(plan.seeds)
        for cell in plan.cells
        for arm in plan.arms
        if (arm, *cell) in chosen
    ]


def equal_time_jobs(plan: Plan, evaluation: list[Job], done: Done) -> list[Job]:
    """Runs as long as the clock arm's: a schedule that is cut short by the clock has not decayed its learning rate.

    An arm's length is known when its evaluation runs and the clock arm's are all there; where it is the usual one
    (`analysis.equal_steps`), the evaluation runs stand.
    """
    if not plan.equal_time:
        return []
    spent: dict[tuple[Any, ...], list[float]] = {}
    for job in evaluation:
        if job in done:
            spent.setdefault((job.arm, job.cell), []).append(seconds(done[job]))
    found = []
    for job in evaluation:
        mine, clock = (spent.get((arm, job.cell), []) for arm in (job.arm, analysis.clock_arm(plan.arms)))
        if len(mine) == len(clock) == plan.seeds:
            steps = analysis.equal_steps(job.steps, mine, clock)
            found += [job._replace(steps=steps)] if steps != job.steps else []
    return found


def wanted(plan: Plan, done: Done) -> list[tuple[str, Job]]:
    """(stage, run) of all runs that are known of, in the order in which they are started.

    Rates are chosen by tuning runs, and lengths at equal time by evaluation runs, so the list grows with `done`.
    """
    evaluation = evaluation_jobs(plan, rates(plan, done))
    stages = ("tuning", tuning_jobs(plan)), ("evaluation", evaluation), (
        "equal_time", equal_time_jobs(plan, evaluation, done),
    )  # fmt: skip
    return [(stage, job) for stage, jobs in stages for job in jobs]


def final(record: Record) -> float:
    """Validation pass@1 after the last step."""
    return float(record["curve"][-1]["validation_pass1"])


def seconds(record: Record) -> float:
    """Seconds of training, without validating and measuring."""
    return float(record["curve"][-1]["seconds"])


def progress(plan: Plan, done: Done) -> str:
    """How many of the runs are done, and what to do about the rest."""
    listed = wanted(plan, done)
    there = Counter(stage for stage, job in listed if job in done)
    total = Counter(stage for stage, _ in listed)
    total["evaluation"] = len(plan.cells) * len(plan.arms) * plan.seeds
    parts = ", ".join(f"{stage.replace('_', ' ')} {there[stage]} of {n}" for stage, n in total.items() if n)
    if there.total() == total.total():
        return f"All {total.total()} runs are done ({parts})."
    later = "; faster arms run again at equal time afterwards" if plan.equal_time else ""
    return f"{there.total()} of {total.total()} runs done ({parts}{later}): repeat the command to go on."
