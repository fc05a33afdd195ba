"""What the figures are drawn from: the rows of two studies and of the tiny language model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
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

    @cached_property
    def rows(self) -> Rows:
        """All that was trained: synthetic prompts and, where there are any, the tiny language model's."""
        return self.training + self.llm

    def of(self, metric: str) -> Rows:
        """The rows of a metric."""
        return self._by_metric.get(metric, [])

    @cached_property
    def _by_metric(self) -> dict[str, Rows]:
        found: dict[str, Rows] = {}
        for row in self.rows:
            found.setdefault(row["metric"], []).append(row)
        return found

    @cached_property
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

    @cached_property
    def regimes(self) -> dict[str, str]:
        """Regimes of the training study, each with its nu/N (of GRPO at G = 4, at the start) in the world shown."""
        return {name: f"{name}, ν/N {r['noise_ratio']:.2g}" for name, r in self._ends.items()}

    @cached_property
    def _ends(self) -> dict[str, dict[str, Any]]:
        """regime -> a row of its last step in the world shown."""
        world = self.world
        return {r["regime"]: r for r in at_end([r for r in self.training if r["world"] == world])}

    @property
    def regimes_text(self) -> str:
        """What captions say of the regimes."""
        told = (
            f"{name} {r['noise_ratio']:.2g} ({r['rollouts']} rollouts × {r['step']} steps)"
            for name, r in self._ends.items()
        )
        return "ν/N of GRPO at G = 4, at the start: " + ", ".join(told) if self._ends else "no regime was run"

    @property
    def scale(self) -> str:
        """A word for captions: which version, and how many seeds a cell at least."""
        seeds = min((r["seeds"] for r in self.training), default=0)
        words = f"{'Quick' if self.quick else 'Full'} version, {seeds} seeds a cell"
        if seeds < 2:
            return words
        coverage = 2 * stdtr(seeds - 1, 2) - 1
        return f"{words}, so that 2 standard errors cover {100 * coverage:.0f} %"


def at_end(rows: Rows) -> Rows:
    """The rows at the last step of their world and regime."""
    ends: dict[tuple[str, Any], int] = {}
    for r in rows:
        place = r["world"], r.get("regime")
        ends[place] = max(r["step"], ends.get(place, 0))
    return [r for r in rows if r["step"] == ends[r["world"], r.get("regime")]]
