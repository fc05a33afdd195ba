"""GDPO: every reward function standardised in its group before they are added."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ebpo_sim import typed
from ebpo_sim.errors import InputError
from ebpo_sim.estimators.transforms.base import Advantages, Memoryless
from ebpo_sim.estimators.transforms.spread import check_eps
from ebpo_sim.groups import Groups
from ebpo_sim.part import Need


@dataclass(frozen=True)
class Decoupled(Memoryless):
    """values = sum_k w_k (r_k - group mean of r_k)/(group std of r_k, ddof 1, + eps); rewards are unused.

    A function that is constant in a group, or scored one rollout of it, adds 0 there; where it did not score (NaN) it
    adds 0 too. weights: numbers with "/" between them, one a function; "" is 1 for each.
    """

    weights: str = ""
    eps: float = 1e-6

    needs: ClassVar[frozenset[Need]] = frozenset({"components"})

    def check_settings(self) -> None:
        check_eps(self.eps)
        self.weights_K(None)

    def weights_K(self, count: int | None) -> list[float]:
        """The weights of `count` functions. Raises InputError for text that spells no numbers, and another count."""
        if not self.weights:
            return [1.0] * (count or 0)
        found = [typed.parse("weights", float, word.strip()) for word in self.weights.split("/")]
        if count not in (None, len(found)):
            raise InputError(f"weights must hold {count} numbers, one a reward function, got {self.weights!r}")
        return found

    def apply(self, state: Any, advantages: Advantages, groups: Groups) -> Advantages:
        component_PGK = groups.sides.component_PGK
        assert component_PGK is not None  # the estimator has checked its needs
        values_PG = np.zeros(groups.rewards_PG.shape)
        for k, weight in enumerate(self.weights_K(component_PGK.shape[-1])):
            valid_PG = groups.mask_PG & ~np.isnan(component_PGK[..., k])
            reward_PG = np.where(valid_PG, component_PGK[..., k], 0.0)
            count_P1 = np.maximum(valid_PG.sum(axis=-1, keepdims=True), 1)
            high = np.where(valid_PG, reward_PG, -np.inf).max(axis=-1, keepdims=True)
            low = np.where(valid_PG, reward_PG, np.inf).min(axis=-1, keepdims=True)
            centred_PG = np.where(valid_PG, reward_PG - reward_PG.sum(axis=-1, keepdims=True) / count_P1, 0.0)
            spread_P1 = np.sqrt(np.sum(centred_PG**2, axis=-1, keepdims=True) / np.maximum(count_P1 - 1, 1))
            divisor_P1 = np.where(high > low, spread_P1 + self.eps, 1.0)
            values_PG += np.where(high > low, weight * centred_PG / divisor_P1, 0.0)
        return advantages._replace(values_PG=values_PG)
