"""A prompt's value under the starting policy, never updated: PVPO's reference anchor, A*-PO's offline value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ebpo_sim import typed
from ebpo_sim.errors import InputError
from ebpo_sim.estimators.group_mean import others_mean
from ebpo_sim.estimators.memory import Clock, PromptMemory, State
from ebpo_sim.estimators.transforms.base import Domain, Evaluation
from ebpo_sim.groups import Groups

COLDEST = 2e-3  # exp(1/temperature) must be a number


@dataclass(frozen=True)
class Anchor(typed.Settings, PromptMemory):
    """b = the mean reward of the prompt's first visit, frozen (arXiv 2508.21104: V_ref); with a temperature
    temperature log mean exp(r/temperature) of that visit (arXiv 2505.20686: V*, there 1/2). Rewards 0 and 1.

    At the first visit, which stands for the offline rollouts, b is the mean of the others (a group of one its own
    reward: advantage 0). Later b is independent of the group: the gradient is unbiased however far the policy has
    moved, and the error of b for p is (p_0 - p)^2 plus p_0 (1 - p_0)/n of the anchor's own n rollouts.
    """

    temperature: float | None = None

    domain: ClassVar[Domain] = "binary"
    clock: ClassVar[Clock] = "first"

    def check_settings(self) -> None:
        if self.temperature is not None and not self.temperature >= COLDEST:
            raise InputError(f"temperature must be at least {COLDEST}, got {self.temperature!r}: A*-PO's is 0.5")

    def evaluate(self, state: State, groups: Groups) -> Evaluation:
        n_P, r_P, _ = self.past(state, groups)
        known_P, value_P = n_P > 0, r_P / np.where(n_P > 0, n_P, 1.0)
        if self.temperature is not None:
            value_P = self.temperature * np.log1p(value_P * np.expm1(1 / self.temperature))
        return Evaluation(np.where(known_P[..., None], value_P[..., None], others_mean(groups)))
