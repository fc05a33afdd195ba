"""The training study's runs: what is trained where, and the skill chain as a host of the comparison engine.

A cell is (world, regime, group size, optimiser, order). Each estimator's learning rate is the one of a common grid with
the highest mean held-out pass@1 at the end over `tuning_seeds` runs; its results are `seeds` runs on other seeds, at
that rate ("own"), and for the shuffled order at the middle group size also at the rate that is GRPO's best ("shared").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ebpo_sim import cache
from ebpo_sim.chains.population import SkillChain, parse_population
from ebpo_sim.chains.rung import OLD_NAMES, ORDERS, TrainingConfig, build_method, train
from ebpo_sim.compare.plan import Job, Plan, Record, Runner, middle
from ebpo_sim.errors import InputError
from ebpo_sim.labels import REFERENCE
from ebpo_sim.studies.regimes import REGIMES, TUNING_SEEDS, Size, check_runs, marks, rollouts_of

CELLS = "cells"  # the folder of finished runs


@dataclass(frozen=True)
class Settings:
    """What is trained, and the size of it. In the first world `swept` estimators run at every group size and in every
    order, the others shuffled at the group size nearest to 4, where alone the other worlds run the swept ones.
    records: looks at a run. thin: every how many-th rate of the regimes' grids. steps: of a run; the regimes' own."""

    worlds: tuple[str, ...]
    estimators: tuple[str, ...]
    swept: tuple[str, ...]
    group_sizes: tuple[int, ...]
    regimes: tuple[str, ...]
    optimisers: tuple[str, ...]
    orders: tuple[str, ...]
    population: int = 2048
    validation: int = 256
    steps: int | None = None
    records: int = 20
    gradient_redraws: int = 4
    kl: float = 0.001
    seeds: int = 8
    tuning_seeds: int = 2
    thin: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "orders", tuple(dict.fromkeys(OLD_NAMES.get(o, o) for o in self.orders)))

    def check(self) -> None:
        """Raises InputError unless every cell could be run and compared; nothing is simulated."""
        check_runs(self)
        for name in ("worlds", "estimators", "group_sizes", "regimes", "optimisers", "orders"):
            if not getattr(self, name):
                raise InputError(f"{name} must not be empty: name at least one")
        if self.orders[0] != ORDERS[0]:
            raise InputError(f"orders must begin with {ORDERS[0]!r}, got {self.orders[0]!r}: the others compare to it")
        for optimiser in self.optimisers:
            for group_size in self.group_sizes:
                TrainingConfig(optimiser=optimiser, group_size=group_size)  # refuses what no plan can be made of
        for world in self.worlds:
            population = parse_population(world, 4, 0, 4)
            for arm, cell in plan(self, typical(self)).places():
                build_method(population, config(self, Job(arm, cell, 0.0, 0, 1)))


class Cell(NamedTuple):
    """One cell of the study. rollouts: N of a step, the same at every group size; noise_ratio: nu/N of GRPO at G = 4,
    at the start."""

    world: str
    regime: str
    group_size: int
    optimiser: str
    order: str
    rollouts: int
    noise_ratio: float


def typical(settings: Settings) -> list[Size]:
    """Sizes before nu is measured, for checks and estimates of cost."""
    return [
        Size(world, regime, rollouts_of(settings, REGIMES[regime], REGIMES[regime].typical), 0.0, 0.0, 0.0)
        for world in settings.worlds
        for regime in settings.regimes
    ]


def steps_of(settings: Settings, regime: str) -> int:
    """The length of a run."""
    return settings.steps or REGIMES[regime].length


def plan(settings: Settings, sizes: Sequence[Size]) -> Plan:
    """All cells with their estimators, GRPO first."""
    names = tuple(dict.fromkeys((REFERENCE, *settings.estimators)))
    swept = tuple(name for name in names if name in (REFERENCE, *settings.swept))
    central = middle(settings.group_sizes)
    arms: dict[Cell, tuple[str, ...]] = {}
    for at in sizes:
        first = at.world == settings.worlds[0]
        for optimiser in settings.optimisers:
            for group_size in settings.group_sizes if first else (central,):
                for order in settings.orders if first and group_size == central else settings.orders[:1]:
                    cell = Cell(at.world, at.regime, group_size, optimiser, order, at.rollouts, at.ratio)
                    arms[cell] = names if first and group_size == central and order == ORDERS[0] else swept
    rates = {cell: getattr(REGIMES[cell.regime], f"{cell.optimiser}_end")[:: settings.thin] for cell in arms}
    shared = frozenset(cell for cell in arms if cell.order == ORDERS[0] and cell.group_size == central)
    longest = max(steps_of(settings, regime) for regime in settings.regimes)
    return Plan(arms, rates, longest, settings.seeds, settings.tuning_seeds, shared)


def seed_of(settings: Settings, job: Job) -> int:
    """The seed of a run's random numbers and prompts."""
    return 1_000_000 * settings.seed + (TUNING_SEEDS if job.tuning else 0) + job.seed


def config(settings: Settings, job: Job) -> TrainingConfig:
    """The settings of a run: on-policy, one mini-batch; tuning runs record only their end and leave the gradient's
    quality out."""
    steps, cell = steps_of(settings, job.cell.regime), job.cell
    return TrainingConfig(
        estimator=job.arm, group_size=cell.group_size, prompts=cell.rollouts // cell.group_size, steps=steps,
        optimiser=cell.optimiser, learning_rate=job.rate, minibatches=1, kl=settings.kl, order=cell.order,
        record_every=steps if job.tuning else max(1, steps // settings.records),
        evaluate_rollouts=1 if job.tuning else 16, gradient_redraws=0 if job.tuning else settings.gradient_redraws,
        seed=seed_of(settings, job),
    )  # fmt: skip


@lru_cache(maxsize=16)
def _population(world: str, regime: str, prompts: int, seed: int, validation: int) -> SkillChain:
    return parse_population(world, prompts, seed, validation, REGIMES[regime].topics, REGIMES[regime].skills)


@dataclass(frozen=True)
class Chains(Runner):
    """Runs of softmax policies on skill chains; the prompts of a seed are drawn anew for it, the same for all methods.

    A tuning run whose policy stops being finite scores 0.
    """

    settings: Settings

    def key(self, job: Job) -> str:
        run, mine, cell = asdict(config(self.settings, job)), self.settings, job.cell
        about = (mine.population, mine.validation, cell.world, *REGIMES[cell.regime][:2])
        return cache.key(__name__, marks(job.arm, cell.world), run, about)

    def run(self, job: Job) -> Record:
        seed = seed_of(self.settings, job)
        sizes = (self.settings.population, seed, self.settings.validation)
        population = _population(job.cell.world, job.cell.regime, *sizes)
        try:
            run = train(population, config(self.settings, job))
        except InputError:  # the settings are checked before: only a policy that stopped being finite gets here
            if job.tuning:
                return {"curve": [{"step": steps_of(self.settings, job.cell.regime), "pass1": 0.0}]}
            raise
        columns = {name: [None if np.isnan(x) else float(x) for x in line] for name, line in run.values.items()}
        steps = enumerate(run.step_T.tolist())
        return {"curve": [{"step": step, **{name: line[t] for name, line in columns.items()}} for t, step in steps]}

    def score(self, record: Record) -> float:
        return float(record["curve"][-1]["pass1"])
