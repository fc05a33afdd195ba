"""KRPO: a Kalman filter run over a group's rewards, in the order in which they stand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ebpo_sim import typed
from ebpo_sim.errors import InputError
from ebpo_sim.estimators.transforms import Evaluation, StatelessBaseline
from ebpo_sim.estimators.transforms.base import Advantages, Memoryless
from ebpo_sim.estimators.transforms.spread import check_eps
from ebpo_sim.groups import Groups
from ebpo_sim.numbers import Array
from ebpo_sim.part import Need


@dataclass(frozen=True)
class Filter(typed.Settings):
    """A random walk seen with noise: predict P + drift, gain K = P/(P + noise), x <- x + K (r - x), P <- (1 - K) P.

    Every group starts at x = 0, P = 1. `estimate` and `variance` are those after the rollout itself.
    """

    drift: float = 1e-5
    noise: float = 1e-2

    def check_settings(self) -> None:
        if self.drift < 0 or self.noise <= 0:
            raise InputError(f"drift must be >= 0 and noise > 0, got {self.drift!r} and {self.noise!r}: variances")

    def run(self, groups: Groups) -> tuple[Array, Array]:
        """(estimate, variance) at every rollout, each (..., P, G); masked rollouts are passed over."""
        x_P, p_P = np.zeros(groups.size_P.shape), np.ones(groups.size_P.shape)
        found = np.zeros((2, *groups.rewards_PG.shape))
        for i in range(groups.rewards_PG.shape[-1]):
            valid_P, predicted_P = groups.mask_PG[..., i], p_P + self.drift
            gain_P = predicted_P / (predicted_P + self.noise)
            x_P = np.where(valid_P, x_P + gain_P * (groups.rewards_PG[..., i] - x_P), x_P)
            p_P = np.where(valid_P, (1 - gain_P) * predicted_P, p_P)
            found[0, ..., i], found[1, ..., i] = x_P, p_P
        return found[0], found[1]


@dataclass(frozen=True)
class FilteredMean(StatelessBaseline):
    """b = the filter's estimate after the scored rollout: the i-th knows i rewards of its group, its own among them."""

    filter: Filter = Filter()

    needs: ClassVar[frozenset[Need]] = frozenset({"rollout_order"})

    def evaluate(self, state: Any, groups: Groups) -> Evaluation:
        return Evaluation(self.filter.run(groups)[0])


@dataclass(frozen=True)
class FilteredSpread(Memoryless):
    """values / (sqrt(P) + eps), P the filter's variance after the scored rollout: a number of its position alone."""

    filter: Filter = Filter()
    eps: float = 1e-8

    needs: ClassVar[frozenset[Need]] = frozenset({"rollout_order"})

    def check_settings(self) -> None:
        check_eps(self.eps)

    def apply(self, state: Any, advantages: Advantages, groups: Groups) -> Advantages:
        divisor_PG = np.sqrt(self.filter.run(groups)[1]) + self.eps
        return advantages._replace(
            values_PG=advantages.values_PG / divisor_PG, divisor_PG=advantages.divisor_PG * divisor_PG
        )
