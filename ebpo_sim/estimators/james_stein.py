"""The James-Stein baseline of Zeng et al. (arXiv 2511.03710), leave-one-out as published."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ebpo_sim import typed
from ebpo_sim.estimators import components
from ebpo_sim.estimators.components import Components
from ebpo_sim.estimators.group_mean import others_mean
from ebpo_sim.estimators.transforms.base import Domain, Evaluation
from ebpo_sim.groups import Groups
from ebpo_sim.numbers import moments


@dataclass(frozen=True)
class JamesStein(typed.Settings):
    """b_ij = (1-lam_i) mean of the group's others + lam_i mean of the other prompts' means.

    lam_i = factor v/(v + s) with, over the OTHER n-1 prompts of the batch, v = mean of SS/(m(m-1)) and
    s = ddof-0 variance of their means; factor (n-1)/n in the paper (`finite_sample_factor`), 1 in its code.
    Independent of the scored reward, so the gradient is unbiased. v + s = 0 gives lam = 0.
    Ragged groups (our extension): v = pooled within variance times the mean of 1/m. A group of one takes the
    other prompts' mean; a batch of one prompt is plain RLOO. The state is the current batch alone: score after
    update with that same batch.
    """

    finite_sample_factor: bool = True

    domain: ClassVar[Domain] = "real"

    def init(self) -> Components:
        return Components()

    def observe(self, groups: Groups) -> Components:
        return components.observe(groups)

    def forget(self, state: Components) -> Components:
        return Components()

    def merge(self, a: Components, b: Components) -> Components:
        return components.merge(a, b)

    def evaluate(self, state: Components, groups: Groups) -> Evaluation:
        others = components.remove_group(state, groups)
        n_P = np.asarray(state.means.n)[..., None]
        df_P = np.asarray(others.within_df)
        within_P = others.within_ss / np.where(df_P > 0, df_P, 1.0)
        left_P = np.asarray(others.means.n)
        v_P = within_P * (others.inverse_sizes / np.where(left_P > 0, left_P, 1.0))
        total_P = v_P + moments.variance(others.means, 0)
        shrinkage_P = np.where(total_P > 0, v_P / np.where(total_P > 0, total_P, 1.0), 0.0)
        if self.finite_sample_factor:
            shrinkage_P = shrinkage_P * (n_P - 1) / np.maximum(n_P, 1.0)
        shrinkage_P = np.where(groups.size_P <= 1, 1.0, shrinkage_P)
        shrinkage_P = np.where(left_P > 0, shrinkage_P, 0.0)
        local_PG = others_mean(groups)
        target_P = np.broadcast_to(others.means.mean, shrinkage_P.shape)
        return Evaluation(local_PG + shrinkage_P[..., None] * (target_P[..., None] - local_PG), shrinkage_P, target_P)
