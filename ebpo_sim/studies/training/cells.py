"""The training study's runs: what is trained where, and the skill chain as a host of the comparison engine.

A cell is (world, group size, optimiser, order). Each estimator's learning rate is the one of a common grid with the
highest mean held-out pass@1 at the end over `tuning_seeds` runs; its results are `seeds` runs on other seeds, at that
rate ("own"), and for the shuffled order also at the rate that is GRPO's best in the same cell ("shared").
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ebpo_sim import cache, plugins
from ebpo_sim.chains.population import SkillChain, parse_population
from ebpo_sim.chains.rung import OLD_NAMES, ORDERS, TrainingConfig, build_method, train
from ebpo_sim.compare.plan import Job, Plan, Record, Runner, middle
from ebpo_sim.errors import InputError
from ebpo_sim.labels import REFERENCE
from ebpo_sim.methods.checkpoint import fingerprint

CELLS = "cells"  # the folder of finished runs
TUNING_SEEDS = 500_000  # tuning runs take their seeds from here on, evaluation runs from 0


@dataclass(frozen=True)
class Settings:
    """What is trained, and the size of it. `swept` estimators run at every group size, the others at the one nearest
    to 4, where alone the orders beside the first are run. sgd_rates, adam_rates: the common grids."""

    worlds: tuple[str, ...]
    estimators: tuple[str, ...]
    swept: tuple[str, ...]
    group_sizes: tuple[int, ...]
    optimisers: tuple[str, ...]
    orders: tuple[str, ...]
    population: int = 2048
    validation: int = 256
    prompts: int = 64
    steps: int = 160
    record_every: int = 16
    gradient_redraws: int = 8
    minibatches: int = 4
    epochs: int = 1
    kl: float = 0.001
    seeds: int = 20
    tuning_seeds: int = 10
    sgd_rates: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
    adam_rates: tuple[float, ...] = (0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32)
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "orders", tuple(dict.fromkeys(OLD_NAMES.get(o, o) for o in self.orders)))

    def check(self) -> None:
        """Raises InputError unless every cell could be run and compared; nothing is simulated."""
        for name, low in (("seeds", 2), ("tuning_seeds", 1), ("population", 1), ("validation", 1), ("seed", 0)):
            if getattr(self, name) < low:
                raise InputError(f"{name} must be at least {low}, got {getattr(self, name)!r}")
        if self.seeds > TUNING_SEEDS:
            raise InputError(f"seeds must be at most {TUNING_SEEDS}, got {self.seeds}: the next are for tuning")
        for name in ("worlds", "estimators", "group_sizes", "optimisers", "orders", "sgd_rates", "adam_rates"):
            if not getattr(self, name):
                raise InputError(f"{name} must not be empty: name at least one")
        if self.orders[0] != ORDERS[0]:
            raise InputError(f"orders must begin with {ORDERS[0]!r}, got {self.orders[0]!r}: the others compare to it")
        for world in self.worlds:
            population = parse_population(world, 4, 0, 4)
            for arm, cell in plan(self).places():
                build_method(population, config(self, Job(arm, cell, 0.0, 0, self.steps)))

    def rates(self, optimiser: str) -> tuple[float, ...]:
        """The common grid of learning rates of an optimiser."""
        return self.sgd_rates if optimiser == "sgd" else self.adam_rates


class Cell(NamedTuple):
    """One cell of the study."""

    world: str
    group_size: int
    optimiser: str
    order: str


def plan(settings: Settings) -> Plan:
    """All cells with their estimators, GRPO first."""
    names = tuple(dict.fromkeys((REFERENCE, *settings.estimators)))
    swept = tuple(name for name in names if name in (REFERENCE, *settings.swept))
    central = middle(settings.group_sizes)
    arms = {
        Cell(world, size, optimiser, order): names if size == central else swept
        for world in settings.worlds
        for optimiser in settings.optimisers
        for size in settings.group_sizes
        for order in (settings.orders if size == central else settings.orders[:1])
    }
    rates = {cell: settings.rates(cell.optimiser) for cell in arms}
    shared = frozenset(cell for cell in arms if cell.order == ORDERS[0])
    return Plan(arms, rates, settings.steps, settings.seeds, settings.tuning_seeds, shared)


def seed_of(settings: Settings, job: Job) -> int:
    """The seed of a run's random numbers and prompts."""
    return 1_000_000 * settings.seed + (TUNING_SEEDS if job.tuning else 0) + job.seed


def config(settings: Settings, job: Job) -> TrainingConfig:
    """The settings of a run; tuning runs record only their end and leave the gradient's quality out."""
    return TrainingConfig(
        estimator=job.arm, group_size=job.cell.group_size, prompts=settings.prompts, steps=job.steps,
        optimiser=job.cell.optimiser, learning_rate=job.rate, minibatches=settings.minibatches,
        epochs=settings.epochs, kl=settings.kl, order=job.cell.order,
        record_every=job.steps if job.tuning else settings.record_every,
        gradient_redraws=0 if job.tuning else settings.gradient_redraws, seed=seed_of(settings, job),
    )  # fmt: skip


@lru_cache(maxsize=64)
def _population(world: str, prompts: int, seed: int, validation: int) -> SkillChain:
    return parse_population(world, prompts, seed, validation)


@lru_cache(maxsize=1024)
def _marks(settings: Settings, arm: str, cell: Cell) -> list[Any]:
    """What a run's numbers rest on beside its settings: the method's, and what a world's file says."""
    population = parse_population(cell.world, 64, 0, 1)
    method = build_method(population, config(settings, Job(arm, cell, 0.0, 0, settings.steps)))
    told = population.prompts.offset_PL.tolist() + population.start_SK.tolist() if "counts:" in cell.world else []
    return [fingerprint(method), told]


@dataclass(frozen=True)
class Chains(Runner):
    """Runs of softmax policies on skill chains; the prompts of a seed are drawn anew for it, the same for all methods.

    A tuning run whose policy stops being finite scores 0.
    """

    settings: Settings

    def key(self, job: Job) -> str:
        run = asdict(config(self.settings, job))
        sizes = (self.settings.population, self.settings.validation, job.cell.world)
        return cache.key(__name__, _marks(self.settings, job.arm, job.cell), plugins.mark(), run, sizes)

    def run(self, job: Job) -> Record:
        population = _population(
            job.cell.world, self.settings.population, seed_of(self.settings, job), self.settings.validation
        )
        try:
            run = train(population, config(self.settings, job))
        except InputError:  # the settings are checked before: only a policy that stopped being finite gets here
            if job.tuning:
                return {"curve": [{"step": job.steps, "pass1": 0.0}]}
            raise
        columns = {name: [None if np.isnan(x) else float(x) for x in line] for name, line in run.values.items()}
        steps = enumerate(run.step_T.tolist())
        return {"curve": [{"step": step, **{name: line[t] for name, line in columns.items()}} for t, step in steps]}

    def score(self, record: Record) -> float:
        return float(record["curve"][-1]["pass1"])
