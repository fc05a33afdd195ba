"""EBPO-BB: a Beta prior fitted by moments from lagged trackers (public draft of a later EBPO version)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ebpo_sim.estimators import components
from ebpo_sim.estimators.components import Bank, BankMemory, Memory
from ebpo_sim.estimators.transforms.base import Domain, Evaluation
from ebpo_sim.estimators.transforms.spread import Ddof
from ebpo_sim.groups import Groups
from ebpo_sim.numbers import moments


@dataclass(frozen=True)
class BetaBinomial(BankMemory):
    """V = (nu m + successes)/(nu + n), nu = m(1-m)/v - 1: the posterior mean under Beta(nu m, nu (1-m)).

    m and v are the mean and ddof variance of the group means seen so far, v raw (sampling noise not removed).
    nu = 2 unless eps < v < m(1-m) - eps; before any group, Beta(1, 1). Rewards in [0, 1]; shrinkage nu/(nu + n).
    Source: public draft (Tonyzhou98/verl, EBPO-BB), there with memory="cumulative" and score_then_update.
    """

    ddof: Ddof = 0
    eps: float = 1e-6
    memory: Memory = "cumulative"
    per_cluster: bool = False

    domain: ClassVar[Domain] = "unit"

    def check_settings(self) -> None:
        components.retention(self.memory)

    def evaluate(self, state: Bank, groups: Groups) -> Evaluation:
        known = components.rows(state, groups, self.per_cluster).means
        mean_P = np.where(np.asarray(known.n) > 0, known.mean, 0.5)
        v_P = np.asarray(moments.variance(known, self.ddof))
        limit_P = mean_P * (1 - mean_P)
        admissible = (v_P > self.eps) & (v_P < limit_P - self.eps)
        nu_P = np.where(admissible, limit_P / np.where(admissible, v_P, 1.0) - 1, 2.0)
        shrinkage_P = nu_P / (nu_P + groups.size_P)
        baseline_P = groups.mean_P + shrinkage_P * (mean_P - groups.mean_P)
        return Evaluation(baseline_P[..., None], shrinkage_P, np.broadcast_to(mean_P, shrinkage_P.shape))
