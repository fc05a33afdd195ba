"""The methods study's cells and runs: every arm trained off-policy on skill chains, in the regimes of `regimes.py`.

A step's batch of N rollouts is cut into mini-batches, an update each: all but the first are off-policy. Adam at a
constant rate, the stream shuffled, no divergence but what a method names.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from ebpo_sim import cache
from ebpo_sim.chains.population import SkillChain, parse_population, success
from ebpo_sim.chains.rung import WINDOW, TrainingConfig, advance, build_method, start
from ebpo_sim.compare.jobs import work
from ebpo_sim.compare.plan import Job, Plan, Record, Runner
from ebpo_sim.errors import InputError
from ebpo_sim.labels import REFERENCE
from ebpo_sim.pool import workers
from ebpo_sim.studies.prediction.cells import NO_TARGET, TARGETS, reached
from ebpo_sim.studies.regimes import REGIMES, TUNING_SEEDS, Size, check_runs, marks

CELLS = "cells"  # the folder of finished runs
PLACEBO = "grpo, random reward"  # the reference, whose rewards are in a random order
CALIBRATION_SEED = 9  # of the tuning seeds: beyond those that tune
RATES = 5  # of a grid
LOOKS = 60  # at pass@1 within a run


@dataclass(frozen=True)
class Settings:
    """What is trained. methods: beside GRPO, as text. staleness: mini-batches a batch, mismatch: of the sampler's
    logits; the first of both in every cell, the others one at a time in the first world and regime `swept`. thin: every
    how many-th rate of the grids. design: with the crossed design of parts. length: share of the regimes' length."""

    worlds: tuple[str, ...]
    methods: tuple[str, ...]
    regimes: tuple[str, ...]
    group_size: int = 8
    staleness: tuple[int, ...] = (4,)
    mismatch: tuple[float, ...] = (0.0,)
    swept: str = "balanced"
    population: int = 2048
    validation: int = 256
    seeds: int = 8
    tuning_seeds: int = 2
    thin: int = 1
    length: float = 1.0
    design: bool = True
    seed: int = 0

    @property
    def group_sizes(self) -> tuple[int, ...]:
        """As the regimes' sizes want them."""
        return (self.group_size,)

    def check(self) -> None:
        """Raises InputError unless every cell could be run and compared; nothing is simulated."""
        check_runs(self)
        for name in ("worlds", "regimes", "staleness", "mismatch"):
            if not getattr(self, name):
                raise InputError(f"{name} must not be empty: name at least one")
        for world in self.worlds:
            population = parse_population(world, 4, 0, 4)
            for arm in self.methods:
                build_method(population, TrainingConfig(estimator=arm, group_size=self.group_size))
        for parts, noise in ((s, m) for s in self.staleness for m in self.mismatch):
            TrainingConfig(prompts=2**30, minibatches=parts, mismatch=noise)


class Cell(NamedTuple):
    """One cell of the study. rollouts: N of a step; noise_ratio: nu/N of GRPO at G = 4, at the start. minibatches,
    mismatch: see `TrainingConfig`. near, far: the targets' pass@1, shares of what GRPO gains in a calibration run."""

    world: str
    regime: str
    group_size: int
    rollouts: int
    noise_ratio: float
    minibatches: int
    mismatch: float
    near: float = NO_TARGET
    far: float = NO_TARGET


