"""What the figures are drawn from: the rows of two studies and of the tiny language model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from scipy.special import stdtr

Rows = list[dict[str, Any]]
FAILURE, TRAINING = "failure_study", "training_study"


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
        coverage = 2 * stdtr(seeds - 1, 2) - 1
        return f"{words}, so that 2 standard errors cover {100 * coverage:.0f} %"


def steps(rows: Sequence[dict[str, Any]]) -> int:
    """The last step of a table."""
    return max((r["step"] for r in rows), default=0)
