"""The baseline of least noise for a prompt with a history: its pass rate, weighed by the norms of the scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ebpo_sim.errors import InputError
from ebpo_sim.estimators.history import HistoryMemory, Seen, State
from ebpo_sim.estimators.transforms.base import Domain, Evaluation
from ebpo_sim.groups import Groups, Weights
from ebpo_sim.numbers import Array

BINS = 10  # of the pass rate, equally wide


@dataclass(frozen=True)
class Optimal(HistoryMemory):
    """b = p a / (p a + (1-p) c), the minimiser of p (1-b)^2 a + (1-p) b^2 c: a, c the mean W of right, wrong answers.

    p = (prior_weight m + successes)/(prior_weight + rollouts) of the prompt's own past visits, discounted by `history`,
    m the running mean (of its cluster with per_cluster; 1/2 before any batch): independent of the visit that is scored.
    others: the other rollouts of the group count as past ones too. a, c: running means over the rollouts whose prompt
    had a p of the same bin, with the mean of all bins as one rollout more; b = p until both have been seen. W is
    |grad log pi|^2 ("score"), the tokens ("length") or 1 ("none"): a = c, SPO's b = p (arXiv 2509.13232, whose
    discount follows the divergence of the policy). Rewards 0 and 1.
    """

    weights: Weights = "score"
    others: bool = False

    domain: ClassVar[Domain] = "binary"

    def check_settings(self) -> None:
        super().check_settings()
        if not self.prior_weight > 0:
            raise InputError(f"prior_weight must be above 0, got {self.prior_weight!r}: 2 is a prior of two rollouts")

    def learn(self, seen: Seen, mean_K: Array) -> dict[str, Array]:
        bin_K = _bin(self._rate(seen, mean_K))[..., None] == np.arange(BINS)
        terms = {
            "right": seen.new_r, "right_norm": seen.wr,
            "wrong": np.subtract(seen.new_n, seen.new_r), "wrong_norm": np.maximum(np.subtract(seen.w, seen.wr), 0.0),
        }  # fmt: skip
        return {name: np.sum(np.asarray(x)[..., None] * bin_K, axis=-2) for name, x in terms.items()}

    def evaluate(self, state: State, groups: Groups) -> Evaluation:
        seen, mean_P, learnt = self.known(state, groups)
        past_P = self._rate(seen, mean_P)
        a_P, c_P = (self._norm(learnt[s], learnt[f"{s}_norm"], _bin(past_P))[..., None] for s in ("right", "wrong"))
        rate_PG = past_P[..., None]
        if self.others:
            weight_P = np.asarray(seen.n) + self.prior_weight
            others_PG = np.rint(groups.mean_P * groups.size_P)[..., None] - groups.rewards_PG
            more_P = np.maximum(groups.size_P - 1, 0.0)
            rate_PG = (past_P * weight_P)[..., None] + others_PG
            rate_PG = rate_PG / (weight_P + more_P)[..., None]
        known = (a_P > 0) & (c_P > 0)
        right_PG, wrong_PG = rate_PG * np.where(known, a_P, 1.0), (1 - rate_PG) * np.where(known, c_P, 1.0)
        return Evaluation(right_PG / (right_PG + wrong_PG), None, past_P)

    def _rate(self, seen: Seen, mean: Array) -> Array:
        prior = np.where(np.isnan(mean), 0.5, mean)
        return np.asarray((self.prior_weight * prior + seen.r) / (self.prior_weight + np.asarray(seen.n)))

    def _norm(self, count_B: Array, norm_B: Array, bin_P: NDArray[np.intp]) -> Array:
        """The mean W of each group's bin, the mean of all bins counting as one rollout; 0 where none was seen."""
        count, norm = count_B.sum(axis=-1, keepdims=True), norm_B.sum(axis=-1, keepdims=True)
        mean_B = (norm_B + norm / np.where(count > 0, count, 1.0)) / (count_B + 1)
        lead = np.broadcast_shapes(mean_B.shape[:-1], bin_P.shape[:-1])
        mean_B, bin_P = np.broadcast_to(mean_B, (*lead, BINS)), np.broadcast_to(bin_P, (*lead, bin_P.shape[-1]))
        return np.take_along_axis(mean_B, bin_P, axis=-1)


def _bin(rate: Array) -> NDArray[np.intp]:
    return np.minimum(rate * BINS, BINS - 1).astype(np.intp)
