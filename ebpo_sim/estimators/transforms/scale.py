"""Divide by a spread: the group's, the batch's, or the one that the prior predicts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ebpo_sim.estimators.transforms.base import Advantages, Memoryless, divided
from ebpo_sim.estimators.transforms.spread import Ddof, Eps, check_eps, divisor, moments
from ebpo_sim.groups import Groups
from ebpo_sim.numbers import Array

By = Literal["group", "batch", "batch_rewards", "prior"]


@dataclass(frozen=True)
class Scale(Memoryless):
    """values / (s + eps), or / sqrt(s^2 + eps) with eps_place="inside".

    by: "group", std of the group's rewards (GRPO); "batch", std of the values over the batch; "batch_rewards", std of
    all rewards of the batch (TRL's scale_rewards="batch"); "prior", the standard deviation of r - V that the state
    predicts, the batch's own where there is no prediction yet: it keeps the signal of a batch that fails as a whole.
    ddof: 0 or 1; one observation has no ddof-1 spread and takes the plain one (0). A group or batch whose scaled
    quantity is exactly constant has no scale: the advantage is 0 there, except that a group of one under by="group" is
    divided by `singleton_std` (verl: 1) when that is not None.
    """

    by: By
    ddof: Ddof = 1
    eps: float = 1e-6
    eps_place: Eps = "outside"
    singleton_std: float | None = None

    def check_settings(self) -> None:
        check_eps(self.eps)

    def apply(self, state: Any, advantages: Advantages, groups: Groups) -> Advantages:
        if self.by == "group":
            return self._by_group(advantages, groups)
        variance = self._predicted(advantages)
        if variance is None or not np.all(variance > 0):
            values_PG = groups.rewards_PG if self.by == "batch_rewards" else advantages.values_PG
            _, own = moments(values_PG, groups.weight_PG, self.ddof)
            variance = own if variance is None else np.where(variance > 0, variance, own)
        spread = divisor(variance, self.eps, self.eps_place)
        return divided(advantages, advantages.values_PG, spread, variance > 0, groups)

    def _predicted(self, advantages: Advantages) -> Array | None:
        """The variance that the prior predicts, None without a prediction; (..., 1, 1)."""
        evaluation = advantages.evaluation
        if self.by != "prior" or evaluation is None or evaluation.raw_variance is None:
            return None
        return np.asarray(evaluation.raw_variance())[..., None, None]

    def _by_group(self, advantages: Advantages, groups: Groups) -> Advantages:
        size_P = groups.size_P
        variance_P = groups.within_ss_P / np.maximum(size_P - self.ddof, 1.0)
        divisor_P, live_P = divisor(variance_P, self.eps, self.eps_place), ~groups.degenerate_P
        if self.singleton_std is not None:
            divisor_P = np.where(size_P == 1, self.singleton_std + self.eps, divisor_P)
            live_P = live_P | (size_P == 1)
        return divided(advantages, advantages.values_PG, divisor_P[..., None], live_P[..., None], groups)
