"""The prediction study's cells and runs, in the regimes of `studies.regimes`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from ebpo_sim import cache
from ebpo_sim.chains.population import SkillChain, parse_population, success
from ebpo_sim.chains.rung import WINDOW, TrainingConfig, advance, build_method, start
from ebpo_sim.compare.plan import Job, Plan, Record, Runner
from ebpo_sim.errors import InputError
from ebpo_sim.labels import REFERENCE
from ebpo_sim.studies.regimes import REGIMES as REGIMES
from ebpo_sim.studies.regimes import TUNING_SEEDS, check_runs
from ebpo_sim.studies.regimes import marks as marks_of
from ebpo_sim.studies.regimes import rollouts_of as rollouts_of

TARGETS = {"near": 0.4, "far": 0.7}  # pass@1 levels, as shares of what GRPO gains in a calibration run
CELLS = "cells"  # the folder of finished runs and noise measurements
RECORDS = 150  # looks at pass@1 within a run


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
        check_runs(self)
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


def marks(settings: Settings, arm: str, world: str) -> list[Any]:
    """What numbers rest on beside the sizes of a run."""
    return [marks_of(arm, world), settings.population, settings.validation, settings.seed]


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
