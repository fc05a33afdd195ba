"""Group means that count long answers, or those with a large score, for more: OPO and the optimal token baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ebpo_sim import typed
from ebpo_sim.estimators.group_mean import Singleton, with_singletons
from ebpo_sim.estimators.transforms import Evaluation, StatelessBaseline
from ebpo_sim.groups import Groups, Weights, rollout_weights
from ebpo_sim.part import OF_WEIGHTS, Need


@dataclass(frozen=True)
class WeightedGroupMean(typed.Settings, StatelessBaseline):
    """b = sum W r / sum W over the group, W the tokens of a rollout ("length") or its |grad log pi|^2 ("score").

    It contains the scored reward, so the expected gradient is not that of the mean reward, and small groups feel it.
    A group of equal rewards has exactly their value (advantage 0), one without weight the plain mean. singleton, a
    group of one: "zero" makes its advantage 0, "raw" leaves the reward as it is (verl).
    """

    weights: Weights = "length"
    singleton: Singleton = "zero"

    @property
    def needs(self) -> frozenset[Need]:
        return OF_WEIGHTS[self.weights]

    def evaluate(self, state: Any, groups: Groups) -> Evaluation:
        weight_PG = rollout_weights(groups, self.weights)
        total_P = weight_PG.sum(axis=-1)
        plain_P = groups.degenerate_P | (total_P == 0)
        weighted_P = (weight_PG * groups.rewards_PG).sum(axis=-1) / np.where(plain_P, 1.0, total_P)
        baseline_P = np.where(plain_P, groups.mean_P, weighted_P)
        return Evaluation(with_singletons(baseline_P[..., None], groups, self.singleton), np.zeros(groups.size_P.shape))
