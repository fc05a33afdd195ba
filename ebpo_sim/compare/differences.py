"""Means and differences with Student's intervals: paired by seed, of independent runs (Welch), corrected (Holm)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtr, stdtrit


class Difference(NamedTuple):
    """A mean or difference with its standard error, 95 % interval and two-sided p against 0; None where one seed gives
    none. seeds: the fewest that any of its means has."""

    value: float
    se: float | None
    low: float | None
    high: float | None
    p: float | None
    seeds: int


class Term(NamedTuple):
    """A mean of independent seeds as one part of a sum, with the weight it has there."""

    weight: float
    value: float
    se: float
    seeds: int


def interval(value: float, se: float | None, seeds: int, freedom: float | None = None) -> Difference:
    """value ± t se at 95 %, t of `freedom` degrees (default seeds - 1); no interval from one seed or without an se."""
    freedom = seeds - 1.0 if freedom is None else freedom
    if se is None or not freedom > 0:
        return Difference(value, None, None, None, None, seeds)
    half = float(stdtrit(freedom, 0.975)) * se
    p = float(2 * stdtr(freedom, -abs(value) / se)) if se > 0 else float(value == 0)
    return Difference(value, se, value - half, value + half, p, seeds)


def mean_of(values: Iterable[float]) -> Difference:
    """The mean over seeds, se = std / sqrt(n) with n - 1 in the variance."""
    x = np.array(list(values), dtype=np.float64)
    se = float(x.std(ddof=1) / math.sqrt(len(x))) if len(x) > 1 else None
    return interval(float(x.mean()), se, len(x))


def paired(mine: Mapping[int, float], other: Mapping[int, float]) -> Difference | None:
    """Mean of mine less other over the seeds that both have; None where they share none."""
    shared = sorted(mine.keys() & other.keys())
    return mean_of(mine[s] - other[s] for s in shared) if shared else None


def independent(terms: Sequence[Term]) -> Difference:
    """sum w v of means that share no seeds: se^2 = sum u, u = (w se)^2, with Welch's degrees of freedom
    (sum u)^2 / sum u^2 / (n - 1). Also for means that do share seeds, where it is too long an interval if the
    correlation that the difference takes out is positive."""
    squares = [(term.weight * term.se) ** 2 for term in terms]
    freedoms = [term.seeds - 1 or math.nan for term in terms]
    spread = sum(u * u / f for u, f in zip(squares, freedoms, strict=True))
    fewest = min(term.seeds for term in terms)
    freedom = fewest - 1.0 if spread == 0 else sum(squares) ** 2 / spread
    return interval(sum(term.weight * term.value for term in terms), math.sqrt(sum(squares)), fewest, freedom)


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values: below a level, the family-wise error rate is below it too."""
    order = sorted(range(len(ps)), key=lambda i: ps[i])
    adjusted, running = [0.0] * len(ps), 0.0
    for place, i in enumerate(order):
        running = max(running, min(1.0, (len(ps) - place) * ps[i]))
        adjusted[i] = running
    return adjusted
