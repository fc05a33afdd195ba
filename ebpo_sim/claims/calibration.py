"""Are the standard errors right? Many small runs with known means: z must have mean square 1.

The z of the ledger cannot tell, because most of its rows share one stream: together they are no sample, and each alone
is within bounds when its standard error is wrong by a factor of 2. Here every z has its own draws. t with its degrees
of freedom is mapped to the normal quantile of the same probability, so that the sum of squares is chi-square.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import chdtri, gammaincinv, ndtri, stdtr

from ebpo_sim.claims.history import slope_with_error
from ebpo_sim.counts.exact import rule
from ebpo_sim.counts.streams import Design, Mean, mean_with_error, paired_ratio, simulate_errors
from ebpo_sim.estimators import Estimator, Subtract, make
from ebpo_sim.estimators.shrinkage import Shrinkage
from ebpo_sim.studies.entropy.study import double_ratio
from ebpo_sim.worlds import parse_world

RUNS = 256  # a factor sqrt 2 in a standard error moves the mean square by 5 of its own standard deviations
REPLICATES = 8
FAMILY_WISE = 1e-3  # false fails of all four together
WORLD = "beta:2,3"
SIZE = 4


class Calibration(NamedTuple):
    """Mean square of z over the runs, and the bounds that right standard errors break with probability `FAMILY_WISE`
    over all kinds together."""

    kind: str
    mean_square: float
    low: float
    high: float


def standard_errors(seed: int, threads: int = 1) -> list[Calibration]:
    """One entry a kind of standard error: of a mean and of a paired ratio, over simulated replicates; of a double
    ratio and of a slope, over drawn numbers."""
    mean, ratio = _simulated(seed, threads)
    rng = np.random.default_rng([seed, 4])
    double, slope = [], []
    for _ in range(RUNS):
        common = rng.normal(0, 0.02, REPLICATES)
        drawn = (1 + i * common + rng.normal(0, 0.02, REPLICATES) for i in range(4))
        double.append(_z(double_ratio(*drawn), 1.0))
        x = rng.normal(0, 1, REPLICATES)
        slope.append(_z(slope_with_error(x, 0.3 * x + rng.normal(0, 1, REPLICATES)), 0.3))
    kinds = {"mean": mean, "ratio": ratio, "double ratio": double, "slope": slope}
    tail = FAMILY_WISE / len(kinds) / 2
    bounds = 2 * gammaincinv(RUNS / 2, tail) / RUNS, chdtri(RUNS, tail) / RUNS  # chi-square's two quantiles
    freedom = {"slope": REPLICATES - 2}
    return [
        Calibration(kind, mean_square(z, freedom.get(kind, REPLICATES - 1)), float(bounds[0]), float(bounds[1]))
        for kind, z in kinds.items()
    ]


def mean_square(z: Sequence[float], freedom: int) -> float:
    """Mean of the squared normal quantiles that stand for t values with this freedom; 1 on average."""
    return float(np.mean(ndtri(stdtr(freedom, -np.abs(z))) ** 2))


def _simulated(seed: int, threads: int) -> tuple[list[float], list[float]]:
    """z of the error of a baseline that is the true mean, which only the prompts make vary (its mean is Var p); and of
    the best line's error over the group mean's, T2/(T2 + w/G). One stream, cut into runs of its replicates."""
    world = parse_world(WORLD)
    prior = rule(world, SIZE)
    known = make("oracle_linear", prior=prior)
    flat = Estimator("known mean", (Subtract(Shrinkage(prior=prior, fixed_shrinkage=1.0)),))
    design = Design(prompts=64, steps=1, burn_in=0, replicates=RUNS * REPLICATES, seed=seed)
    errors = simulate_errors(world, SIZE, [flat, known, make("grpo")], design, threads)
    level, line, plain = (e.reshape(RUNS, REPLICATES) for e in errors)
    best = prior.between / (prior.between + prior.within / SIZE)
    return (
        [_z(mean_with_error(x), prior.between) for x in level],
        [_z(paired_ratio(x, y), best) for x, y in zip(line, plain, strict=True)],
    )


def _z(found: Mean, exact: float) -> float:
    """Infinite where no spread is left to explain a gap."""
    return (found.value - exact) / found.se if found.se > 0 else float("inf")
