"""RiskPO: a mixed value-at-risk of bundles of prompts in place of the mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from ebpo_sim.errors import InputError
from ebpo_sim.estimators.transforms.base import Advantages, Memoryless
from ebpo_sim.estimators.transforms.spread import check_eps
from ebpo_sim.groups import Groups
from ebpo_sim.numbers import Array
from ebpo_sim.part import Need


@dataclass(frozen=True)
class Bundles(Memoryless):
    """The i-th rollouts of `prompts` consecutive groups are one bundle of reward R, the sum of theirs; all get its A.

    A = -(1 + omega)(Q_low - R)+ + g(R), g(R) = (R - Q_low)+ - (R - Q_high)+ + Q_low - Q_high (form="paper"); the code
    (form="code") scales, with w = 1 + omega: (-w (Q_low - R)+/low + g(R)/(high - low))/(w + 1), then / (std + eps), the
    std over the bundles of the same groups, ddof 1, 1 for a lone one. constant=False leaves Q_low - Q_high out.
    Q_low, Q_high: quantiles of those bundles' R, interpolated. The paper, and the code by default, follow them over
    steps by stochastic steps; that memory is left out (the code's use_q_track_mode=batch).
    Rollouts beyond the smallest group of a bundle get 0, as do groups without one; masked rollouts are passed over.
    Bundles are made in the order of the batch, so that order is part of the rule. Not mean-zero: A <= 0 with constant.
    """

    prompts: int = 5
    low: float = 0.2
    high: float = 0.8
    omega: float = 0.5
    form: Literal["paper", "code"] = "paper"
    constant: bool = True
    eps: float = 1e-6

    needs: ClassVar[frozenset[Need]] = frozenset({"rollout_order"})

    def check_settings(self) -> None:
        check_eps(self.eps)
        if self.prompts < 1 or not 0 < self.low < self.high < 1:
            raise InputError(
                f"prompts must be at least 1 and 0 < low < high < 1, got {self.prompts}, {self.low!r}, {self.high!r}"
            )

    def apply(self, state: Any, advantages: Advantages, groups: Groups) -> Advantages:
        values_PG, mask_PG = advantages.values_PG, groups.mask_PG
        shape = values_PG.shape
        flat = values_PG.reshape(-1, *shape[-2:]), mask_PG.reshape(-1, *shape[-2:])
        found = np.zeros(flat[0].shape)
        for replicate, (value_PG, valid_PG) in enumerate(zip(*flat, strict=True)):
            live = np.flatnonzero(valid_PG.any(axis=1))
            for start in range(0, len(live), self.prompts):
                members = live[start : start + self.prompts]
                columns = [np.flatnonzero(valid_PG[m]) for m in members]
                count = min(map(len, columns))
                chosen = np.array([c[:count] for c in columns])
                score = value_PG[members[:, None], chosen].sum(axis=0)
                found[replicate, members[:, None], chosen] = self.risk(score)
        return advantages._replace(values_PG=found.reshape(shape))

    def risk(self, score_B: Array, quantiles: tuple[float, float] | None = None) -> Array:
        """A of bundles with these scores, by their own quantiles unless others are given."""
        low, high = np.quantile(score_B, (self.low, self.high)) if quantiles is None else quantiles
        middle = np.maximum(score_B - low, 0) - np.maximum(score_B - high, 0) + (low - high if self.constant else 0.0)
        tail = -np.maximum(low - score_B, 0)
        if self.form == "paper":
            return np.asarray((1 + self.omega) * tail + middle)
        weight, spread = 1 + self.omega, np.std(score_B, ddof=1) if len(score_B) > 1 else 1.0
        mixed = weight * tail / (self.low + self.eps) + middle / (self.high - self.low + self.eps)
        if len(score_B) > 1 and not np.ptp(score_B) > 0:
            return np.zeros(len(score_B))  # equal bundles: what is exactly constant has no scale
        return np.asarray(mixed / (weight + 1) / (spread + self.eps))
