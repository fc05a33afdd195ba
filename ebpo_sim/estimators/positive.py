"""Without a baseline of the prompt: the reward less a constant; the mean over positive answers alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ebpo_sim import typed
from ebpo_sim.estimators.transforms import Evaluation, StatelessBaseline
from ebpo_sim.estimators.transforms.base import Advantages, Memoryless
from ebpo_sim.groups import Groups


@dataclass(frozen=True)
class Constant(typed.Settings, StatelessBaseline):
    """b = value, for every rollout of every group."""

    value: float = 0.0

    def evaluate(self, state: Any, groups: Groups) -> Evaluation:
        value_P = np.full(groups.size_P.shape, self.value)
        return Evaluation(value_P[..., None], np.ones(value_P.shape), value_P)


@dataclass(frozen=True)
class PositiveShare(Memoryless):
    """values / the share of the batch's rollouts whose value is above 0; a batch without one stays as it is."""

    def apply(self, state: Any, advantages: Advantages, groups: Groups) -> Advantages:
        weight_PG = groups.weight_PG
        positive = np.sum(weight_PG * (advantages.values_PG > 0), axis=(-2, -1), keepdims=True)
        share = np.where(positive > 0, positive / weight_PG.sum(axis=(-2, -1), keepdims=True), 1.0)
        return advantages._replace(values_PG=advantages.values_PG / share, divisor_PG=advantages.divisor_PG * share)
