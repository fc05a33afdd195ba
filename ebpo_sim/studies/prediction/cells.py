"""The prediction study's cells and runs: a regime is how noisy a step is, nu/N, and sizes of a population that give it.

    regime     topics x skills   nu/N of GRPO at G = 4, at the start
    plateau         4 x 6        0.3    steps are nearly free of noise: methods that differ in noise alone must tie
    balanced       12 x 12       3
    noisy          32 x 32       30     steps are mostly noise

N, the rollouts of a step, follows from the measured nu of each world, and is the same at every group size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from ebpo_sim import cache, plugins
from ebpo_sim.chains.population import SkillChain, parse_population, success
from ebpo_sim.chains.rung import WINDOW, TrainingConfig, advance, build_method, start
from ebpo_sim.compare.plan import Job, Plan, Record, Runner
from ebpo_sim.errors import InputError, unknown_name
from ebpo_sim.labels import REFERENCE
from ebpo_sim.methods.checkpoint import fingerprint

TARGETS = {"near": 0.4, "far": 0.7}  # pass@1 levels, as shares of what GRPO gains in a calibration run
CELLS = "cells"  # the folder of finished runs and noise measurements
TUNING_SEEDS = 500_000  # tuning runs take their seeds from here on, evaluation runs from 0
RECORDS = 150  # looks at pass@1 within a run


class Regime(NamedTuple):
    """ratio: nu/N of GRPO at G = 4. steps: the longest run. adam, sgd: the common grids of learning rates, of which
    each method has the best for the far target."""

    topics: int
    skills: int
    ratio: float
    steps: int
    adam: tuple[float, ...]
    sgd: tuple[float, ...]


def _grid(lowest: float, count: int) -> tuple[float, ...]:
    return tuple(lowest * 2**i for i in range(count))


REGIMES = {
    "plateau": Regime(4, 6, 0.3, 60, _grid(0.16, 5), _grid(64, 7)),
    "balanced": Regime(12, 12, 3.0, 160, _grid(0.08, 5), _grid(32, 7)),
    "noisy": Regime(32, 32, 30.0, 600, _grid(0.04, 5), _grid(8, 7)),
}


@dataclass(frozen=True)
class Settings:
    """What is predicted and trained. thin: every how many-th rate of the grids. redraws, warm: see `chains.noise`."""

    worlds: tuple[str, ...]
    estimators: tuple[str, ...]
    group_sizes: tuple[int, ...]
    regimes: tuple[str, ...]
    optimisers: tuple[str, ...]
    population: int = 4096
    validation: int = 1024
    seeds: int = 6
    tuning_seeds: int = 2
    thin: int = 1
    redraws: int = 128
    warm: int = 40
    seed: int = 0

    def check(self) -> None:
        """Raises InputError unless every cell could be run and compared; nothing is simulated."""
        for name, low in (("seeds", 2), ("tuning_seeds", 1), ("population", 1), ("validation", 1), ("seed", 0)):
            if getattr(self, name) < low:
                raise InputError(f"{name} must be at least {low}, got {getattr(self, name)!r}")
        if self.seeds > TUNING_SEEDS:
            raise InputError(f"seeds must be at most {TUNING_SEEDS}, got {self.seeds}: the next are for tuning")
        for regime in self.regimes:
            if regime not in REGIMES:
                raise unknown_name("regime", regime, REGIMES)
        for world in self.worlds:
            population = parse_population(world, 4, 0, 4)
            for arm in self.arms:
                for size in self.group_sizes:
                    build_method(population, TrainingConfig(estimator=arm, group_size=size))

    @property
    def arms(self) -> tuple[str, ...]:
        """The methods, GRPO first."""
        return tuple(dict.fromkeys((REFERENCE, *self.estimators)))


class Cell(NamedTuple):
    """One cell of the study. rollouts: N. near, far: the targets' pass@1. Both follow from GRPO at G = 4."""

    world: str
    regime: str
    optimiser: str
    group_size: int
    rollouts: int
    near: float = 1.0
    far: float = 1.0


def plan(settings: Settings, calibrated: Sequence[Cell]) -> Plan:
    """All cells, GRPO first in each; calibrated: one of any group size for each world, regime and optimiser."""
    cells = [cell._replace(group_size=size) for cell in calibrated for size in settings.group_sizes]
    rates = {c: rates_of(settings, c) for c in cells}
    longest = max(REGIMES[regime].steps for regime in settings.regimes)
    return Plan(dict.fromkeys(cells, settings.arms), rates, longest, settings.seeds, settings.tuning_seeds)


