"""The prediction study's cells and runs, in the regimes of `studies.regimes`. A setup is
what the steps are made with:

    adam        constant rate, one mini-batch: on-policy. In all cells of the study
    sgd         the same, plain
    adam_decay  a rate that falls linearly to 0 at the regime's longest step
    adam_stale  four mini-batches, so that N/4 rollouts make an update and three of them are off-policy, clipped at 0.2

The first setup is run for all worlds and group sizes, the others in the first world at the group size nearest to 4.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ebpo_sim import cache
from ebpo_sim.chains.population import SkillChain, parse_population, per_token, success, token_entropy
from ebpo_sim.chains.rung import WINDOW, State, TrainingConfig, advance, build_method, start
from ebpo_sim.compare.plan import Job, Plan, Record, Runner, middle
from ebpo_sim.errors import InputError, unknown_name
from ebpo_sim.labels import REFERENCE
from ebpo_sim.studies.regimes import REGIMES as REGIMES
from ebpo_sim.studies.regimes import TUNING_SEEDS, check_runs
from ebpo_sim.studies.regimes import marks as marks_of
from ebpo_sim.studies.regimes import rollouts_of as rollouts_of

TARGETS = {"near": 0.4, "far": 0.7}  # pass@1 levels, as shares of what GRPO gains in a calibration run
CELLS = "cells"  # the folder of finished runs and noise measurements
RECORDS = 150  # looks at pass@1 within a run
LONG = 2  # times the longest run, in steps: a run without a target
NO_TARGET = 2.0  # a far target that no pass@1 meets


class Setup(NamedTuple):
    """How the policy is stepped, in the words of `TrainingConfig`."""

    optimiser: str
    schedule: str = "constant"
    minibatches: int = 1


SETUPS = {
    "adam": Setup("adam"),
    "sgd": Setup("sgd"),
    "adam_decay": Setup("adam", schedule="linear"),
    "adam_stale": Setup("adam", minibatches=4),
}


@dataclass(frozen=True)
class Settings:
    """What is predicted and trained. estimators: everywhere; central: beside them at the group size nearest to 4;
    setup_estimators: with setups beyond the first. thin: every how many-th rate of the grids. redraws, warm: see
    `chains.noise`."""

    worlds: tuple[str, ...]
    estimators: tuple[str, ...]
    group_sizes: tuple[int, ...]
    regimes: tuple[str, ...]
    setups: tuple[str, ...]
    central: tuple[str, ...] = ()
    setup_estimators: tuple[str, ...] = ()
    population: int = 4096
    validation: int = 1024
    seeds: int = 5
    tuning_seeds: int = 2
    thin: int = 1
    redraws: int = 128
    warm: int = 40
    seed: int = 0

    def check(self) -> None:
        """Raises InputError unless every cell could be run and compared; nothing is simulated."""
        check_runs(self)
        for name in self.setups:
            if name not in SETUPS:
                raise unknown_name("setup", name, SETUPS)
        for world in self.worlds:
            population = parse_population(world, 4, 0, 4)
            for arm in (*self.arms, *self.central, *self.setup_estimators):
                for size in self.group_sizes:
                    build_method(population, TrainingConfig(estimator=arm, group_size=size))

    @property
    def arms(self) -> tuple[str, ...]:
        """The methods of every cell, GRPO first."""
        return tuple(dict.fromkeys((REFERENCE, *self.estimators)))

    def arms_of(self, cell: Cell) -> tuple[str, ...]:
        """The methods of a cell, GRPO first: `arms`, and the further ones that are run there alone."""
        if cell.setup != self.setups[0]:
            return tuple(dict.fromkeys((REFERENCE, *(self.setup_estimators or self.estimators))))
        beside = self.central if cell.group_size == middle(self.group_sizes) else ()
        here = self.setup_estimators if beside and cell.world == self.worlds[0] else ()
        return tuple(dict.fromkeys((*self.arms, *beside, *here)))


class Cell(NamedTuple):
    """One cell of the study. rollouts: N. near, far: the targets' pass@1. Both follow from GRPO at G = 4."""

    world: str
    regime: str
    setup: str
    group_size: int
    rollouts: int
    near: float = 1.0
    far: float = 1.0


