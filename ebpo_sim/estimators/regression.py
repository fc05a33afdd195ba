"""A baseline by regression on all that is known of a prompt and independent of the scored rollout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ebpo_sim.errors import InputError
from ebpo_sim.estimators.group_mean import others_mean
from ebpo_sim.estimators.history import HistoryMemory, Seen, State
from ebpo_sim.estimators.transforms.base import Domain, Evaluation
from ebpo_sim.groups import Groups
from ebpo_sim.numbers import Array

FEATURES = 7
MEAN = np.eye(FEATURES)[1]  # the coefficients of b = m


@dataclass(frozen=True)
class Regression(HistoryMemory):
    """b = beta . x, clipped to [0, 1], x = (1, m, k, k m, k q, l, k l).

    m: the running mean (of the cluster with per_cluster). q: the mean of the prompt's n own past rewards, k =
    n/(n + prior_weight): how much there is of them. l: the mean of the group's other rollouts, in a group of one (1-k)
    m + k q. beta: recursive least squares of r on x over all batches before, weighted by W (1, tokens or |grad log
    pi|^2: then b has the least noise of all such lines), discounted by `memory`, with a ridge worth `ridge` rollouts
    towards b = m. Where rates and the number of past visits settle, no member (a constant, m, (1-k) m + k q, l) has a
    lower E[W (r - b)^2] in the limit. Before any batch b is the mean of the others (a group of one its own reward:
    advantage 0). Rewards in [0, 1].
    """

    ridge: float = 1.0

    domain: ClassVar[Domain] = "unit"

    def check_settings(self) -> None:
        super().check_settings()
        for name in ("prior_weight", "ridge"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be above 0, got {getattr(self, name)!r}: 1 is worth one rollout")

    def learn(self, seen: Seen, mean_K: Array) -> dict[str, Array]:
        """Moments of x and r over the rollouts of the last batch whose clusters' mean was known before."""
        live_K = ~np.isnan(mean_K)
        new_n, w, wr, wg, wgr, wl, wll, wrl = (np.asarray(x) * live_K for x in (seen.new_n, *seen[4:]))
        own_K5, past = self._of_prompt(seen, np.where(live_K, mean_K, 0.0))
        k = own_K5[..., 2]
        l_sum, l_squares, rl = wl + (w - wg) * past, wll + (w - wg) * past**2, wrl + (wr - wgr) * past
        shared = np.einsum("...ki,...kj,...k->...ij", own_K5, own_K5, w)
        across = np.einsum("...ki,...kj->...ij", own_K5, np.stack([l_sum, k * l_sum], axis=-1))
        squares = np.stack([l_squares, k * l_squares, k * l_squares, k * k * l_squares], axis=-1).sum(axis=-2)
        xx = np.block([[shared, across], [np.swapaxes(across, -1, -2), squares.reshape(*squares.shape[:-1], 2, 2)]])
        last = np.stack([rl, k * rl], axis=-1).sum(axis=-2)
        xy = np.concatenate([np.einsum("...ki,...k->...i", own_K5, wr), last], axis=-1)
        return {"rows": new_n.sum(axis=-1)[..., None], "xx": xx.reshape(*xx.shape[:-2], -1), "xy": xy}

    def evaluate(self, state: State, groups: Groups) -> Evaluation:
        seen, mean_P, learnt = self.known(state, groups)
        own_P5, past_P = self._of_prompt(seen, np.where(np.isnan(mean_P), 0.0, mean_P))
        beta, others_PG = self._coefficients(learnt)[..., None, :], others_mean(groups)
        l_PG = np.where((groups.size_P > 1)[..., None], others_PG, past_P[..., None])
        slope_P = beta[..., 5] + beta[..., 6] * own_P5[..., 2]
        line_PG = np.sum(own_P5 * beta[..., :5], axis=-1)[..., None] + slope_P[..., None] * l_PG
        baseline_PG = np.where(np.isnan(mean_P)[..., None], others_PG, np.clip(line_PG, 0.0, 1.0))
        return Evaluation(baseline_PG, None, mean_P)

    def _of_prompt(self, seen: Seen, m: Array) -> tuple[Array, Array]:
        """(1, m, k, k m, k q), what all rollouts of a prompt share, (..., K, 5); and (1-k) m + k q, (..., K)."""
        n = np.asarray(seen.n)
        k, kq = n / (n + self.prior_weight), seen.r / (n + self.prior_weight)
        return np.stack(np.broadcast_arrays(np.ones_like(m), m, k, k * m, kq), axis=-1), (1 - k) * m + kq

    def _coefficients(self, learnt: dict[str, Array]) -> Array:
        """beta (..., 7)."""
        xx = learnt["xx"].reshape(*learnt["xx"].shape[:-1], FEATURES, FEATURES)
        rows, weight = learnt["rows"][..., 0], xx[..., 0, 0]
        ridge = self.ridge * np.where(weight > 0, weight / np.where(rows > 0, rows, 1.0), 1.0)[..., None]
        damped = xx + ridge[..., None] * np.eye(FEATURES)
        return np.asarray(np.linalg.solve(damped, (learnt["xy"] + ridge * MEAN)[..., None])[..., 0])
