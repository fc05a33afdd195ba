"""Rewards of a set of rollouts: the unbiased gradient of pass@k, and the best answer's margin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from ebpo_sim.errors import InputError
from ebpo_sim.estimators.transforms.base import Advantages, Domain, Memoryless
from ebpo_sim.groups import Groups
from ebpo_sim.numbers import Array


@dataclass(frozen=True)
class PassAtK(Memoryless):
    """The advantages whose mean push is the gradient of 1 - (1-p)^k, from n rollouts of which c are right.

    miss(w, n, k) = C(w, k)/C(n, k): the chance that k of n, w of them wrong, are all wrong. Averaged over all sets of k
    that hold rollout i, k times the set's reward (1 if one is right) less a baseline:

    baseline "others", pass@k of the other n-1: A = k miss(w_i, n-1, k) if right, where w_i of the others are wrong,
    else k (miss(w_i, n-1, k) - miss(w_i, n-1, k-1)); "fewer", the set without i: A = k miss(n-c, n-1, k-1) if right,
    else 0. Both leave i out, so the gradient is unbiased; k = 1 is RLOO, and plain REINFORCE. Groups of k or fewer
    rollouts ("others"; of fewer than k, "fewer") hold no such set and get 0. Rewards 0 and 1.
    """

    k: int = 2
    baseline: Literal["others", "fewer"] = "others"

    domain: ClassVar[Domain] = "binary"

    def check_settings(self) -> None:
        if self.k < 1:
            raise InputError(f"k must be at least 1, got {self.k}: it is the number of answers of which one must pass")

    def apply(self, state: Any, advantages: Advantages, groups: Groups) -> Advantages:
        others_P1 = groups.size_P[..., None] - 1
        wrong_P1 = np.rint(groups.size_P * (1 - groups.mean_P))[..., None]
        right_PG = groups.rewards_PG == 1
        wrong_PG = wrong_P1 - ~right_PG
        fewer_PG = _miss(wrong_PG, others_P1, self.k - 1)
        if self.baseline == "fewer":
            values_PG, enough_P1 = np.where(right_PG, fewer_PG, 0.0), others_P1 >= self.k - 1
        else:
            missed_PG, enough_P1 = _miss(wrong_PG, others_P1, self.k), others_P1 >= self.k
            values_PG = np.where(right_PG, missed_PG, missed_PG - fewer_PG)
        values_PG = np.where(groups.mask_PG & enough_P1, self.k * values_PG, 0.0)
        return advantages._replace(values_PG=values_PG)


def _miss(wrong: Array, of: Array, k: int) -> Array:
    """C(wrong, k)/C(of, k) as a product of k quotients."""
    found = np.ones(np.broadcast_shapes(wrong.shape, of.shape))
    for i in range(k):
        found = found * np.maximum(wrong - i, 0.0) / np.maximum(of - i, 1.0)
    return found


@dataclass(frozen=True)
class BestMargin(Memoryless):
    """The best value of the group less the second best, for the best rollout; 0 for the others and where two tie.

    A group of one has no second: 0. (verl's grpo_passk, before it divides by the group's spread, refuses that group.)
    Binary rewards: 1 for a lone success, 1/n of what PassAtK gives it at k = n with "fewer".
    """

    def apply(self, state: Any, advantages: Advantages, groups: Groups) -> Advantages:
        values_PG = np.where(groups.mask_PG, advantages.values_PG, -np.inf)
        ordered = np.sort(values_PG, axis=-1)
        best, second = ordered[..., -1:], ordered[..., -2:-1]
        if second.shape[-1] == 0:
            return advantages._replace(values_PG=np.zeros(values_PG.shape))
        gap = np.where(np.isfinite(second), best - np.where(np.isfinite(second), second, 0.0), 0.0)
        return advantages._replace(values_PG=np.where(groups.mask_PG & (values_PG == best), gap, 0.0))
