"""Predictions, before anything is trained: every method's gradient noise in every cell, each kept as a file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ebpo_sim import cache
from ebpo_sim.chains.noise import noise
from ebpo_sim.chains.rung import advance, start
from ebpo_sim.compare.jobs import work
from ebpo_sim.compare.plan import Job, Plan, Record
from ebpo_sim.labels import REFERENCE
from ebpo_sim.pool import workers
from ebpo_sim.studies.prediction.cells import (
    REGIMES,
    SETUPS,
    TARGETS,
    Cell,
    Ladder,
    Settings,
    config,
    marks,
    population,
    rates_of,
    rollouts_of,
)

Measured = dict[str, float | None]
Cells = dict[tuple[str, Cell], Measured]  # by (method, cell)
CALIBRATION = 128  # rollouts of a batch with which nu of GRPO at G = 4 is measured to choose N

CALIBRATION_SEED = 2  # of the tuning seeds: beyond the default ones


class Question(NamedTuple):
    """The noise of a method on GRPO's policy after `steps` steps at `rate`; 0 steps: at the start."""

    arm: str
    cell: Cell
    steps: int = 0
    rate: float = 0.0


def answers(settings: Settings, asked: Sequence[Question], folder: Path, threads: int) -> list[Measured]:
    """The fields of `chains.noise.Noise`, None for NaN; those whose files are in `folder` are read."""
    paths = [folder / f"{_key(settings, question)}.json" for question in asked]
    found = [cache.load(path) for path in paths]
    missing = [i for i, content in enumerate(found) if content is None]
    with workers(min(threads, len(missing))) as pool:
        done = (pool.map if pool else map)(
            answer, [settings] * len(missing), [asked[i] for i in missing], [paths[i] for i in missing]
        )
        for i, content in zip(missing, done, strict=True):
            found[i] = content
    return found


def _key(settings: Settings, question: Question) -> str:
    run = asdict(config(settings, question.arm, question.cell, question.rate))
    sizes = [settings.redraws, settings.warm, REGIMES[question.cell.regime][:2], question.steps]
    return cache.key(__name__, marks(settings, question.arm, question.cell.world), run, question.cell, sizes)


def answer(settings: Settings, question: Question, path: Path) -> Measured:
    """Measure and keep."""
    cell = question.cell
    people = population(settings, cell.world, cell.regime, 0)
    theta_SK = _policy(settings, cell, question.steps, question.rate) if question.steps else None
    found = noise(people, config(settings, question.arm, cell), theta_SK, settings.redraws, settings.warm)
    kept: Measured = cache.store(path, {k: None if math.isnan(v) else v for k, v in found._asdict().items()})
    return kept


@lru_cache(maxsize=2)
def _policy(settings: Settings, cell: Cell, steps: int, rate: float) -> NDArray[np.float64]:
    """GRPO's parameters after so many steps of the first evaluation run."""
    people, run = population(settings, cell.world, cell.regime, 0), config(settings, REFERENCE, cell, rate)
    return advance(people, run, start(people, run), steps).theta_SK


