"""BNPO: divide by a Beta density of the group's mean, fitted to the batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy.special import betaln, xlog1py, xlogy

from ebpo_sim.errors import InputError
from ebpo_sim.estimators.transforms.base import Advantages, Domain, Memoryless
from ebpo_sim.groups import Groups
from ebpo_sim.numbers import moments


@dataclass(frozen=True)
class BetaDensity(Memoryless):
    """values / f(group mean; alpha, beta), f the Beta density, the weight 1/f at most `most`. Rewards in [0, 1].

    alpha = 1 + a/3, beta = 1 + b/3 with (a, b) = (m(1-m)/v - 1)(m, 1-m), m and v (ddof 1) the mean and variance of the
    batch's group means; each at least 1. Where there are fewer than two groups or no variance, both are 1: weight 1.
    (3/2, 3/2) is GRPO with ddof 0, up to pi/8; both 1 is Dr. GRPO. Fewer than two groups: the code takes m = 0, v = 1.
    """

    most: float = 1e6

    domain: ClassVar[Domain] = "unit"

    def check_settings(self) -> None:
        if self.most <= 0:
            raise InputError(f"most must be > 0, got {self.most!r}: it bounds the weight")

    def apply(self, state: Any, advantages: Advantages, groups: Groups) -> Advantages:
        known = moments.of(groups.mean_P, np.where(groups.size_P > 0, groups.multiplicity_P, 0.0))
        m, v = np.asarray(known.mean), np.asarray(moments.variance(known, 1))
        fitted = (v > 0) & (np.asarray(known.n) > 1)
        nu = np.where(fitted, m * (1 - m) / np.where(fitted, v, 1.0) - 1, 0.0)
        alpha, beta = (np.maximum(1 + nu * share / 3, 1.0)[..., None] for share in (m, 1 - m))
        mean_P = groups.mean_P
        log_density_P = xlogy(alpha - 1, mean_P) + xlog1py(beta - 1, -mean_P) - betaln(alpha, beta)
        weight_P = np.exp(np.minimum(-log_density_P, np.log(self.most)))
        weight_P1 = np.where(groups.degenerate_P, 1.0, weight_P)[..., None]  # nothing is weighed there
        return advantages._replace(
            values_PG=advantages.values_PG * weight_P1, divisor_PG=advantages.divisor_PG / weight_P1
        )
