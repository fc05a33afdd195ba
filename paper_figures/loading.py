"""The tables that the figures need: read where they are, simulated and kept where they are not there yet."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, replace
from pathlib import Path

from ebpo_sim import cache, report
from ebpo_sim.studies.failure import study as failure_study
from ebpo_sim.studies.training import study as training_study
from paper_figures import language_model
from paper_figures.data import FAILURE, TRAINING, Data, Rows

TABLES = "tables"  # the folder of what was simulated


def load(needs: Collection[str], quick: bool, out: Path, seed: int, threads: int) -> Data:
    """The tables that are needed, from `out`/TABLES where they are, else simulated and kept there."""
    folder = out / TABLES
    failure = _failure(quick, folder, seed, threads) if FAILURE in needs else []
    training = _training(quick, folder, seed, threads) if TRAINING in needs else []
    llm = language_model.load(language_model.TABLE) if TRAINING in needs else []
    return Data(failure, training, quick, llm)


def _failure(quick: bool, folder: Path, seed: int, threads: int) -> Rows:
    base = failure_study.QUICK if quick else failure_study.SETTINGS
    settings = replace(base, design=base.design._replace(seed=seed))
    # The name carries what the rows depend on, so a table of other settings or code is never taken for this one.
    kept = folder / f"{FAILURE}-{cache.key(failure_study.__name__, asdict(settings))}.json"
    found = cache.load(kept)
    return list(cache.store(kept, failure_study.simulate(settings, threads)) if found is None else found)


def _training(quick: bool, folder: Path, seed: int, threads: int) -> Rows:
    full = training_study.SETTINGS
    # The quick study leaves out the curriculum, which figure 8 is about.
    base = replace(training_study.QUICK, orders=full.orders) if quick else full
    found = training_study.rows(replace(base, seed=seed), folder / TRAINING, threads)
    report.write_csv(folder / f"{TRAINING}.csv", found)
    return list(found)
