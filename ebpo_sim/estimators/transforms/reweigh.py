"""Weigh encouragement and discouragement apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ebpo_sim.errors import InputError
from ebpo_sim.estimators.transforms.base import Advantages, Memoryless
from ebpo_sim.groups import Groups


@dataclass(frozen=True)
class Reweigh(Memoryless):
    """values times `positive` where they are above 0, times `negative` where below.

    (1, 0) trains on better-than-baseline answers alone; (0.1, 1) is the weighting of W-REINFORCE (arXiv 2506.01347).
    Unless both are equal the expected gradient is no longer that of the mean reward.
    """

    positive: float = 1.0
    negative: float = 1.0

    def check_settings(self) -> None:
        if self.positive < 0 or self.negative < 0:
            raise InputError(f"positive and negative must be >= 0, got {self.positive!r} and {self.negative!r}")

    def apply(self, state: Any, advantages: Advantages, groups: Groups) -> Advantages:
        weight_PG = np.where(advantages.values_PG > 0, self.positive, self.negative)
        return advantages._replace(values_PG=advantages.values_PG * weight_PG)
