"""ReMax: the reward of the prompt's greedy answer as the baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ebpo_sim.estimators.transforms import Evaluation, StatelessBaseline
from ebpo_sim.groups import Groups
from ebpo_sim.part import Need


@dataclass(frozen=True)
class Greedy(StatelessBaseline):
    """b = reward of the greedy answer: independent of the sampled ones, so the gradient is unbiased; one rollout more
    a prompt. Groups of one are ordinary groups."""

    needs: ClassVar[frozenset[Need]] = frozenset({"greedy_reward"})

    def evaluate(self, state: Any, groups: Groups) -> Evaluation:
        assert groups.sides.greedy_P is not None  # the estimator has checked its needs
        greedy_P = np.where(groups.size_P > 0, groups.sides.greedy_P, 0.0)
        return Evaluation(greedy_P[..., None])
