"""Finding (iii): Adam keeps moving after clipping has switched the gradient off.

The gradient is non-zero at steps 1..T-1 and 0 at T, T+1, ...; k = 0, 1, ... counts the steps from T on.
Source: arXiv 2601.05002, Propositions 3 and 7, Eq. 36 to 38.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ebpo_sim.bias.adamw import Optimiser, update
from ebpo_sim.bias.tokens import coefficient
from ebpo_sim.errors import InputError
from ebpo_sim.numbers import Array
from ebpo_sim.numbers.adam import Adam, State, direction, init
from ebpo_sim.objectives import Clip, Objective

CLIP = Clip()


def _decay(beta: float, stop: int, k: NDArray[np.int64]) -> Array:
    """A bias-corrected moment at T+k over the same at T-1."""
    return np.asarray(beta ** (k + 1) * (1 - beta ** (stop - 1)) / (1 - beta ** (stop + k)))


def _checked(beta1: float, beta2: float, stop: int, k: ArrayLike) -> NDArray[np.int64]:
    if not (0 <= beta1 < 1 and 0 < beta2 < 1):
        raise InputError(f"beta1 must be in [0, 1) and beta2 in (0, 1), got {beta1} and {beta2}")
    steps = np.asarray(k, dtype=np.int64)
    if stop < 2 or np.any(steps < 0):
        raise InputError(
            f"stop must be >= 2 and k >= 0, got {stop} and {steps.tolist()}: one step has to come before the stop"
        )
    return steps


def step_ratio(beta1: float, beta2: float, stop: int, k: ArrayLike) -> Array:
    """C_{T,k}, step T+k over step T-1, for eps = 0 and any gradient history (Eq. 36), T = `stop` >= 2:

    beta1^(k+1) (1-beta1^(T-1))/(1-beta1^(T+k)) sqrt((1-beta2^(T+k))/(beta2^(k+1) (1-beta2^(T-1))))
    """
    n = _checked(beta1, beta2, stop, k)
    first = (1 - beta1 ** (stop - 1)) / (1 - beta1 ** (stop + n))
    second = (1 - beta2 ** (stop + n)) / (1 - beta2 ** (stop - 1))
    # One power of rho: beta2^(k+1) alone underflows long before the ratio does.
    return np.asarray((beta1 / math.sqrt(beta2)) ** (n + 1) * first * np.sqrt(second))


def step_ratio_with_eps(beta1: float, beta2: float, stop: int, k: ArrayLike, root_v: ArrayLike, eps: float) -> Array:
    """As `step_ratio` with eps > 0: the root is replaced by (x + eps)/(x y + eps) (Eq. 38), x = `root_v` =
    sqrt(v-hat) at T-1 and y < 1 the decay of sqrt(v-hat); never above `step_ratio`."""
    steps, x = _checked(beta1, beta2, stop, k), np.asarray(root_v, dtype=np.float64)
    return np.asarray(_decay(beta1, stop, steps) * (x + eps) / (x * np.sqrt(_decay(beta2, stop, steps)) + eps))


def limit_ratio(beta1: float, beta2: float) -> float:
    """rho = beta1/sqrt(beta2): consecutive post-stop steps for T -> infinity, C_{T,k} -> rho^(k+1) (Eq. 37)."""
    _checked(beta1, beta2, 2, 0)
    return beta1 / math.sqrt(beta2)


def check_decays(optimiser: Adam) -> None:
    """Raises InputError unless beta1 < sqrt(beta2): otherwise steps after the stop never fade."""
    rho = limit_ratio(optimiser.beta1, optimiser.beta2)
    if rho >= 1:
        raise InputError(
            f"beta1 = {optimiser.beta1}, beta2 = {optimiser.beta2} give beta1/sqrt(beta2) = {rho:.4f} >= 1: "
            f"take beta1 below {math.sqrt(optimiser.beta2):.4f} or a larger beta2"
        )


def total_overshoot(optimiser: Adam, last_direction: float, stop: int, steps: int) -> float:
    """lr u_{T-1} sum_{k < steps} C_{T,k}: the displacement after the stop, u the preconditioned step T-1 (eps = 0)."""
    ratios = step_ratio(optimiser.beta1, optimiser.beta2, stop, np.arange(steps))
    return optimiser.lr * last_direction * float(ratios.sum())


def limit_overshoot(optimiser: Adam) -> float:
    """rho/(1-rho), the total displacement after the stop in units of the last step, T -> infinity."""
    check_decays(optimiser)
    rho = limit_ratio(optimiser.beta1, optimiser.beta2)
    return rho / (1 - rho)


class LogitRun(NamedTuple):
    """Inner steps on one logit. The first entry of `logit_T` and `ratio_T` is the start, so they are one longer."""

    logit_T: Array
    ratio_T: Array  # s = pi/pi_old
    gradient_T: Array
    direction_T: Array  # step / lr
    stop: int | None  # T: the first step with zero gradient, None if there is none
    state: State


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def start(probability: float) -> State:
    """A fresh optimiser state at the logit of `probability`."""
    if not 0 < probability < 1:
        raise InputError(f"probability must be inside (0, 1), got {probability}")
    return init([math.log(probability / (1 - probability))])


def run_logit(
    optimiser: Optimiser,
    state: State,
    advantages_G: tuple[float, ...] = (1.0,),
    objective: Objective = CLIP,
    weight: float = 1.0,
    kl: float = 0.0,
    steps: int = 80,
) -> LogitRun:
    """`steps` inner steps on outputs that share one Bernoulli token; pi_old is the policy of `state`.

    g = weight sum_i w_i(s) (1 - pi) - kl d KL(pi || pi_old)/d logit. Moments of `state` are carried on, as trainers
    do from one group to the next; `start(pi)` is a reset.
    """
    if steps < 1:
        raise InputError(f"steps must be at least 1, got {steps}")
    origin = float(state.theta[0])
    old = _sigmoid(origin)
    logits, gradients, directions = [origin], [], []
    for _ in range(steps):
        pi = _sigmoid(logits[-1])
        pull = kl * pi * (1 - pi) * (logits[-1] - origin)
        total = float(coefficient(objective, pi / old, advantages_G, old).sum())
        gradients.append(weight * total * (1 - pi) - pull)
        state = update(optimiser, state, gradients[-1])
        logits.append(float(state.theta[0]))
        directions.append(float(direction(optimiser, state)[0]) if isinstance(optimiser, Adam) else gradients[-1])
    ratio_T = np.array([_sigmoid(x) / old for x in logits])
    stop = next((t for t, g in enumerate(gradients, start=1) if g == 0), None)
    return LogitRun(np.array(logits), ratio_T, np.array(gradients), np.array(directions), stop, state)
