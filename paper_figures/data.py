"""What the figures are drawn from: the tables of two studies, simulated where they are not there yet."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from scipy.stats import t as student

from ebpo_sim import cache, report
from ebpo_sim.studies.failure import study as failure_study
from ebpo_sim.studies.training import study as training_study
from paper_figures import language_model

Rows = list[dict[str, Any]]
FAILURE, TRAINING = "failure_study", "training_study"
TABLES = "tables"  # the folder of what was simulated


@dataclass(frozen=True)
class Data:
    """Rows of the studies (empty: not asked for), and whether they are the small version. llm: those of rung 3."""

    failure: Rows
    training: Rows
    quick: bool = False
    llm: Rows = field(default_factory=list)

    @property
    def rows(self) -> Rows:
        """All that was trained: synthetic prompts and, where there are any, the tiny language model's."""
        return self.training + self.llm

    @property
    def worlds(self) -> list[str]:
        """Worlds of the training study, in its order."""
        return list(dict.fromkeys(r["world"] for r in self.training))

    @property
    def world(self) -> str:
        """The world that is shown and judged: the study's first."""
        return self.worlds[0] if self.training else ""

    @property
    def world_text(self) -> str:
        """The world for captions."""
        name = self.world.removeprefix("observed:")
        return f"success rates starting as those of {name}" if name != self.world else f"world {name}"

    def trained(self, names: Iterable[str]) -> list[str]:
        """Those of the estimators that the study trained: the quick one has fewer. All, where it trained none."""
        there = {r["estimator"] for r in self.training}
        return [name for name in names if name in there or not there]

    @property
    def scale(self) -> str:
        """A word for captions: which version, and how many seeds a cell at least."""
        seeds = min((r["seeds"] for r in self.training), default=0)
        words = f"{'Quick' if self.quick else 'Full'} version, {seeds} seeds a cell"
        if seeds < 2:
            return words
        coverage = 2 * student.cdf(2, df=seeds - 1) - 1
        return f"{words}, so that 2 standard errors cover {100 * coverage:.0f} %"


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
    source = Path(failure_study.__file__).read_text(encoding="utf-8")
    mark = hashlib.sha256(f"{settings!r}\n{source}".encode()).hexdigest()[:12]
    kept = folder / f"{FAILURE}-{mark}.json"
    found = cache.load(kept)
    return list(cache.store(kept, failure_study.simulate(settings, threads)) if found is None else found)


def _training(quick: bool, folder: Path, seed: int, threads: int) -> Rows:
    full = training_study.SETTINGS
    # The quick study leaves out the curriculum, which figure 8 is about.
    base = replace(training_study.QUICK, orders=full.orders) if quick else full
    found = training_study.rows(replace(base, seed=seed), folder / TRAINING, threads)
    report.write_csv(folder / f"{TRAINING}.csv", found)
    return list(found)


def steps(rows: Sequence[dict[str, Any]]) -> int:
    """The last step of a table."""
    return max((r["step"] for r in rows), default=0)
