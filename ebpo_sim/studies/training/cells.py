"""The training study's cells: every method tuned with the same budget, final runs on fresh seeds, a file each.

A cell is (world, estimator, group size, optimiser, order). Its learning rate is the one of a common grid with the
highest mean held-out pass@1 at the end over `tuning_seeds` runs; its results are `seeds` runs on other seeds, at that
rate ("own"), and for the shuffled order also at the rate that is GRPO's best in the same cell ("shared"). A finished
job is a JSON file named by a hash of all it depends on: a killed study picks up where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ebpo_sim import cache, plugins, report
from ebpo_sim.chains.population import SkillChain, parse_population
from ebpo_sim.chains.rung import METRICS, ORDERS, TrainingConfig, build_estimator, train
from ebpo_sim.errors import InputError
from ebpo_sim.estimators import checkpoint
from ebpo_sim.labels import REFERENCE
from ebpo_sim.pool import workers

Array = NDArray[np.float64]
CELLS = "cells"  # the folder of finished jobs
TUNING_SEEDS = 500_000  # tuning runs take their seeds from here on, final runs from 0


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
            for cell in cells(self):
                build_estimator(population, config(self, cell, 0.0, 0))

    def rates(self, optimiser: str) -> tuple[float, ...]:
        """The common grid of learning rates of an optimiser."""
        return self.sgd_rates if optimiser == "sgd" else self.adam_rates

    @property
    def middle(self) -> int:
        """The group size nearest to 4."""
        return min(self.group_sizes, key=lambda g: (abs(g - 4), g))


class Cell(NamedTuple):
    """One cell of the study."""

    world: str
    estimator: str
    group_size: int
    optimiser: str
    order: str


class Result(NamedTuple):
    """Final runs of a cell at one rate: step_T, and each metric (seeds, T), NaN where it does not exist."""

    rate: float
    step_T: NDArray[np.int64]
    values: dict[str, Array]


Found = dict[tuple[Cell, str], Result]  # (cell, "own" or "shared")


def cells(settings: Settings) -> list[Cell]:
    """All cells, GRPO's first of each kind."""
    names = tuple(dict.fromkeys((REFERENCE, *settings.estimators)))
    found = []
    for world in settings.worlds:
        for optimiser in settings.optimisers:
            for size in settings.group_sizes:
                for order in settings.orders if size == settings.middle else settings.orders[:1]:
                    kept = [n for n in names if size == settings.middle or n in (REFERENCE, *settings.swept)]
                    found += [Cell(world, n, size, optimiser, order) for n in kept]
    return found


def config(settings: Settings, cell: Cell, rate: float, seed: int, final: bool = True) -> TrainingConfig:
    """The run of a cell; tuning runs record only their end and leave the gradient's quality out."""
    return TrainingConfig(
        estimator=cell.estimator, group_size=cell.group_size, prompts=settings.prompts, steps=settings.steps,
        optimiser=cell.optimiser, learning_rate=rate, minibatches=settings.minibatches, epochs=settings.epochs,
        kl=settings.kl, order=cell.order, record_every=settings.record_every if final else settings.steps,
        gradient_redraws=settings.gradient_redraws if final else 0, seed=seed,
    )  # fmt: skip


@lru_cache(maxsize=64)
def _population(world: str, prompts: int, seed: int, validation: int) -> SkillChain:
    return parse_population(world, prompts, seed, validation)


def population_of(settings: Settings, cell: Cell, seed: int) -> SkillChain:
    """The prompts of a seed: drawn anew for each, the same for all methods."""
    return _population(cell.world, settings.population, seed, settings.validation)


def tune(settings: Settings, cell: Cell) -> dict[str, Any]:
    """Mean final pass@1 of every rate of the grid over the tuning seeds; a rate that diverges counts as 0."""
    scores = []
    for rate in settings.rates(cell.optimiser):
        reached = []
        for r in range(settings.tuning_seeds):
            seed = 1_000_000 * settings.seed + TUNING_SEEDS + r
            try:
                run = train(population_of(settings, cell, seed), config(settings, cell, rate, seed, final=False))
                reached.append(float(run.values["pass1"][-1]))
            except InputError:  # the settings are checked before: only a policy that stopped being finite gets here
                reached.append(0.0)
        scores.append(float(np.mean(reached)))
    return {"rates": settings.rates(cell.optimiser), "scores": scores}


def final_runs(settings: Settings, cell: Cell, rate: float) -> dict[str, Any]:
    """The records of all final runs of a cell at one rate, as JSON can hold them."""
    runs = []
    for r in range(settings.seeds):
        seed = 1_000_000 * settings.seed + r
        runs.append(train(population_of(settings, cell, seed), config(settings, cell, rate, seed)))
    values = {m: [[None if np.isnan(x) else float(x) for x in run.values[m]] for run in runs] for m in METRICS}
    return {"rate": rate, "step": runs[0].step_T.tolist(), "values": values}