def calibrated(settings: Settings, folder: Path, threads: int) -> list[Cell]:
    """A cell for each world, regime and setup that is run: N from the measured nu of GRPO at G = 4, targets from one
    run of it of full length at the middle of the grid, on a seed of its own."""
    places = [Cell(w, r, "adam", 4, CALIBRATION) for w in settings.worlds for r in settings.regimes]
    found = answers(settings, [Question(REFERENCE, place) for place in places], folder, threads)
    cells = [
        place._replace(setup=setup, rollouts=rollouts_of(settings, REGIMES[place.regime], x["nu"] or 0.0))
        for place, x in zip(places, found, strict=True)
        for setup in (settings.setups if place.world == settings.worlds[0] else settings.setups[:1])
    ]
    ladder, grids = Ladder(settings), [rates_of(settings, cell) for cell in cells]
    jobs = [
        Job(REFERENCE, cell, grid[len(grid) // 2], CALIBRATION_SEED, REGIMES[cell.regime].steps, True)
        for cell, grid in zip(cells, grids, strict=True)
    ]
    done = records(ladder, jobs, folder, threads)
    return [_aimed(job.cell, [row["pass1"] for row in done[job]["curve"]]) for job in jobs]


def records(ladder: Ladder, jobs: Sequence[Job], folder: Path, threads: int) -> dict[Job, Record]:
    """The runs' records; those whose files are in `folder` are read."""
    with workers(min(threads, len(jobs))) as pool:
        return dict(zip(jobs, (pool.map if pool else map)(partial(_run, ladder, folder), jobs), strict=True))


def _run(ladder: Ladder, folder: Path, job: Job) -> Record:
    found = cache.load(folder / f"{ladder.key(job)}.json")
    kept: Record = work(ladder, job, folder) if found is None else found
    return kept


def _aimed(cell: Cell, pass1_T: Sequence[float]) -> Cell:
    """The cell with its targets, rounded to read well."""
    gain = max(pass1_T) - pass1_T[0]
    near, far = (round(pass1_T[0] + share * gain, 4) for share in TARGETS.values())
    return cell._replace(near=near, far=far)


def at_the_start(settings: Settings, asked: Plan, folder: Path, threads: int) -> Cells:
    """Every method's noise in every cell, on the untrained policy; setups share it. rollouts: of an update."""
    places = list(asked.places())
    same = {(arm, cell): Question(arm, cell._replace(setup="adam", near=1.0, far=1.0)) for arm, cell in places}
    unique = list(dict.fromkeys(same.values()))
    found = dict(zip(unique, answers(settings, unique, folder, threads), strict=True))
    return {place: _an_update(place[1], found[same[place]]) for place in places}


def _an_update(cell: Cell, found: Measured) -> Measured:
    return found | {"rollouts": (found["rollouts"] or 0) / SETUPS[cell.setup].minibatches}


def midway(settings: Settings, asked: Plan, met: Mapping[Cell, tuple[int, float]], folder: Path, threads: int) -> Cells:
    """The same on GRPO's policy, where it meets the near target: met holds (steps, rate) of the cells that do."""
    places = [(arm, cell) for arm, cell in asked.places() if cell in met]
    found = answers(settings, [Question(arm, cell, *met[cell]) for arm, cell in places], folder, threads)
    return {place: _an_update(place[1], x) for place, x in zip(places, found, strict=True)}


def predicted(mine: Measured, grpo: Measured) -> float | None:
    """(1 + nu_m/N) / (1 + nu_grpo/N), the ratio of steps to any target; None where a nu is not known."""
    shares = [None if x["nu"] is None or not x["rollouts"] else 1 + x["nu"] / x["rollouts"] for x in (mine, grpo)]
    return None if shares[0] is None or shares[1] is None or min(shares[0], shares[1]) <= 0 else shares[0] / shares[1]


def predictors(mine: Measured, grpo: Measured, later: tuple[Measured, Measured] | None) -> dict[str, float | None]:
    """What each rule of thumb expects of steps(method) / steps(GRPO)."""

    def ratio(a: float | None, b: float | None) -> float | None:
        return a / b if a is not None and b is not None and a > 0 and b > 0 else None

    lively = [None if x["silent"] is None else 1 - x["silent"] for x in (grpo, mine)]
    adam = ratio(grpo["adam"], mine["adam"])
    return {
        "noise": predicted(mine, grpo),
        "noise by coordinate": None if adam is None else adam**2,  # progress a lr - b lr^2 at its best is a^2 / 4b
        "noise midway": predicted(*later) if later else None,
        "baseline error": ratio(mine["error"], grpo["error"]),
        "silent groups": ratio(*lively),
        "cosine": ratio(grpo["cosine"], mine["cosine"]),
    }
