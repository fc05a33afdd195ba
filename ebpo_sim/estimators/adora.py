"""ADORA: damp the groups whose right answers are not the long ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ebpo_sim.errors import InputError
from ebpo_sim.estimators.transforms.base import Advantages, Memoryless
from ebpo_sim.groups import Groups
from ebpo_sim.part import Need


@dataclass(frozen=True)
class LengthGate(Memoryless):
    """values times `weight` unless the group's longest right answer (reward > `right`) is longer than the mean length
    of its wrong ones below `limit` tokens (None: no limit).

    No wrong answer below the limit: nothing is damped; no right one: damped, unless there is none of both.
    """

    weight: float = 0.1
    right: float = 0.5
    limit: int | None = None

    needs: ClassVar[frozenset[Need]] = frozenset({"lengths"})

    def check_settings(self) -> None:
        if self.weight < 0:
            raise InputError(f"weight must be >= 0, got {self.weight!r}")

    def apply(self, state: Any, advantages: Advantages, groups: Groups) -> Advantages:
        if groups.length_PG is None:
            raise InputError("adora needs lengths: pass lengths=... to group_rewards(), the tokens of each rollout")
        right_PG = groups.mask_PG & (groups.rewards_PG > self.right)
        wrong_PG = groups.mask_PG & ~right_PG & (groups.length_PG < (np.inf if self.limit is None else self.limit))
        longest_P = np.where(right_PG, groups.length_PG, -np.inf).max(axis=-1)
        count_P = wrong_PG.sum(axis=-1)
        mean_P = np.sum(groups.length_PG * wrong_PG, axis=-1) / np.maximum(count_P, 1)
        kept_P = longest_P > np.where(count_P > 0, mean_P, -np.inf)
        weight_P1 = np.where(kept_P, 1.0, self.weight)[..., None]
        return advantages._replace(values_PG=advantages.values_PG * weight_P1)
