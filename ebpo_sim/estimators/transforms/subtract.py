"""Subtract a baseline: the head of most chains, and the only step that the theory of baseline error is about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from ebpo_sim.estimators.transforms.base import Advantages, Domain, Evaluation
from ebpo_sim.groups import Groups
from ebpo_sim.part import Need, NoMemory, Part


class Baseline(Part, Protocol):
    """A baseline and the memory it learns from. All methods are pure; `memory` is part of the settings.

    domain: rewards it is defined for: any real, [0, 1] ("unit") or {0, 1} ("binary").
    """

    domain: ClassVar[Domain]

    def evaluate(self, state: Any, groups: Groups) -> Evaluation:
        """The baseline of every rollout, given the state; never changes it."""


class StatelessBaseline(NoMemory):
    """A baseline without memory: the state is the empty tuple."""

    domain: ClassVar[Domain] = "real"


@dataclass(frozen=True)
class Subtract:
    """values = r - V, 0 for masked rollouts; the memory is the baseline's."""

    baseline: Baseline

    @property
    def domain(self) -> Domain:
        return self.baseline.domain

    @property
    def needs(self) -> frozenset[Need]:
        declared: frozenset[Need] = getattr(self.baseline, "needs", frozenset())
        return declared | ({"binary_rewards"} if self.domain == "binary" else set())

    def init(self) -> Any:
        return self.baseline.init()

    def observe(self, groups: Groups) -> Any:
        return self.baseline.observe(groups)

    def forget(self, state: Any) -> Any:
        return self.baseline.forget(state)

    def merge(self, a: Any, b: Any) -> Any:
        return self.baseline.merge(a, b)

    def apply(self, state: Any, advantages: Advantages, groups: Groups) -> Advantages:
        evaluation = self.baseline.evaluate(state, groups)
        values_PG = np.where(groups.mask_PG, advantages.values_PG - evaluation.baseline_PG, 0.0)
        return advantages._replace(values_PG=values_PG, evaluation=evaluation)
