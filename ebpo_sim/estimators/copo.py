"""COPO: where a group's answers agree, learn from the prompt's place among the prompts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ebpo_sim.estimators.transforms.base import Advantages, Memoryless
from ebpo_sim.estimators.transforms.spread import check_eps
from ebpo_sim.groups import Groups
from ebpo_sim.numbers import Array, moments
from ebpo_sim.part import Need


@dataclass(frozen=True)
class ConsistencyMix(Memoryless):
    """w values + (1 - w) A_g, w = sigmoid(slope (H - centre)), H the entropy of the group's answers in bits.

    A_g = (R - mean)/(std + eps) over the batch's prompts, ddof 1, of R = (group's mean reward)(1 - lambda H), where
    lambda = (1 - 1/n)/log2 n for n rollouts, so that lambda H is below 1; 0 where all R are equal. The paper adds the
    two losses, which is the same as adding advantages until a ratio is clipped.
    """

    slope: float = 1.0
    centre: float = 0.5
    eps: float = 1e-6

    needs: ClassVar[frozenset[Need]] = frozenset({"answers"})

    def check_settings(self) -> None:
        check_eps(self.eps)

    def apply(self, state: Any, advantages: Advantages, groups: Groups) -> Advantages:
        bits_P, size_P = entropy(groups), np.maximum(groups.size_P, 2.0)
        reward_P = groups.mean_P * (1 - bits_P * (1 - 1 / size_P) / np.log2(size_P))
        known = moments.of(reward_P, np.where(groups.size_P > 0, groups.multiplicity_P, 0.0))
        spread = np.sqrt(np.asarray(moments.variance(known, 1)))[..., None]
        centred_P = reward_P - np.asarray(known.mean)[..., None]
        global_P = np.where(spread > 0, centred_P / (spread + self.eps), 0.0)
        weight_P1 = (1 / (1 + np.exp(-self.slope * (bits_P - self.centre))))[..., None]
        values_PG = weight_P1 * advantages.values_PG + (1 - weight_P1) * global_P[..., None]
        return advantages._replace(values_PG=np.where(groups.mask_PG, values_PG, 0.0))


def entropy(groups: Groups) -> Array:
    """Entropy of the answers within each group, bits, (..., P): -mean of log2 of the share of each one's answer."""
    assert groups.sides.answer_PG is not None  # the estimator has checked its needs
    code_PG, mask_PG = groups.sides.answer_PG, groups.mask_PG
    alike_PGG = (code_PG[..., :, None] == code_PG[..., None, :]) & mask_PG[..., None, :]
    size_P1 = np.maximum(groups.size_P, 1.0)[..., None]
    share_PG = np.where(mask_PG, alike_PGG.sum(axis=-1) / size_P1, 1.0)
    return np.asarray(-np.sum(np.log2(np.maximum(share_PG, 1e-300)), axis=-1) / size_P1[..., 0]) + 0.0
