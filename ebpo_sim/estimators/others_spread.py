"""Divide by the spread of the other rollouts: the scale does not depend on the scored one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ebpo_sim.estimators.transforms.base import Advantages, Memoryless
from ebpo_sim.estimators.transforms.spread import check_eps
from ebpo_sim.groups import Groups


@dataclass(frozen=True)
class OthersSpread(Memoryless):
    """values / (s + eps), s the ddof-1 standard deviation of the other rewards of the group.

    Where the others are equal, or there is but one, nothing is divided (NeMo-RL: only where s > 0). Equality is decided
    by comparison, so that rounding is no spread.
    """

    eps: float = 1e-6

    def check_settings(self) -> None:
        check_eps(self.eps)

    def apply(self, state: Any, advantages: Advantages, groups: Groups) -> Advantages:
        reward_PG, mask_PG = groups.rewards_PG, groups.mask_PG
        size_P1, mean_P1 = groups.size_P[..., None], groups.mean_P[..., None]
        deviation_PG = np.where(mask_PG, reward_PG - mean_P1, 0.0)
        # sum over the others of (r - their mean)^2 = SS - (n/(n-1)) (own deviation)^2
        squares_PG = groups.within_ss_P[..., None] - deviation_PG**2 * size_P1 / np.maximum(size_P1 - 1, 1.0)
        spread_PG = np.sqrt(np.maximum(squares_PG, 0.0) / np.maximum(size_P1 - 2, 1.0)) + self.eps
        divisor_PG = np.where(_others_equal(reward_PG, mask_PG), 1.0, spread_PG)
        return advantages._replace(
            values_PG=advantages.values_PG / divisor_PG, divisor_PG=advantages.divisor_PG * divisor_PG
        )


def _others_equal(reward_PG: Any, mask_PG: Any) -> Any:
    """Whether all other valid rewards of the group are one number: from the two smallest and the two largest."""
    low, high = (np.sort(np.where(mask_PG, reward_PG, fill), axis=-1) for fill in (np.inf, -np.inf))
    pad = [(0, 0)] * (low.ndim - 1)
    low = np.pad(low, [*pad, (0, 1)], constant_values=np.inf)
    high = np.pad(high, [*pad, (1, 0)], constant_values=-np.inf)
    smallest = np.where(reward_PG == low[..., :1], low[..., 1:2], low[..., :1])  # a tie has its twin there
    largest = np.where(reward_PG == high[..., -1:], high[..., -2:-1], high[..., -1:])
    return smallest >= largest