class Job(NamedTuple):
    """A piece of work with a file of its own; rate None tunes."""

    settings: Settings
    cell: Cell
    rate: float | None

    def key(self) -> str:
        """A hash of all the result depends on, sources too; which other cells are in the study is not among it."""
        sizes = asdict(self.settings)
        which = ("worlds", "estimators", "swept", "group_sizes", "optimisers", "orders", "sgd_rates", "adam_rates")
        idle = ("tuning_seeds",) if self.rate is not None else ("seeds", "record_every", "gradient_redraws")
        for name in (*which, *idle):
            del sizes[name]
        population = parse_population(self.cell.world, 64, 0, 1)
        mark = checkpoint.fingerprint(build_estimator(population, config(self.settings, self.cell, 0.0, 0)))
        grid = self.settings.rates(self.cell.optimiser) if self.rate is None else self.rate
        told: list[Any] = [mark, sizes, self.cell, grid, plugins.mark()]
        if "counts:" in self.cell.world:  # the text names a file: what it says belongs to the settings
            told.append(population.prompts.offset_PL.tolist() + population.start_SK.tolist())
        return cache.key(__name__, told)


def work(job: Job, folder: Path) -> dict[str, Any]:
    """The job's result, from its file if that is whole, else computed and written."""
    path = folder / f"{job.key()}.json"
    found: dict[str, Any] | None = cache.load(path)
    if found is None:
        made = tune(job.settings, job.cell) if job.rate is None else final_runs(job.settings, job.cell, job.rate)
        found = cache.store(path, {"job": [*job.cell, job.rate], **made})
    return found


def _do(jobs: Iterable[Job], folder: Path, pool: Executor | None, done: Callable[[], object]) -> dict[Job, Any]:
    wanted = list(dict.fromkeys(jobs))
    results = {}
    made = (work(j, folder) for j in wanted) if pool is None else pool.map(work, wanted, [folder] * len(wanted))
    for job, result in zip(wanted, made, strict=True):
        results[job] = result
        done()
    return results


def simulate(settings: Settings, out: Path, threads: int = 1) -> Found:
    """All cells; files go to out/cells. Above one thread, worker processes share the jobs (a calling script then
    needs the usual `if __name__ == "__main__"`); results do not depend on how many."""
    settings.check()
    folder, listed = out / CELLS, cells(settings)
    with report.progress(2 * len(listed), "training_study") as bar, workers(threads) as pool:
        tuned = _do((Job(settings, cell, None) for cell in listed), folder, pool, bar.update)
        best = {job.cell: _best(result) for job, result in tuned.items()}
        rate = {(cell, "own"): best[cell] for cell in listed}
        for cell in listed:
            if cell.order == ORDERS[0]:
                rate[cell, "shared"] = best[cell._replace(estimator=REFERENCE)]
        bar.total = len(listed) + len({(cell, r) for (cell, _), r in rate.items()})
        jobs = {key: Job(settings, key[0], r) for key, r in rate.items()}
        results = _do(jobs.values(), folder, pool, bar.update)
    return {key: _read(results[job]) for key, job in jobs.items()}


def _best(tuned: dict[str, Any]) -> float:
    """The rate with the highest score, the lowest such rate where several share it."""
    return float(tuned["rates"][int(np.argmax(tuned["scores"]))])


def _read(result: dict[str, Any]) -> Result:
    values = {name: np.array(rows, dtype=np.float64) for name, rows in result["values"].items()}
    return Result(float(result["rate"]), np.array(result["step"], dtype=np.int64), values)


def mean_and_se(values_R: Array) -> tuple[float, float, int] | None:
    """Mean over the seeds that have the quantity, its standard error, how many they are; None below two."""
    kept = values_R[np.isfinite(values_R)]
    if len(kept) < 2:
        return None
    return float(kept.mean()), float(kept.std(ddof=1) / np.sqrt(len(kept))), len(kept)


def to_rows(found: Found) -> list[dict[str, Any]]:
    """The long table: one row a cell, tuning, metric and recorded step; a quantity that does not exist has no row."""
    rows = []
    for (cell, tuning), result in found.items():
        reference = found[cell._replace(estimator=REFERENCE), tuning]
        for metric in METRICS:
            for t, step in enumerate(result.step_T.tolist()):
                mine = result.values[metric][:, t]
                told = mean_and_se(mine)
                if told is None:
                    continue
                row: dict[str, Any] = {**cell._asdict(), "tuning": tuning, "learning_rate": result.rate}
                row |= {"metric": metric, "step": step, "value": told[0], "se": told[1]}
                row |= {"difference": None, "difference_se": None, "seeds": told[2]}
                paired = None if cell.estimator == REFERENCE else mean_and_se(mine - reference.values[metric][:, t])
                if paired is not None:
                    row["difference"], row["difference_se"] = paired[:2]
                rows.append(row)
    return rows
