"""V0.5: a value that comes from outside, given up where the group speaks against it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ebpo_sim import typed
from ebpo_sim.errors import InputError
from ebpo_sim.estimators.transforms.base import Domain, Evaluation
from ebpo_sim.estimators.transforms.subtract import StatelessBaseline
from ebpo_sim.groups import Groups
from ebpo_sim.part import Need


@dataclass(frozen=True)
class PriorFusion(typed.Settings, StatelessBaseline):
    """b = w m + (1-w) V, w = D/(D + v), D = max(0, (m - V)^2 - v), v = 1/(4n) (arXiv 2603.10848, as a digest of it
    gives it, in rewards 0 and 1): m the mean of the group's n rewards, V the prior value.

    So b = V where |m - V| <= 1/(2 sqrt n), else positive-part James-Stein; |b - m| <= 1/(2 sqrt n). b holds the scored
    reward where w > 0: the expected gradient is p(1-p) - Cov(b, mean r), of the true one's p(1-p), and Cov is not
    proportional to it: the bias depends on p and V, and vanishes where the group never leaves V. V is `value` for every
    prompt, or its own in `values`, pairs of a prompt id's text and its value, given in Python.
    """

    value: float = 0.5
    values: tuple[tuple[str, float], ...] = ()

    domain: ClassVar[Domain] = "binary"

    def check_settings(self) -> None:
        for name, value in (("value", self.value), *self.values):
            if type(value) not in (int, float) or not 0 <= value <= 1:
                raise InputError(f"{name} must have a prior value in [0, 1], got {value!r}: it is a success rate")

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({"prompt_ids"} if self.values else ())

    def evaluate(self, state: Any, groups: Groups) -> Evaluation:
        known = dict(self.values)
        value_P: Any = self.value
        if known:
            assert groups.prompt_P is not None  # since `needs`
            value_P = np.array([known.get(str(p), self.value) for p in groups.prompt_P])
        noise_P = 0.25 / np.maximum(groups.size_P, 1.0)
        away_P = np.maximum((groups.mean_P - value_P) ** 2 - noise_P, 0.0)
        weight_P = away_P / (away_P + noise_P)
        fused_P = weight_P * groups.mean_P + (1 - weight_P) * value_P
        return Evaluation(fused_P[..., None], 1 - weight_P, np.broadcast_to(value_P, fused_P.shape))