def rates_of(settings: Settings, cell: Cell) -> tuple[float, ...]:
    """The common grid of a cell."""
    grid: tuple[float, ...] = getattr(REGIMES[cell.regime], cell.optimiser)
    return grid[:: settings.thin]


def rollouts_of(settings: Settings, regime: Regime, nu: float) -> int:
    """N that gives the regime's nu/N: a multiple of 8 and of all group sizes, with at least two groups and at most half
    of the training prompts."""
    unit, sizes = math.lcm(8, *settings.group_sizes), settings.group_sizes
    least, most = -(-2 * max(sizes) // unit), settings.population * min(sizes) // (2 * unit)
    return unit * max(min(round(nu / regime.ratio / unit), most), least)


def config(settings: Settings, arm: str, cell: Cell, rate: float = 0.0, seed: int = 0) -> TrainingConfig:
    """The settings of a run: on-policy, one mini-batch, a constant rate, no KL."""
    steps = REGIMES[cell.regime].steps
    return TrainingConfig(
        estimator=arm, group_size=cell.group_size, prompts=cell.rollouts // cell.group_size, steps=steps,
        optimiser=cell.optimiser, learning_rate=rate, minibatches=1, record_every=steps, evaluate_rollouts=1,
        gradient_redraws=0, seed=1_000_000 * settings.seed + seed,
    )  # fmt: skip


@lru_cache(maxsize=16)
def population(settings: Settings, world: str, regime: str, seed: int) -> SkillChain:
    """The prompts of a seed, the same for all methods."""
    sizes, seed = REGIMES[regime], 1_000_000 * settings.seed + seed
    return parse_population(world, settings.population, seed, settings.validation, sizes.topics, sizes.skills)


@lru_cache(maxsize=1024)
def marks(settings: Settings, arm: str, world: str) -> list[Any]:
    """What numbers rest on beside the settings: the method's, and what a world's file says."""
    people = parse_population(world, 64, 0, 1)
    method = build_method(people, TrainingConfig(estimator=arm))
    told = people.prompts.offset_PL.tolist() + people.start_SK.tolist() if "counts:" in world else []
    return [fingerprint(method), told, plugins.mark(), settings.population, settings.validation, settings.seed]


def seed_of(job: Job) -> int:
    return (TUNING_SEEDS if job.tuning else 0) + job.seed


@dataclass(frozen=True)
class Ladder(Runner):
    """Runs until the far target is met; a record is the curve of pass@1, rollouts drawn and rows trained so far."""

    settings: Settings

    def key(self, job: Job) -> str:
        run = asdict(config(self.settings, job.arm, job.cell, job.rate, seed_of(job)))
        return cache.key(
            __name__, marks(self.settings, job.arm, job.cell.world), run, job.cell, REGIMES[job.cell.regime][:4]
        )

    def run(self, job: Job) -> Record:
        people = population(self.settings, job.cell.world, job.cell.regime, seed_of(job))
        run = config(self.settings, job.arm, job.cell, job.rate, seed_of(job))
        state, curve = start(people, run), list[dict[str, float]]()
        while True:
            drawn, trained = (state.window[WINDOW.index(name)] for name in ("rollouts", "trained_rows"))
            row = {"step": state.steps, "pass1": float(success(state.theta_SK, people.validation).mean())}
            curve.append(row | {"rollouts": float(drawn), "rows": float(trained)})
            if reached(curve, job.cell.far) or state.steps == run.steps:
                return {"curve": curve, "far": job.cell.far}
            try:
                state = advance(people, run, state, max(1, run.steps // RECORDS))
            except InputError:  # settings are checked before: only a policy that stopped being finite gets here
                return {"curve": curve, "far": job.cell.far}

    def score(self, record: Record) -> float:
        """-log steps to the far target; short of it, less than any that met it."""
        curve, far = record["curve"], float(record["far"])
        met = reached(curve, far)
        if met:
            return -math.log(met["step"])
        first, best = float(curve[0]["pass1"]), max(float(row["pass1"]) for row in curve)
        return -20 + 10 * (best - first) / (far - first)


def reached(curve: Sequence[Mapping[str, float]], level: float) -> dict[str, float] | None:
    """Step, rollouts and rows at which pass@1 first is at `level`, linear between records; None where it never is."""
    after = next((i for i, row in enumerate(curve) if i and row["pass1"] >= level), None)
    if after is None:
        return None
    a, b = curve[after - 1], curve[after]
    part = (level - a["pass1"]) / (b["pass1"] - a["pass1"])
    return {name: a[name] + part * (b[name] - a[name]) for name in ("step", "rollouts", "rows")}
