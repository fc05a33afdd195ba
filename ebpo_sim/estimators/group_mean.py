"""The group-mean family: GRPO, Dr. GRPO, RLOO, REINFORCE++-baseline differ in leave-one-out and normalisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ebpo_sim import typed
from ebpo_sim.errors import InputError
from ebpo_sim.estimators.transforms import Evaluation, StatelessBaseline
from ebpo_sim.groups import Groups

Array = NDArray[np.float64]
Singleton = Literal["zero", "raw", "error"]


def others_mean(groups: Groups) -> Array:
    """Mean of the other valid rollouts of the group, (..., P, G): (n mean - r)/(n - 1).

    Exactly the common value in a degenerate group; in a group of one, which has no others, the own reward.
    """
    size_P1, mean_P1 = groups.size_P[..., None], groups.mean_P[..., None]
    others = mean_P1 - (groups.rewards_PG - mean_P1) / np.maximum(size_P1 - 1, 1.0)
    return np.where(groups.degenerate_P[..., None], mean_P1, others)


def with_singletons(baseline_PG: Array, groups: Groups, singleton: Singleton) -> Array:
    """The baseline of groups of one as `singleton` says: as it is, 0, or refused with an InputError."""
    if singleton == "zero":
        return baseline_PG
    single_P = groups.size_P == 1
    if singleton == "error" and np.any(single_P):
        raise InputError("a group of one has no group baseline: use singleton='zero' or 'raw', or a larger group")
    return np.where(single_P[..., None], 0.0, baseline_PG) if singleton == "raw" else baseline_PG


@dataclass(frozen=True)
class GroupMean(StatelessBaseline):
    """b = mean of the group's valid rewards, or of the others' (leave_one_out): unbiased for p, risk w/G or w/(G-1).

    The plain mean contains the scored reward and scales the expected gradient by 1 - 1/G; leave-one-out is
    unbiased (Kool et al. 2019; Ahmadian et al. 2024). singleton, a group of one: "zero" makes its advantage 0
    (baseline = own reward), "raw" leaves the reward as it is (baseline 0, verl's loops), "error" refuses it.
    """

    leave_one_out: bool = False
    singleton: Singleton = "zero"

    def __post_init__(self) -> None:
        typed.check_fields(self)

    def evaluate(self, state: Any, groups: Groups) -> Evaluation:
        baseline_PG = others_mean(groups) if self.leave_one_out else groups.mean_P[..., None]
        return Evaluation(with_singletons(baseline_PG, groups, self.singleton), np.zeros(groups.size_P.shape))
