"""Subtract the batch's mean of what the chain has made so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ebpo_sim.estimators.transforms.base import Advantages, Memoryless
from ebpo_sim.estimators.transforms.spread import Weights, moments, weights_of
from ebpo_sim.groups import Groups
from ebpo_sim.part import Need


@dataclass(frozen=True)
class Centre(Memoryless):
    """values - their weighted mean over the batch. weights: a rollout counts once, or once a token."""

    weights: Weights = "rollouts"

    @property
    def needs(self) -> frozenset[Need]:  # type: ignore[override]
        return frozenset({"lengths"} if self.weights == "tokens" else ())

    def apply(self, state: Any, advantages: Advantages, groups: Groups) -> Advantages:
        mean, _ = moments(advantages.values_PG, weights_of(groups, self.weights), 0)
        return advantages._replace(values_PG=np.where(groups.mask_PG, advantages.values_PG - mean, 0.0))
