"""Means and spreads over a batch, with every convention that papers and trainers differ in as an argument."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ebpo_sim.errors import InputError
from ebpo_sim.groups import Groups
from ebpo_sim.numbers import Array

Ddof = Literal[0, 1]
Eps = Literal["outside", "inside"]
Weights = Literal["rollouts", "tokens"]


def weights_of(groups: Groups, weights: Weights) -> Array:
    """(..., P, G): a rollout counts once, or once a token (verl's masked whitening).

    Raises InputError for tokens where the batch has no lengths.
    """
    if weights == "rollouts":
        return groups.weight_PG
    if groups.length_PG is None:
        raise InputError(
            "weights='tokens' needs lengths: pass lengths=... to group_rewards(), the tokens of each rollout"
        )
    return groups.weight_PG * groups.length_PG


def moments(values_PG: Array, weight_PG: Array, ddof: int) -> tuple[Array, Array]:
    """Weighted mean and variance over the last two axes, kept as axes of length 1; exactly 0 when constant."""
    axes = (-2, -1)
    if values_PG.shape != weight_PG.shape:
        values_PG, weight_PG = np.broadcast_arrays(values_PG, weight_PG)
    total = weight_PG.sum(axis=axes, keepdims=True)
    counted = weight_PG > 0
    every = counted.all()  # then nothing need be left out
    low = (values_PG if every else np.where(counted, values_PG, np.inf)).min(axis=axes, keepdims=True)
    high = (values_PG if every else np.where(counted, values_PG, -np.inf)).max(axis=axes, keepdims=True)
    constant = low >= high
    mean = np.where(
        constant,
        np.where(total > 0, low, 0.0),
        (weight_PG * values_PG).sum(axis=axes, keepdims=True) / np.where(total > 0, total, 1.0),
    )
    squares = (weight_PG * (values_PG - mean) ** 2).sum(axis=axes, keepdims=True)
    return mean, np.where(constant, 0.0, squares / np.where(total > ddof, total - ddof, 1.0))


def divisor(variance: Array, eps: float, place: Eps) -> Array:
    """s + eps, or sqrt(s^2 + eps) with eps inside."""
    return np.sqrt(variance + eps) if place == "inside" else np.sqrt(variance) + eps


def check_eps(eps: float) -> None:
    """Raises InputError for a negative eps."""
    if eps < 0:
        raise InputError(f"eps must be >= 0, got {eps!r}")
