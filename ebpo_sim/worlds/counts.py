"""Worlds estimated from rollout counts: n rollouts of a prompt, s successes.

A pass rate s/n is p plus sampling noise; taken as p it overstates the spread between prompts. Here the mean,
the within and the between variance are unbiased, and the distribution of p is deconvolved to have the mean and
the between variance (its within variance is then mean (1 - mean) - between, below the unbiased one by the sampling
variance of the mean). No p in [0, 1] varies by more than mean (1 - mean); an unbiased between variance can, of few
prompts or of counts that are all or nothing, and is then cut there: p is 0 or 1, in the proportion of the mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal, NamedTuple

import numpy as np

from ebpo_sim.errors import InputError
from ebpo_sim.numbers import Array
from ebpo_sim.numbers.mixing import Prior, arcsine_grid, beta_on_grid, count_pmf, fit_weights

GRID = 401  # points of p; 401 on the arcsine scale resolve the binomial noise of 10^5 rollouts near 0 and 1
ITERATIONS = 2000
MOST_ROLLOUTS = 10**6  # beyond, a binomial is narrower than the grid, and its likelihood is 0 at every point
MOST_PROMPTS = 10**9
MOST_CELLS = 50_000  # different pairs of rollouts and successes: some 200 MB and a minute


@dataclass(frozen=True)
class Counts:
    """A table of prompts: `prompts[i]` prompts had `successes[i]` of `rollouts[i]`; prompts with one rollout
    carry no within-prompt information and are refused together with other impossible rows, more than 10^6 rollouts
    a prompt and more than 10^9 prompts."""

    rollouts: tuple[int, ...]
    successes: tuple[int, ...]
    prompts: tuple[int, ...]

    def __post_init__(self) -> None:
        rows = list(zip(self.rollouts, self.successes, self.prompts, strict=True))
        for n, s, c in rows:
            if not (0 <= s <= n and c >= 1):
                raise InputError(
                    "counts need 0 <= successes <= rollouts and prompts >= 1, "
                    f"got {_said(s)} of {_said(n)}, {_said(c)} prompts"
                )
            if n > MOST_ROLLOUTS:
                raise InputError(f"counts need at most {MOST_ROLLOUTS:,} rollouts a prompt, got {_said(n)}: thin them")
            if n < 2:
                raise InputError(
                    "a prompt with one rollout cannot tell noise from difficulty: give at least 2 rollouts each"
                )
        if sum(self.prompts) < 2:
            raise InputError(
                f"counts hold {sum(self.prompts)} prompt: at least 2 are needed for a between-prompt variance"
            )
        if sum(self.prompts) > MOST_PROMPTS:
            raise InputError(f"counts need at most {MOST_PROMPTS:,} prompts, got {_said(sum(self.prompts))}")

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
def deconvolve(counts: Counts, match: Literal["mean", "within"] = "mean") -> Prior:
    """A discrete distribution of p that explains the counts and has their unbiased between variance, and mean.

    match="within": and within variance, on which with the between variance every line's error ratio rests. The mean is
    then the one whose mean (1 - mean) is their sum, at most 1/4: nearer to 1/2, by at most its standard error.

    The maximum-likelihood mixing weights on an arcsine grid (EM from a Beta start), tilted by exp(a p + b p^2)
    so that mean and variance match `variance_components` to 1e-12. Where EM leaves too few points for that (two
    distinct counts, few prompts), a thousandth of the start is mixed in first. A between variance that came out <= 0
    gives one point, the mean; one above mean (1 - mean) is cut there, which gives 0 and 1; one that the grid cannot
    have gives two points. Raises InputError for more than 50,000 different pairs of rollouts and successes.
    """
    if len(counts.prompts) > MOST_CELLS:
        raise InputError(
            f"counts hold {len(counts.prompts):,} different pairs of rollouts and successes, at most {MOST_CELLS:,} "
            "can be deconvolved: give the prompts the same number of rollouts"
        )
    found = variance_components(counts)
    mean = found.mean
    if match == "within" and found.between > 1e-9:
        whole = min(found.within + found.between, 0.25)
        least = 2 * whole / (1 + float(np.sqrt(1 - 4 * whole)))
        mean = least if mean < 0.5 else 1 - least
    between = min(found.between, mean * (1 - mean))
    if between <= 1e-9:
        return Prior((mean,), (1.0,))
    if between >= mean * (1 - mean) - 1e-12:
        return _two_points(mean, between)
    n, s, c = counts.arrays
    grid = arcsine_grid(GRID)
    pmf = count_pmf(grid, n, s)
    start = beta_on_grid(mean, between, grid)
    flat = 0.999 * start + 0.001 / GRID  # no count is impossible under it
    fitted = fit_weights(pmf, c, start if np.all(start @ pmf > 0) else flat, ITERATIONS)
    mixed = 0.999 * fitted + 0.001 * flat
    for weights, unit in ((fitted, 1.0), (fitted, between), (mixed, between)):
        keep = weights > 1e-12
        nodes, kept = grid[keep], weights[keep] / weights[keep].sum()
        tilted = _tilt(nodes, kept, mean, between, unit)
        if tilted is not None:
            return Prior(tuple(nodes.tolist()), tuple(tilted.tolist()))
    return _two_points(mean, between)


def _tilt(nodes: Array, weights: Array, mean: float, between: float, unit: float) -> Array | None:
    """The distribution nearest to `weights` in Kullback-Leibler divergence with the given mean and variance; None
    where it is not found, as on fewer than three nodes. unit: the variance in which moments are measured meanwhile."""
    features = np.stack([(nodes - mean) / np.sqrt(unit), ((nodes - mean) ** 2 - between) / unit])

    def tilted(t: Array) -> tuple[Array, float]:
        exponent = t @ features
        peak = exponent.max()
        q = weights * np.exp(exponent - peak)
        total = q.sum()
        return q / total, float(np.log(total) + peak)

    def hessian(t: Array) -> Array:
        q, _ = tilted(t)
        gradient = features @ q
        return np.asarray((features * q) @ features.T - np.outer(gradient, gradient))

    try:
        from scipy.optimize import minimize  # takes a seventh of a second to import

        found = minimize(  # type: ignore[call-overload]
            lambda t: tilted(t)[1],
            np.zeros(2),
            jac=lambda t: features @ tilted(t)[0],
            hess=hessian,
            method="trust-exact",
        )
        t = np.asarray(found.x)
        for _ in range(3):  # Newton steps to rounding
            t = t - np.linalg.solve(hessian(t), features @ tilted(t)[0])
    except np.linalg.LinAlgError:
        return None
    q, _ = tilted(t)
    return q if np.allclose(features @ q, 0.0, atol=1e-12) else None


def _two_points(mean: float, between: float) -> Prior:
    """Two points with this mean and variance: mean -+ the standard deviation where both lie in [0, 1], else 0 or 1 and
    the one that is left."""
    if mean > 0.5:
        mirrored = _two_points(1 - mean, between)
        return Prior(tuple(1 - p for p in mirrored.nodes), mirrored.weights)
    if between <= mean**2:
        spread = float(np.sqrt(between))
        return Prior((mean - spread, mean + spread), (0.5, 0.5))
    upper = min(1.0, mean + between / mean)
    return Prior((0.0, upper), (1 - mean / upper, mean / upper))


def _said(number: float) -> str:
    """A count of any size, short."""
    return f"{float(max(-(10**300), min(number, 10**300))):g}"
