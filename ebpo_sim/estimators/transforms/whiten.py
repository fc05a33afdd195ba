"""Centre and scale by the batch in one step, so that mean and spread are of the same values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ebpo_sim.estimators.transforms.base import Advantages, Memoryless, divided
from ebpo_sim.estimators.transforms.spread import Ddof, Eps, Weights, check_eps, divisor, moments, weights_of
from ebpo_sim.groups import Groups
from ebpo_sim.part import Need


@dataclass(frozen=True)
class Whiten(Memoryless):
    """(values - mean)/(std + eps) over the batch (EBPO), or / sqrt(variance + eps) (verl's masked whitening).

    weights: a rollout counts once, or once a token (REINFORCE++). A batch of exactly equal values becomes 0.
    """

    ddof: Ddof = 1
    eps: float = 1e-6
    eps_place: Eps = "outside"
    weights: Weights = "rollouts"

    def check_settings(self) -> None:
        check_eps(self.eps)

    @property
    def needs(self) -> frozenset[Need]:  # type: ignore[override]
        return frozenset({"lengths"} if self.weights == "tokens" else ())

    def apply(self, state: Any, advantages: Advantages, groups: Groups) -> Advantages:
        mean, variance = moments(advantages.values_PG, weights_of(groups, self.weights), self.ddof)
        spread = divisor(variance, self.eps, self.eps_place)
        return divided(advantages, advantages.values_PG - mean, spread, variance > 0, groups)
