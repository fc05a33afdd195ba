"""Adam(W) on NumPy arrays: pure functions from state to state. Gradients are of an objective, which is climbed.

`ebpo_sim.chains.kernels.optimiser_step` is its compiled twin at the usual settings, to the same bits.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ebpo_sim.errors import InputError
from ebpo_sim.numbers import Array


class Adam(NamedTuple):
    """Settings: theta <- theta + lr m-hat/(sqrt(v-hat) + eps) - lr weight_decay theta."""

    lr: float = 1e-2
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0


class State(NamedTuple):
    """Parameters and raw (not bias-corrected) moments, all of one shape, after `step` updates."""

    theta: Array
    first: Array
    second: Array
    step: int


def check(adam: Adam) -> None:
    """Raises InputError unless lr > 0, betas lie in [0, 1), eps >= 0 and weight_decay >= 0."""
    if not adam.lr > 0:
        raise InputError(f"lr must be positive, got {adam.lr}")
    for name in ("beta1", "beta2"):
        if not 0 <= getattr(adam, name) < 1:
            raise InputError(f"{name} must be in [0, 1), got {getattr(adam, name)}: 0.9 and 0.999 are usual")
    for name in ("eps", "weight_decay"):
        if not getattr(adam, name) >= 0:
            raise InputError(f"{name} must not be negative, got {getattr(adam, name)}")


def init(theta: ArrayLike) -> State:
    """Zero moments at step 0."""
    parameters = np.array(theta, dtype=np.float64, ndmin=1)
    return State(parameters, np.zeros_like(parameters), np.zeros_like(parameters), 0)


def direction(adam: Adam, state: State, scale: float = 1.0) -> Array:
    """scale m-hat / (sqrt(v-hat) + eps), both moments bias-corrected; 0 where both are 0 (eps = 0)."""
    mean = scale * (state.first / (1 - adam.beta1**state.step))
    root = np.sqrt(state.second / (1 - adam.beta2**state.step)) + adam.eps
    return np.divide(mean, root, out=np.zeros_like(mean), where=(mean != 0) | (root != 0))


def update(adam: Adam, state: State, gradient: ArrayLike, lr_factor: float = 1.0) -> State:
    """One step with the objective's gradient; `lr_factor` multiplies the learning rate (a schedule)."""
    g, lr = np.asarray(gradient, dtype=np.float64), adam.lr * lr_factor
    moved = State(
        state.theta,
        adam.beta1 * state.first + (1 - adam.beta1) * g,
        adam.beta2 * state.second + (1 - adam.beta2) * (g * g),
        state.step + 1,
    )
    shift = direction(adam, moved, lr)
    if adam.weight_decay:
        shift = shift - lr * adam.weight_decay * state.theta
    return moved._replace(theta=state.theta + shift)
