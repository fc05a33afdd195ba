"""GPG: make up for the rollouts that say nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ebpo_sim.estimators.transforms.base import Advantages, Memoryless
from ebpo_sim.groups import Groups


@dataclass(frozen=True)
class LiveShare(Memoryless):
    """values times N/n, N the batch's rollouts, n those that count; a batch in which none does stays as it is.

    counted: "live" rollouts of groups whose rewards differ (the paper's alpha), or "nonzero" rewards (verl's).
    """

    counted: Literal["live", "nonzero"] = "live"

    def apply(self, state: Any, advantages: Advantages, groups: Groups) -> Advantages:
        weight_PG = groups.weight_PG
        counts = ~groups.degenerate_P[..., None] if self.counted == "live" else groups.rewards_PG != 0
        count = np.sum(weight_PG * counts, axis=(-2, -1), keepdims=True)
        share = np.where(count > 0, count / np.maximum(weight_PG.sum(axis=(-2, -1), keepdims=True), 1e-300), 1.0)
        return advantages._replace(values_PG=advantages.values_PG / share, divisor_PG=advantages.divisor_PG * share)
