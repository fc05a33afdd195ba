"""MaxRL: divide by the group's mean, so that rare successes count for more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ebpo_sim.estimators.transforms.base import Advantages, Domain, Memoryless
from ebpo_sim.estimators.transforms.spread import check_eps
from ebpo_sim.groups import Groups


@dataclass(frozen=True)
class OverMean(Memoryless):
    """values / (group mean + eps) where the mean is above 0, `all_fail` in groups whose mean is 0. Rewards in [0, 1].

    With r - mean before it, binary rewards and eps = 0, rollouts of a prompt with pass rate p have

        E[A grad log pi] = grad p (1 - (1-p)^m)/p,

    the log-likelihood's gradient cut after its m-th term, with m = G-1 for all_fail = 0, as shipped everywhere, and
    m = G for all_fail = -1: the term -mean of the scores is a control variate only if it is there in every group.
    """

    eps: float = 1e-6
    all_fail: float = 0.0

    domain: ClassVar[Domain] = "unit"

    def check_settings(self) -> None:
        check_eps(self.eps)

    def apply(self, state: Any, advantages: Advantages, groups: Groups) -> Advantages:
        live_P1 = groups.mean_P[..., None] > 0
        divisor_P1 = np.where(live_P1, groups.mean_P[..., None] + self.eps, 1.0)
        values_PG = np.where(live_P1, advantages.values_PG / divisor_P1, self.all_fail)
        return advantages._replace(
            values_PG=np.where(groups.mask_PG, values_PG, 0.0), divisor_PG=advantages.divisor_PG * divisor_P1
        )
