"""Replace each value by its rank within the group: only the order of rewards counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ebpo_sim.estimators.transforms.base import Advantages, Memoryless
from ebpo_sim.groups import Groups


@dataclass(frozen=True)
class Rank(Memoryless):
    """values = (how many valid rollouts of the group are smaller - how many are larger)/n, in (-1, 1).

    Ties share their rank, a constant group gets 0, and the values of a group sum to 0. For binary rewards with k of n
    right: (n-k)/n for the right and -k/n for the wrong, the same as subtracting the group mean. Invariant under any
    increasing map of the rewards.
    """

    def apply(self, state: Any, advantages: Advantages, groups: Groups) -> Advantages:
        values_PG, valid = advantages.values_PG, groups.mask_PG
        above = (values_PG[..., :, None] > values_PG[..., None, :]) & valid[..., None, :]
        below = (values_PG[..., :, None] < values_PG[..., None, :]) & valid[..., None, :]
        rank_PG = (above.sum(axis=-1) - below.sum(axis=-1)) / np.maximum(groups.size_P, 1.0)[..., None]
        return advantages._replace(values_PG=np.where(valid, rank_PG, 0.0))