def plan(settings: Settings, calibrated: Sequence[Cell]) -> Plan:
    """All cells, GRPO first in each; calibrated: one of any group size for each world, regime and setup that is run."""
    central = (middle(settings.group_sizes),)
    sizes = {cell: settings.group_sizes if cell.setup == settings.setups[0] else central for cell in calibrated}
    cells = [cell._replace(group_size=size) for cell in calibrated for size in sizes[cell]]
    rates = {c: rates_of(settings, c) for c in cells}
    longest = max(REGIMES[regime].steps for regime in settings.regimes)
    return Plan({cell: settings.arms_of(cell) for cell in cells}, rates, longest, settings.seeds, settings.tuning_seeds)


def rates_of(settings: Settings, cell: Cell) -> tuple[float, ...]:
    """The common grid of a cell; lower by the root of the number of updates a step."""
    setup = SETUPS[cell.setup]
    grid: tuple[float, ...] = getattr(REGIMES[cell.regime], setup.optimiser)
    return tuple(rate / setup.minibatches**0.5 for rate in grid[:: settings.thin])


def config(settings: Settings, arm: str, cell: Cell, rate: float = 0.0, seed: int = 0) -> TrainingConfig:
    """The settings of a run, no KL; one without a far target lasts LONG times the regime's steps."""
    setup, steps = SETUPS[cell.setup], REGIMES[cell.regime].steps * (LONG if cell.far == NO_TARGET else 1)
    return TrainingConfig(
        estimator=arm, group_size=cell.group_size, prompts=cell.rollouts // cell.group_size, steps=steps,
        optimiser=setup.optimiser, learning_rate=rate, schedule=setup.schedule, minibatches=setup.minibatches,
        record_every=steps, evaluate_rollouts=1, gradient_redraws=0, seed=1_000_000 * settings.seed + seed,
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
    """Runs until the far target is met; a record is the curve of pass@1, the tokens' mean entropy (nats), both held
    out, rollouts drawn and rows trained so far; in a run without a target also of pass@8 and pass@16."""

    settings: Settings

    def key(self, job: Job) -> str:
        run = asdict(config(self.settings, job.arm, job.cell, job.rate, seed_of(job)))
        return cache.key(
            __name__, marks(self.settings, job.arm, job.cell.world), run, job.cell, REGIMES[job.cell.regime][:4]
        )

    def begin(self, people: SkillChain, run: TrainingConfig) -> State:
        """The state before the first step."""
        return start(people, run)

    def run(self, job: Job) -> Record:
        people = population(self.settings, job.cell.world, job.cell.regime, seed_of(job))
        run = config(self.settings, job.arm, job.cell, job.rate, seed_of(job))
        state, curve = self.begin(people, run), list[dict[str, float]]()
        while True:
            drawn, trained = (state.window[WINDOW.index(name)] for name in ("rollouts", "trained_rows"))
            p_P = success(state.theta_SK, people.validation)
            entropy = per_token(token_entropy(state.theta_SK, people.validation), people.validation)
            row = {"step": state.steps, "pass1": float(p_P.mean()), "entropy": entropy}
            curve.append(row | {"rollouts": float(drawn), "rows": float(trained)})
            if job.cell.far == NO_TARGET:
                curve[-1] |= {f"pass{k}": float(np.mean(1 - (1 - p_P) ** k)) for k in (8, 16)}
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
    """Step, rollouts, rows and what else a record holds where pass@1 first is at `level`, linear between records; None
    where it never is."""
    after = next((i for i, row in enumerate(curve) if i and row["pass1"] >= level), None)
    if after is None:
        return None
    a, b = curve[after - 1], curve[after]
    part = (level - a["pass1"]) / (b["pass1"] - a["pass1"])
    return {name: a[name] + part * (b[name] - a[name]) for name in a if name != "pass1"}