def cells_of(settings: Settings, sizes: Sequence[Size]) -> list[Cell]:
    """All cells, without targets: the first of every world and regime, then the sweeps."""

    def cell(at: Size, minibatches: int, mismatch: float) -> Cell:
        parts = min(minibatches, at.rollouts // settings.group_size)
        return Cell(at.world, at.regime, settings.group_size, at.rollouts, at.ratio, parts, mismatch)

    (parts, *stale), (noise, *noisy) = settings.staleness, settings.mismatch
    found = [cell(at, parts, noise) for at in sizes]
    for at in sizes:
        if (at.world, at.regime) == (settings.worlds[0], swept_regime(settings)):
            found += [cell(at, s, noise) for s in stale] + [cell(at, parts, m) for m in noisy]
    return list(dict.fromkeys(found))


def swept_regime(settings: Settings) -> str:
    """The regime of the sweeps."""
    return settings.swept if settings.swept in settings.regimes else settings.regimes[0]


def steps_of(settings: Settings, regime: str) -> int:
    """The length of a run."""
    return max(2, round(REGIMES[regime].length * settings.length))


def rates_of(settings: Settings, cell: Cell) -> tuple[float, ...]:
    """The common grid of a cell: RATES of them, each twice the one before; lower by the root of the updates a step."""
    lowest = REGIMES[cell.regime].adam[0] / 2 / cell.minibatches**0.5
    return tuple(lowest * 2**i for i in range(RATES)[:: settings.thin])


def plan(settings: Settings, cells: Sequence[Cell], arms: Sequence[str]) -> Plan:
    """Every arm in every cell, GRPO first; the placebo and the design's arms only where nothing is swept."""
    swept = tuple(dict.fromkeys((REFERENCE, *settings.methods)))
    plain = {(c.world, c.regime): c for c in reversed(cells)}
    listed = {c: arms if plain[c.world, c.regime] == c else swept for c in cells}
    rates = {cell: rates_of(settings, cell) for cell in cells}
    longest = max(steps_of(settings, cell.regime) for cell in cells)
    return Plan({c: tuple(dict.fromkeys((REFERENCE, *a))) for c, a in listed.items()}, rates, longest,
                settings.seeds, settings.tuning_seeds)  # fmt: skip


def seed_of(settings: Settings, job: Job) -> int:
    """The seed of a run's random numbers and prompts."""
    return 1_000_000 * settings.seed + (TUNING_SEEDS if job.tuning else 0) + job.seed


def method_of(arm: str) -> str:
    """The method's text of an arm."""
    return REFERENCE if arm == PLACEBO else arm


def config(settings: Settings, job: Job) -> TrainingConfig:
    """The settings of a run. Its window of records is one step longer than the run, and never emptied."""
    cell, steps = job.cell, steps_of(settings, job.cell.regime) + 1
    return TrainingConfig(
        estimator=method_of(job.arm), group_size=cell.group_size, prompts=cell.rollouts // cell.group_size,
        steps=steps, learning_rate=job.rate, minibatches=cell.minibatches, record_every=steps, evaluate_rollouts=1,
        gradient_redraws=0, seed=seed_of(settings, job), mismatch=cell.mismatch, placebo=job.arm == PLACEBO,
    )  # fmt: skip


@lru_cache(maxsize=32)
def _population(world: str, regime: str, prompts: int, seed: int, validation: int) -> SkillChain:
    return parse_population(world, prompts, seed, validation, REGIMES[regime].topics, REGIMES[regime].skills)


@dataclass(frozen=True)
class Zoo(Runner):
    """Runs of softmax policies on skill chains; the prompts of a seed are drawn anew for it, the same for all methods.

    A record is the curve of held-out pass@1 with the rollouts drawn, rows trained and KL divergence moved so far (nats
    a token, the sum over steps). A tuning run ends where the far target is met; one that stops being finite ends there.
    """

    settings: Settings

    def key(self, job: Job) -> str:
        run, mine, cell = asdict(config(self.settings, job)), self.settings, job.cell
        about = (mine.population, mine.validation, cell.world, cell.far if job.tuning else 0, *REGIMES[cell.regime][:2])
        return cache.key(__name__, marks(method_of(job.arm), cell.world), run, about, job.tuning)

    def run(self, job: Job) -> Record:
        run, last = config(self.settings, job), steps_of(self.settings, job.cell.regime)
        sizes = (self.settings.population, run.seed, self.settings.validation)
        people = _population(job.cell.world, job.cell.regime, *sizes)
        state, curve = start(people, run), list[dict[str, float]]()
        while True:
            drawn, trained, moved = (float(state.window[WINDOW.index(n)]) for n in ("rollouts", "trained_rows", "kl"))
            pass1 = float(success(state.theta_SK, people.validation).mean())
            curve.append({"step": state.steps, "pass1": pass1, "rollouts": drawn, "rows": trained, "kl": moved})
            met = job.tuning and reached(curve, job.cell.far)
            if met or state.steps >= last:
                break
            try:
                state = advance(people, run, state, min(max(1, last // LOOKS), last - state.steps))
            except InputError:  # settings are checked before: only a policy that stopped being finite gets here
                break
        return {"curve": curve, "far": job.cell.far if job.tuning else None}

    def score(self, record: Record) -> float:
        """-log rollouts to the far target; short of it, less than any that met it."""
        curve, far = record["curve"], float(record["far"])
        met = reached(curve, far)
        if met:
            return -math.log(max(1.0, met["rollouts"]))  # 0 where a seed's prompts start beyond the target
        first, best = float(curve[0]["pass1"]), max(float(row["pass1"]) for row in curve)
        return -40 + 10 * (best - first) / (far - first)


def records(zoo: Zoo, jobs: Sequence[Job], folder: Path, threads: int) -> dict[Job, Record]:
    """The runs' records; those whose files are in `folder` are read."""
    paths = [folder / f"{zoo.key(job)}.json" for job in jobs]
    found = dict(zip(jobs, map(cache.load, paths), strict=True))
    missing = [job for job, record in found.items() if record is None]
    with workers(min(threads, len(missing))) as pool:
        done = (pool.map if pool else map)(work, [zoo] * len(missing), missing, [folder] * len(missing))
        return found | dict(zip(missing, done, strict=True))


def aimed(settings: Settings, cells: Sequence[Cell], folder: Path, threads: int = 1) -> list[Cell]:
    """The cells with their targets: a world and regime has those of its first cell."""
    zoo, first = Zoo(settings), {(c.world, c.regime): c for c in reversed(cells)}
    grids = {place: rates_of(settings, cell) for place, cell in first.items()}
    jobs = {
        place: Job(REFERENCE, cell, grids[place][1], CALIBRATION_SEED, 1, True)  # low: it gains most in the end
        for place, cell in first.items()
    }
    done, levels = records(zoo, list(jobs.values()), folder, threads), {}
    for place, job in jobs.items():
        pass1_T = [row["pass1"] for row in done[job]["curve"]]
        gain = max(pass1_T) - pass1_T[0]
        levels[place] = [round(pass1_T[0] + share * gain, 4) for share in TARGETS.values()]
    return [cell._replace(near=near, far=far) for cell in cells for near, far in [levels[cell.world, cell.regime]]]
