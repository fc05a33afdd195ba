"""Regimes of training: how noisy a step is, nu/N, and sizes of a population that give it; the studies share them.

    regime     topics x skills   nu/N of GRPO at G = 4, at the start
    plateau         4 x 6        0.3    steps are nearly free of noise: methods that differ in noise alone must tie
    balanced       12 x 12       3
    noisy          32 x 32       30     steps are mostly noise

N, the rollouts of a step, follows from the measured nu of each world, and is the same at every group size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from ebpo_sim import cache, plugins
from ebpo_sim.chains.noise import noise
from ebpo_sim.chains.population import parse_population
from ebpo_sim.chains.rung import TrainingConfig, build_method
from ebpo_sim.errors import InputError, unknown_name
from ebpo_sim.labels import REFERENCE
from ebpo_sim.methods.checkpoint import fingerprint
from ebpo_sim.pool import workers

TUNING_SEEDS = 500_000  # tuning runs take their seeds from here on, evaluation runs from 0
CALIBRATION = 128  # rollouts of a batch with which nu of GRPO at G = 4 is measured to choose N


class Regime(NamedTuple):
    """ratio: nu/N of GRPO at G = 4. steps: the longest run to a target. adam, sgd: the common grids of learning rates
    from which each method takes the best for a target. length: steps of a run that is compared at its end too, and
    adam_end, sgd_end the grids for pass@1 there. typical: a nu, for estimates of cost before it is measured."""

    topics: int
    skills: int
    ratio: float
    steps: int
    adam: tuple[float, ...]
    sgd: tuple[float, ...]
    length: int
    adam_end: tuple[float, ...]
    sgd_end: tuple[float, ...]
    typical: float


def _grid(lowest: float, count: int) -> tuple[float, ...]:
    return tuple(lowest * 2**i for i in range(count))


REGIMES = {
    "plateau": Regime(4, 6, 0.3, 60, _grid(0.64, 4), _grid(256, 5), 60, _grid(0.04, 5), _grid(16, 7), 300),
    "balanced": Regime(12, 12, 3.0, 160, _grid(0.16, 4), _grid(64, 5), 160, _grid(0.02, 5), _grid(8, 7), 900),
    "noisy": Regime(32, 32, 30.0, 600, _grid(0.04, 5), _grid(32, 5), 400, _grid(0.01, 5), _grid(8, 7), 2700),
}


def check_runs(settings: Any) -> None:
    """What all settings of tuned and paired runs must hold. Raises InputError."""
    for name, low in (("seeds", 2), ("tuning_seeds", 1), ("population", 1), ("validation", 1), ("seed", 0)):
        if getattr(settings, name) < low:
            raise InputError(f"{name} must be at least {low}, got {getattr(settings, name)!r}")
    if settings.seeds > TUNING_SEEDS:
        raise InputError(f"seeds must be at most {TUNING_SEEDS}, got {settings.seeds}: the next are for tuning")
    for regime in settings.regimes:
        if regime not in REGIMES:
            raise unknown_name("regime", regime, REGIMES)


def rollouts_of(settings: Any, regime: Regime, nu: float) -> int:
    """N that gives the regime's nu/N: a multiple of 8 and of all group sizes, with at least two groups and at most half
    of the training prompts."""
    unit, sizes = math.lcm(8, *settings.group_sizes), settings.group_sizes
    least, most = -(-2 * max(sizes) // unit), settings.population * min(sizes) // (2 * unit)
    rollouts: int = unit * max(min(round(nu / regime.ratio / unit), most), least)
    return rollouts


def marks(arm: str, world: str) -> list[Any]:
    """What numbers rest on beside settings: the method's own, what a world's file says, and what was loaded."""
    return [*_marks(arm, world), plugins.mark()]


@lru_cache(maxsize=1024)
def _marks(arm: str, world: str) -> list[Any]:
    people = parse_population(world, 64, 0, 1)
    read = people.prompts.offset_PL.tolist() + people.start_SK.tolist() if "counts:" in world else []
    return [fingerprint(build_method(people, TrainingConfig(estimator=arm))), read]


class Size(NamedTuple):
    """A world in a regime. rollouts: N. nu ± nu_se, ratio = nu/N: of GRPO at G = 4, at the start."""

    world: str
    regime: str
    rollouts: int
    nu: float
    nu_se: float
    ratio: float


def sizes(settings: Any, folder: Path, threads: int = 1) -> list[Size]:
    """nu of every world in every regime, measured (`chains.noise`) and kept in `folder`, and the N that follows."""
    places = [(world, regime) for world in settings.worlds for regime in settings.regimes]
    with workers(min(threads, len(places))) as pool:
        measured = list((pool.map if pool else map)(partial(_nu, settings, folder), places))
    found = []
    for (world, regime), (nu, se) in zip(places, measured, strict=True):
        rollouts = rollouts_of(settings, REGIMES[regime], nu)
        found.append(Size(world, regime, rollouts, nu, se, nu / rollouts))
    return found


def _nu(settings: Any, folder: Path, place: tuple[str, str]) -> Sequence[float]:
    world, regime = place
    seed, about = 1_000_000 * settings.seed, (settings.population, settings.validation, *REGIMES[regime][:2])
    config = TrainingConfig(estimator=REFERENCE, group_size=4, prompts=CALIBRATION // 4, seed=seed)
    path = folder / f"{cache.key(__name__, marks(REFERENCE, world), asdict(config), world, about)}.json"
    kept: list[float] | None = cache.load(path)
    if kept is None:
        people = parse_population(world, settings.population, seed, settings.validation, *REGIMES[regime][:2])
        kept = list(cache.store(path, noise(people, config)[:2]))
    return kept
