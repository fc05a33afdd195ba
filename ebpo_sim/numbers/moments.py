"""Mergeable running moments: sufficient statistics in, derived numbers on read.

A field is a float or an array: leading axes are independent replicates, so one call advances all of them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ebpo_sim.errors import InputError

Real = float | NDArray[np.float64]


class Moments(NamedTuple):
    """Weighted count, mean and sum of squared deviations of a stream.

    `n` is the sum of the observations' weights and `n_sq` the sum of their squares (equal until
    something is forgotten); `m2` is the weighted sum of (x - mean)^2, NOT the variance.
    """

    n: Real = 0.0
    n_sq: Real = 0.0
    mean: Real = 0.0
    m2: Real = 0.0


def choose(condition: Any, yes: Real, no: Real) -> Real:
    """np.where, and the plain choice between two numbers, which is twenty times sooner."""
    return np.where(condition, yes, no) if isinstance(condition, np.ndarray) else yes if condition else no


def of(xs: ArrayLike, multiplicity: ArrayLike = 1.0) -> Moments:
    """The moments of the observations along the last axis, the i-th
    `multiplicity[i] >= 0` times, in two passes."""
    x, c = np.asarray(xs, dtype=np.float64), np.asarray(multiplicity, dtype=np.float64)
    if x.shape != c.shape:
        x, c = np.broadcast_arrays(x, c)
    count, held = c.sum(axis=-1), c > 0
    safe = choose(count > 0, count, 1.0)
    every = held.all()  # then nothing need be left out
    low = (x if every else np.where(held, x, np.inf)).min(axis=-1, initial=np.inf)
    high = (x if every else np.where(held, x, -np.inf)).max(axis=-1, initial=-np.inf)
    # Equal observations have exactly their value as mean and no spread: a rounding error is not a variance.
    mean = choose(low == high, low, (c * x).sum(axis=-1) / safe)
    deviation = x - np.asarray(mean)[..., None]
    if not every:
        deviation = np.where(held, deviation, 0.0)
    # The second term removes what the rounding of `mean` added (Chan, Golub and LeVeque's corrected two-pass).
    m2 = (c * deviation**2).sum(axis=-1) - (c * deviation).sum(axis=-1) ** 2 / safe
    return Moments(count, count, mean, np.maximum(m2, 0.0))


def merge(a: Moments, b: Moments) -> Moments:
    """Chan's merge: m2 = m2_a + m2_b + (mean_b - mean_a)^2 n_a n_b / (n_a + n_b).

    Commutative to the last bit; the empty stream is the identity; parts of size 0 and 1 are ordinary parts.
    """
    count = a.n + b.n
    safe = choose(count > 0, count, 1.0)
    either = choose(a.n == 0, b.mean, a.mean)
    whole = (a.n > 0) & (b.n > 0) & (a.mean != b.mean)
    mean = choose(whole, (a.n * a.mean + b.n * b.mean) / safe, either)
    delta = b.mean - a.mean
    m2 = a.m2 + b.m2 + delta * delta * (a.n * b.n / safe)
    return Moments(count, a.n_sq + b.n_sq, mean, m2)


def remove_one(state: Moments, x: Real) -> Moments:
    """The stream without one observation `x` of weight 1: the inverse of `push`, for leave-one-out.

    m2 = m2 - (x - mean)^2 n/(n-1), clipped at 0; the empty stream when it held one. Broadcasts over `x`.
    """
    count = np.maximum(state.n - 1.0, 0.0)
    safe = np.where(count > 0, count, 1.0)
    delta = x - state.mean
    mean = np.where(count > 0, state.mean - delta / safe, 0.0)
    m2 = np.where(count > 0, np.maximum(state.m2 - delta * delta * (state.n / safe), 0.0), 0.0)
    return Moments(count, np.maximum(state.n_sq - 1.0, 0.0), mean, m2)


def forget(state: Moments, retention: float) -> Moments:
    """Exponential forgetting: every past observation's weight times `retention` in [0, 1].

    1 keeps everything, 0 returns the empty stream; the mean is unchanged in between.
    """
    if not 0.0 <= retention <= 1.0:
        raise InputError(f"retention must lie in [0, 1], got {retention!r}: 1 never forgets, 0 keeps one batch")
    if retention == 0.0:
        return Moments()
    return Moments(state.n * retention, state.n_sq * retention**2, state.mean, state.m2 * retention)


def variance(state: Moments, ddof: int) -> Real:
    """m2 / (n - ddof n_sq/n): ddof 0 is the population form, ddof 1 unbiased, for unequal weights too.

    With weights 1 the divisor is n - ddof. 0 where nothing or only one effective observation is held.
    """
    if ddof not in (0, 1):
        raise InputError(f"ddof must be 0 or 1, got {ddof!r}")
    count = state.n
    divisor = count - ddof * state.n_sq / choose(count > 0, count, 1.0)
    positive = divisor > 1e-12 * count
    return choose(positive, state.m2 / choose(positive, divisor, 1.0), 0.0)
