"""An estimator whose advantages are the reward less the score norm: what a host hands over shows in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ebpo_sim.estimators import Estimator, Evaluation, StatelessBaseline, Subtract
from ebpo_sim.groups import Groups


@dataclass(frozen=True)
class Norm(StatelessBaseline):
    """b = W of the scored rollout itself: no baseline to train with."""

    needs = frozenset({"score_norms"})

    def evaluate(self, state: Any, groups: Groups) -> Evaluation:
        return Evaluation(groups.score_norm_PG)


LESS_NORM = Estimator("less_norm", (Subtract(Norm()),))
