"""HA-DW: weigh advantages by how far a prompt's pass rate is from what the policy could do before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ebpo_sim import typed
from ebpo_sim.errors import InputError
from ebpo_sim.estimators.transforms.base import Advantages, Domain
from ebpo_sim.groups import Groups
from ebpo_sim.numbers import Array
from ebpo_sim.part import Need

Belief = dict[str, Array]  # sums, counts: (..., window) beliefs, the newest last; batch: (..., 2) rewards and rollouts


@dataclass(frozen=True)
class DifficultyWeight(typed.Settings):
    """values times scale exp(-sgn(value) sgn(d) |d|), d = group mean - C, C the belief in the policy's accuracy.

    After a batch of accuracy y: C <- (1 - e) C + e y, e = min(1, eta sigma), sigma the standard deviation (ddof 0) of
    the last `window` beliefs. So the right answers of prompts harder than C count for more, as do the wrong ones of
    easier prompts. eta, window, start are not printed where this was read: the defaults are this project's, and sigma
    counts as 1 while fewer than two beliefs are known, or the belief would never move from `start`.
    Rewards in [0, 1]. Beliefs of workers that started together are averaged, their batches added.
    """

    scale: float = 1.3
    eta: float = 1.0
    window: int = 10
    start: float = 0.5

    domain: ClassVar[Domain] = "unit"
    needs: ClassVar[frozenset[Need]] = frozenset()

    def check_settings(self) -> None:
        if self.window < 2 or self.eta < 0 or self.scale < 0 or not 0 <= self.start <= 1:
            raise InputError(
                f"window must be at least 2, eta and scale >= 0, start in [0, 1], got {self.window}, {self.eta!r}, "
                f"{self.scale!r}, {self.start!r}"
            )

    def init(self) -> Belief:
        return {"sums": np.zeros(self.window), "counts": np.zeros(self.window), "batch": np.zeros(2)}

    def observe(self, groups: Groups) -> Belief:
        weight_PG = groups.weight_PG
        batch = np.stack([(weight_PG * groups.rewards_PG).sum(axis=(-2, -1)), weight_PG.sum(axis=(-2, -1))], axis=-1)
        return {**self.init(), "batch": batch}

    def forget(self, state: Belief) -> Belief:
        """The last batch becomes a belief."""
        rewards, rollouts = state["batch"][..., :1], state["batch"][..., 1:]
        seen = rollouts > 0
        if not seen.any():
            return state
        known = state["counts"] > 0
        belief = state["sums"] / np.where(known, state["counts"], 1.0)
        number = known.sum(axis=-1, keepdims=True)
        mean = belief.sum(axis=-1, keepdims=True) / np.maximum(number, 1)
        variance = np.sum(known * (belief - mean) ** 2, axis=-1, keepdims=True) / np.maximum(number, 1)
        pace = np.where(number > 1, np.minimum(self.eta * np.sqrt(variance), 1.0), min(self.eta, 1.0))
        before = np.where(number > 0, belief[..., -1:], self.start)
        after = before + pace * (rewards / np.where(seen, rollouts, 1.0) - before)
        moved = {"batch": np.zeros(2)}
        for name, newest in (("sums", after), ("counts", np.ones(after.shape))):
            old = np.broadcast_to(state[name], (*after.shape[:-1], self.window))
            moved[name] = np.where(seen, np.concatenate([old[..., 1:], newest], axis=-1), old)
        return {name: moved[name] for name in state}

    def merge(self, a: Belief, b: Belief) -> Belief:
        return {name: a[name] + b[name] for name in a}

    def belief(self, state: Belief) -> Array:
        """C after every batch that the state has seen, (..., 1)."""
        now = self.forget(state)
        counts = now["counts"][..., -1:]
        return np.where(counts > 0, now["sums"][..., -1:] / np.where(counts > 0, counts, 1.0), self.start)

    def apply(self, state: Belief, advantages: Advantages, groups: Groups) -> Advantages:
        gap_P = groups.mean_P - self.belief(state)
        weight_PG = self.scale * np.exp(-np.sign(advantages.values_PG) * gap_P[..., None])
        return advantages._replace(values_PG=advantages.values_PG * weight_PG)
