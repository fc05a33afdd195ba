"""From r - baseline to the advantage: centring and scaling, every convention a named argument."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ebpo_sim import typed
from ebpo_sim.errors import InputError
from ebpo_sim.groups import Groups

Array = NDArray[np.float64]
Centre = Literal["none", "batch"]
Scale = Literal["none", "group", "batch", "batch_rewards", "prior"]
Eps = Literal["outside", "inside"]
Weights = Literal["rollouts", "tokens"]
Ddof = Literal[0, 1]


@dataclass(frozen=True)
class Normalise:
    """advantage = (raw - centre) / (s + eps), or / sqrt(s^2 + eps) with eps_place="inside".

    centre: "none", or "batch": the weighted mean of raw over the batch.
    scale: "none" (s + eps = 1); "group": std of the group's rewards (GRPO); "batch": std of raw over the batch
    (EBPO, REINFORCE++); "batch_rewards": std of all rewards of the batch (TRL's scale_rewards="batch");
    "prior": the standard deviation of raw that the state predicts, the batch's own where there is no
    prediction yet; it keeps the signal of a batch that fails as a whole.
    ddof: 0 or 1; one observation has no ddof-1 spread and takes the plain one (0).
    weights: a rollout counts once, or once a token (verl's masked whitening; lengths default to 1).
    A group or batch whose scaled quantity is exactly constant has no scale: the advantage is 0 there, except
    that a group of one under scale="group" is divided by `singleton_std` (verl: 1) when that is not None.
    """

    centre: Centre = "none"
    scale: Scale = "none"
    ddof: Ddof = 1
    eps: float = 1e-6
    eps_place: Eps = "outside"
    weights: Weights = "rollouts"
    singleton_std: float | None = None

    def __post_init__(self) -> None:
        typed.check_fields(self)
        if self.eps < 0:
            raise InputError(f"eps must be >= 0, got {self.eps!r}")

    def apply(self, raw_PG: Array, groups: Groups, predicted_variance: Array | None) -> tuple[Array, Array]:
        """(advantages, divisor), both (..., P, G); masked rollouts get 0."""
        weight_PG = groups.weight_PG
        if self.weights == "tokens" and groups.length_PG is not None:
            weight_PG = weight_PG * groups.length_PG
        batch_mean, batch_variance = _batch_moments(raw_PG, weight_PG, self.ddof)
        centred_PG = raw_PG - batch_mean if self.centre == "batch" else raw_PG
        divisor, live = np.ones(()), np.ones((), dtype=bool)
        if self.scale == "none":
            pass
        elif self.scale == "group":
            divisor, live = self._group_divisor(groups)
        else:
            variance = batch_variance
            if self.scale == "batch_rewards":
                _, variance = _batch_moments(groups.rewards_PG, weight_PG, self.ddof)
            if self.scale == "prior" and predicted_variance is not None:
                predicted = np.asarray(predicted_variance)[..., None, None]
                variance = np.where(predicted > 0, predicted, batch_variance)
            divisor, live = self._divide_by(variance), variance > 0
        divisor = np.where(live, divisor, 1.0)
        advantages = np.where(groups.mask_PG & live, centred_PG, 0.0) / divisor
        return advantages, np.broadcast_to(divisor, advantages.shape)

    def _divide_by(self, variance: Array) -> Array:
        if self.eps_place == "inside":
            return np.sqrt(variance + self.eps)
        return np.sqrt(variance) + self.eps

    def _group_divisor(self, groups: Groups) -> tuple[Array, NDArray[np.bool_]]:
        size_P = groups.size_P
        variance_P = groups.within_ss_P / np.maximum(size_P - self.ddof, 1.0)
        divisor_P, live_P = self._divide_by(variance_P), ~groups.degenerate_P
        if self.singleton_std is not None:
            divisor_P = np.where(size_P == 1, self.singleton_std + self.eps, divisor_P)
            live_P = live_P | (size_P == 1)
        return divisor_P[..., None], live_P[..., None]


def _batch_moments(values_PG: Array, weight_PG: Array, ddof: int) -> tuple[Array, Array]:
    """Weighted mean and variance over the last two axes, kept as axes of length 1; exactly 0 when constant."""
    axes = (-2, -1)
    values_PG, weight_PG = np.broadcast_arrays(values_PG, weight_PG)
    total = weight_PG.sum(axis=axes, keepdims=True)
    counted = weight_PG > 0
    low = np.min(np.where(counted, values_PG, np.inf), axis=axes, keepdims=True)
    high = np.max(np.where(counted, values_PG, -np.inf), axis=axes, keepdims=True)
    constant = low >= high
    mean = np.where(
        constant,
        np.where(total > 0, low, 0.0),
        np.sum(weight_PG * values_PG, axis=axes, keepdims=True) / np.where(total > 0, total, 1.0),
    )
    squares = np.sum(weight_PG * (values_PG - mean) ** 2, axis=axes, keepdims=True)
    return mean, np.where(constant, 0.0, squares / np.where(total > ddof, total - ddof, 1.0))
