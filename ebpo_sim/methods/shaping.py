"""Reward shaping as a part of a method: an estimator that is shown rewards less a penalty on long answers."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ebpo_sim import typed
from ebpo_sim.errors import InputError
from ebpo_sim.estimators import Estimator, Info
from ebpo_sim.groups import Groups, masked
from ebpo_sim.part import REMEDIES, Need
from ebpo_sim.registry import Registry


@dataclass(frozen=True)
class Overlong(typed.Settings):
    """Reward plus factor times clip((longest - cache - L)/cache, -1, 0), L the answer's tokens.

    0 up to longest - cache tokens, then a line down to -factor at longest. longest 20480, cache 4096 in the paper; verl
    (overlong_buffer) has no floor at -factor, which only answers beyond `longest` notice. What a selection sees are the
    rewards without it, as verl's filter of groups by accuracy does. Source: DAPO arXiv 2503.14476, eq. 13.
    """

    longest: int = 20480
    cache: int = 4096
    factor: float = 1.0

    needs: ClassVar[frozenset[Need]] = frozenset({"lengths", "log_probs"})  # counts know no answer's length

    def check_settings(self) -> None:
        if not 1 <= self.cache <= self.longest or self.factor < 0:
            raise InputError(
                f"overlong needs 1 <= cache <= longest and factor at least 0, got {self.cache}, {self.longest} and "
                f"{self.factor}: 4096, 20480 and 1 are the paper's"
            )

    def penalty_PG(self, groups: Groups) -> NDArray[np.float64]:
        """What is added to every reward. Raises InputError for a batch without lengths."""
        if groups.length_PG is None:
            raise InputError(f"overlong needs lengths: {REMEDIES['lengths']}")
        line = (self.longest - self.cache - groups.length_PG) / self.cache
        return np.asarray(self.factor * np.clip(line, -1.0, 0.0))


SHAPINGS = Registry("shaping", {"overlong": Overlong})


@dataclass(frozen=True)
class Shaped(Estimator):
    """The same rule, which learns from and scores the shaped rewards; they must lie in its domain."""

    shaping: Overlong = Overlong()

    @property
    def learns(self) -> tuple[Hashable, ...]:
        """See `Estimator.learns`."""
        return (*super().learns, self.shaping)

    @property
    def needs(self) -> frozenset[Need]:
        """The rule's own, and lengths."""
        return frozenset[Need]({"lengths"}).union(*(t.needs for t in self.chain))

    def update(self, state: Any, groups: Groups) -> Any:
        """The state after a batch."""
        return super().update(state, self._shaped(groups))

    def score(self, state: Any, groups: Groups) -> tuple[Any, Info]:
        """Advantages of the shaped rewards."""
        return super().score(state, self._shaped(groups))

    def _shaped(self, groups: Groups) -> Groups:
        shaped_PG = np.where(groups.mask_PG, groups.rewards_PG + self.shaping.penalty_PG(groups), 0.0)
        return masked(groups, groups.mask_PG, shaped_PG)
