"""Linear shrinkage towards a running prior: EBPO as printed, as released, with within variance, and repaired."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from ebpo_sim.errors import InputError
from ebpo_sim.estimators import components
from ebpo_sim.estimators.components import Bank, BankMemory, Components, Memory
from ebpo_sim.estimators.group_mean import others_mean
from ebpo_sim.estimators.transforms.base import Domain, Evaluation
from ebpo_sim.estimators.transforms.spread import Ddof
from ebpo_sim.groups import Groups
from ebpo_sim.numbers import Array, moments
from ebpo_sim.numbers.mixing import Prior

Sigma2 = Literal["total", "within"]
Tau2 = Literal["raw", "denoised"]
PriorMean = Literal["rewards", "group_means"]


@dataclass(frozen=True)
class Shrinkage(BankMemory):
    """V = (1-S) group mean + S mu, S = (sigma2/n) / (sigma2/n + tau2), n the group's valid rollouts.

    sigma2: "total", the variance of ALL rewards (Algorithm 1), or "within", pooled within-group (ddof 1).
    tau2: "raw", the variance of group means, or "denoised", max(0, Var_ddof1(means) - w mean(1/n)).
    prior_mean: mu = mean of the rewards (Algorithm 1), or of the group means (released code).
    ddof: of the "total" and "raw" variances. memory: "cumulative", "batch" or a retention in (0, 1) per batch.
    per_cluster: one prior a cluster. leave_one_out: the mean of the other n-1 rollouts, n-1 in S; a group of
    one then takes mu. prior: fixes mu, sigma2 = E p(1-p), tau2 = Var p: the oracle. fixed_shrinkage: fixes S.
    floor: S = 1 where sigma2/n + tau2 <= floor (released code 1e-6; else 0, where every reward is equal).
    Without any observation yet S = 0. Source: EBPO section 3 and Algorithm 1; defaults are Algorithm 1's.
    Assumes exchangeable prompts; E V = p only if S = 0 (shrinkage trades bias for variance).
    """

    sigma2: Sigma2 = "total"
    tau2: Tau2 = "raw"
    prior_mean: PriorMean = "rewards"
    ddof: Ddof = 0
    memory: Memory = "cumulative"
    per_cluster: bool = False
    leave_one_out: bool = False
    prior: Prior | None = None
    fixed_shrinkage: float | None = None
    floor: float = 0.0

    domain: ClassVar[Domain] = "real"

    def check_settings(self) -> None:
        if self.fixed_shrinkage is not None and not 0 <= self.fixed_shrinkage <= 1:
            raise InputError(f"fixed_shrinkage must lie in [0, 1], got {self.fixed_shrinkage!r}")
        components.retention(self.memory)

    def evaluate(self, state: Bank, groups: Groups) -> Evaluation:
        known = components.rows(state, groups, self.per_cluster)
        mean_P, sigma2_P, tau2_P = self._prior_moments(known)
        used_P = groups.size_P - 1 if self.leave_one_out else groups.size_P
        noise_P = sigma2_P / np.maximum(used_P, 1.0)
        total_P = noise_P + tau2_P
        shrinkage_P = np.where(total_P > self.floor, noise_P / np.where(total_P > 0, total_P, 1.0), 1.0)
        if self.fixed_shrinkage is not None:
            shrinkage_P = np.full(shrinkage_P.shape, self.fixed_shrinkage)
        shrinkage_P = np.where(used_P > 0, shrinkage_P, 1.0)
        if self.prior is None:
            shrinkage_P = np.where(known.rewards.n > 0, shrinkage_P, 0.0)
        local_PG = others_mean(groups) if self.leave_one_out else groups.mean_P[..., None]
        baseline_PG = local_PG + shrinkage_P[..., None] * (mean_P[..., None] - local_PG)
        return Evaluation(
            baseline_PG, shrinkage_P, np.broadcast_to(mean_P, shrinkage_P.shape),
            lambda: self._raw_variance(known, shrinkage_P, groups),
        )  # fmt: skip

    def _prior_moments(self, known: Components) -> tuple[Array, Array, Array]:
        if self.prior is not None:
            return np.array([self.prior.mean]), np.array([self.prior.within]), np.array([self.prior.between])
        mean = known.rewards.mean if self.prior_mean == "rewards" else known.means.mean
        sigma2 = (
            moments.variance(known.rewards, self.ddof) if self.sigma2 == "total" else components.within_variance(known)
        )
        tau2 = moments.variance(known.means, self.ddof) if self.tau2 == "raw" else components.between_variance(known)
        return np.asarray(mean), np.asarray(sigma2), np.asarray(tau2)

    def _raw_variance(self, known: Components, shrinkage_P: Array, groups: Groups) -> Array:
        """E (r - V)^2 averaged over the batch's rollouts, with w and T2 of the state whatever S is made of.

        w (1 - 1/n) + S^2 (T2 + w/n); leave-one-out: w + (1-S)^2 w/(n-1) + S^2 T2.
        """
        if self.prior is not None:
            w, t2 = np.array([self.prior.within]), np.array([self.prior.between])
        else:
            w, t2 = (
                np.asarray(components.within_variance(known)),
                np.asarray(components.between_variance(known)),
            )
        n = np.maximum(groups.size_P, 1.0)
        if self.leave_one_out:
            each_P = w + (1 - shrinkage_P) ** 2 * w / np.maximum(n - 1, 1.0) + shrinkage_P**2 * t2
        else:
            each_P = w * (1 - 1 / n) + shrinkage_P**2 * (t2 + w / n)
        weight_P = groups.multiplicity_P * groups.size_P
        return np.asarray(np.sum(weight_P * each_P, axis=-1) / np.maximum(np.sum(weight_P, axis=-1), 1e-300))
