"""A learning curve in two numbers: where it ends (asymptote) and how soon (midpoint), fitted apart.

    R(c) = R0 + (A - R0) / (1 + (C / c)^B)        (ScaleRL, arXiv 2510.13786)

R0: the value before training, given. c > 0: compute in any unit (steps, rollouts, seconds). A: asymptote. C: midpoint,
where half of the gain is made; the smaller, the more efficient. B > 0: exponent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy.optimize import least_squares
from scipy.special import stdtrit

from ebpo_sim.errors import InputError
from ebpo_sim.numbers import Array

Why = Literal["", "fewer than five points", "no gain", "ends before its midpoint", "asymptote within no bounds"]
EXPONENTS = (0.2, 10.0)
REACH = 100.0  # midpoints are sought up to so many times below and above the range of c
PARAMETERS = 3


class Sigmoid(NamedTuple):
    """A fit; where the curve does not identify it, asymptote, midpoint, exponent and errors are None, and `why` says
    what is missing. asymptote_se: by the curvature of the fit; midpoint_se: of log C."""

    asymptote: float | None
    midpoint: float | None
    exponent: float | None
    asymptote_se: float | None = None
    midpoint_se: float | None = None
    why: Why = ""


def value(compute_T: Array, start: float, asymptote: float, midpoint: float, exponent: float) -> Array:
    """R(c)."""
    return np.asarray(start + (asymptote - start) / (1 + (midpoint / compute_T) ** exponent))


def fit_sigmoid(compute: Sequence[float], reward: Sequence[float], start: float) -> Sigmoid:
    """Least squares over A, log C and log B (B within EXPONENTS) from a grid of starts, A being linear given the rest.

    The curve identifies A and C if it has five points or more, if the 95 % interval of A - R0 excludes 0 and is no
    wider than twice |A - R0|, and if its last point lies beyond the midpoint's interval: before the midpoint a straight
    line fits, and any A above it. Raises InputError for lengths that differ, c <= 0 or values that are not finite.
    """
    x, y = np.asarray(compute, dtype=np.float64), np.asarray(reward, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 1 or not np.all(x > 0) or not np.all(np.isfinite([*x, *y, start])):
        raise InputError(
            f"compute and reward must be lists of one length, finite, compute above 0, got {x.shape} and {y.shape}: "
            "leave the record before training out, it is `start`"
        )
    if len(x) < 5:
        return Sigmoid(None, None, None, why="fewer than five points")
    if np.ptp([*y, start]) <= 1e-12 * max(1.0, abs(start)):
        return Sigmoid(None, None, None, why="no gain")
    low, high = np.log(x.min() / REACH), np.log(x.max() * REACH)

    def rise(log_c: float, log_b: float) -> Array:
        return np.asarray(1 / (1 + np.exp(np.exp(log_b) * (log_c - np.log(x)))))

    def gain(log_c: float, log_b: float) -> float:
        s = rise(log_c, log_b)
        return float(s @ (y - start) / (s @ s + 1e-300))

    def residual(at: Array) -> Array:
        return np.asarray(start + at[0] * rise(at[1], at[2]) - y)

    grid = [(c, b) for c in np.linspace(np.log(x.min()), np.log(x.max()), 9) for b in np.log((0.5, 1, 2, 4))]
    starts = [np.array([gain(c, b), c, b]) for c, b in grid]
    starts.sort(key=lambda at: float(np.sum(residual(at) ** 2)))
    bounds = [-np.inf, low, np.log(EXPONENTS[0])], [np.inf, high, np.log(EXPONENTS[1])]
    fits = [
        least_squares(residual, at, bounds=bounds, x_scale="jac", xtol=1e-10, ftol=1e-12, max_nfev=60)
        for at in starts[:3]
    ]
    best = min(fits, key=lambda fit: float(fit.cost))
    total, log_c, log_b = (float(v) for v in best.x)
    freedom = len(x) - PARAMETERS
    jacobian = np.array(best.jac, dtype=np.float64)
    variance = 2 * float(best.cost) / freedom * np.linalg.pinv(jacobian.T @ jacobian)
    error, error_c = (float(np.sqrt(max(0.0, variance[i, i]))) for i in (0, 1))
    sure = float(stdtrit(freedom, 0.975))
    half = sure * error
    if log_c + sure * error_c >= np.log(x.max()):
        return Sigmoid(None, None, None, why="ends before its midpoint")
    if half >= abs(total):
        flat = float(np.sum((y - y.mean()) ** 2)) <= 4 * float(best.cost) and abs(y.mean() - start) <= y.std()
        return Sigmoid(None, None, None, why="no gain" if flat else "asymptote within no bounds")
    return Sigmoid(start + total, float(np.exp(log_c)), float(np.exp(log_b)), error, error_c)
