"""Worlds estimated from rollout counts: n rollouts of a prompt, s successes.

A pass rate s/n is p plus sampling noise; taken as p it overstates the spread between prompts. Here the mean,
the within and the between variance are unbiased, and the distribution of p is deconvolved to have the mean and
the between variance (its within variance is then mean (1 - mean) - between, below the unbiased one by the sampling
variance of the mean).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from ebpo_sim.errors import InputError
from ebpo_sim.mixing import Prior, arcsine_grid, beta_on_grid, count_pmf, fit_weights

Array = NDArray[np.float64]
GRID = 401  # points of p; 401 on the arcsine scale resolve the binomial noise of 10^5 rollouts near 0 and 1
ITERATIONS = 2000


@dataclass(frozen=True)
class Counts:
    """A table of prompts: `prompts[i]` prompts had `successes[i]` of `rollouts[i]`; prompts with one rollout
    carry no within-prompt information and are refused together with other impossible rows."""

    rollouts: tuple[int, ...]
    successes: tuple[int, ...]
    prompts: tuple[int, ...]

    def __post_init__(self) -> None:
        rows = list(zip(self.rollouts, self.successes, self.prompts, strict=True))
        for n, s, c in rows:
            if not (0 <= s <= n and c >= 1):
                raise InputError(
                    f"counts need 0 <= successes <= rollouts and prompts >= 1, got {s} of {n}, {c} prompts"
                )
            if n < 2:
                raise InputError(
                    "a prompt with one rollout cannot tell noise from difficulty: give at least 2 rollouts each"
                )
        if sum(self.prompts) < 2:
            raise InputError(
                f"counts hold {sum(self.prompts)} prompt: at least 2 are needed for a between-prompt variance"
            )

    @cached_property
    def arrays(self) -> tuple[Array, Array, Array]:
        """(rollouts, successes, prompts) as float64."""
        n, s, c = (np.asarray(x, dtype=np.float64) for x in (self.rollouts, self.successes, self.prompts))
        return n, s, c


class VarianceComponents(NamedTuple):
    """Unbiased estimates of E p, E p(1-p), Var p, the intra-class correlation made of them, and its standard error."""

    mean: float
    within: float
    between: float
    icc: float
    icc_se: float


def variance_components(counts: Counts) -> VarianceComponents:
    """mean = avg s/n; within = avg s(n-s)/(n(n-1)); between = Var_ddof1(s/n) - avg s(n-s)/(n^2 (n-1)).

    Unbiased for any distribution of p and any n >= 2 that does not depend on p; every prompt counts once.
    `between` can be negative by chance. icc_se: delta method over prompts, from their influence on icc.
    """
    n, s, c = counts.arrays
    total = c.sum()
    rate = s / n
    own_within = s * (n - s) / (n * (n - 1))
    mean = float(np.dot(c, rate) / total)
    within = float(np.dot(c, own_within) / total)
    square = (rate - mean) ** 2
    between = float(np.dot(c, square) / (total - 1) - np.dot(c, own_within / n) / total)
    whole = within + between
    icc = between / whole if whole > 0 else float("nan")
    if not whole > 0:
        return VarianceComponents(mean, within, between, icc, float("nan"))
    influence = ((1 - icc) * (square - own_within / n - between) - icc * (own_within - within)) / whole
    se = float(np.sqrt(np.dot(c, influence**2) / (total * (total - 1))))
    return VarianceComponents(mean, within, between, icc, se)


@lru_cache(maxsize=128)
def deconvolve(counts: Counts) -> Prior:
    """A discrete distribution of p that explains the counts and has their unbiased mean and between variance.

    The maximum-likelihood mixing weights on an arcsine grid (EM from a Beta start), tilted by exp(a p + b p^2)
    so that mean and variance match `variance_components` to 1e-12; a between variance that came out <= 0 gives
    one point, the mean.
    """
    found = variance_components(counts)
    if found.between <= 1e-9:
        return Prior((found.mean,), (1.0,))
    n, s, c = counts.arrays
    nodes = arcsine_grid(GRID)
    start = beta_on_grid(found.mean, found.between, nodes)
    weights = fit_weights(count_pmf(nodes, n, s), c, start, ITERATIONS)
    keep = weights > 1e-12
    nodes, weights = nodes[keep], weights[keep] / weights[keep].sum()
    weights = _tilt(nodes, weights, found.mean, found.between)
    return Prior(tuple(nodes.tolist()), tuple(weights.tolist()))


def _tilt(nodes: Array, weights: Array, mean: float, between: float) -> Array:
    """The distribution nearest to `weights` in Kullback-Leibler divergence with the given mean and variance."""
    features = np.stack([nodes - mean, (nodes - mean) ** 2 - between])

    def dual(t: Array) -> tuple[float, Array, Array]:
        exponent = t @ features
        peak = exponent.max()
        q = weights * np.exp(exponent - peak)
        total = q.sum()
        q = q / total
        gradient = features @ q
        return (
            float(np.log(total) + peak),
            gradient,
            (features * q) @ features.T - np.outer(gradient, gradient),
        )

    found = minimize(  # type: ignore[call-overload]
        lambda t: dual(t)[0], np.zeros(2), jac=lambda t: dual(t)[1], hess=lambda t: dual(t)[2], method="trust-exact"
    )
    t = np.asarray(found.x)
    for _ in range(3):  # Newton steps to rounding
        _, gradient, hessian = dual(t)
        t = t - np.linalg.solve(hessian, gradient)
    exponent = t @ features
    q = weights * np.exp(exponent - exponent.max())
    q = np.asarray(q / q.sum())
    if not np.allclose(features @ q, 0.0, atol=1e-12):
        raise InputError("no distribution of p on [0, 1] has the counts' mean and between variance: too few prompts")
    return q
