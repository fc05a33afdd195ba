"""Variance components of any rewards, with bootstrap intervals over prompts.

For prompt i with n_i >= 2 rollouts, mean x_i and unbiased variance w_i (ddof 1):

    within = avg w_i,   between = Var_ddof1(x) - avg w_i/n_i,   ICC = between / (within + between).

Unbiased (the ICC: consistent) for any distribution of rewards, if n_i does not depend on them; every group counts
once. The bootstrap draws prompts, with all visits of a prompt together; its intervals are bias-corrected and
accelerated (Efron 1987), so they are the same on every monotone scale, and a linear rule's error ratio inherits them.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit

from ebpo_sim.diagnose.population import Features, Population
from ebpo_sim.numbers import Array

LEVEL = 0.95
Z = 1.959964  # of a normal interval at LEVEL
MIXED = 10  # groups with different rewards below which no interval is given: the bootstrap cannot see what is rare
BLOCKS = 1000  # more prompts than this are drawn in random blocks of equal size

UNFOLDED = 10_000_000  # prompts that a histogram may stand for where its prompts are dealt out one by one


class Estimate(NamedTuple):
    """A value with its interval at `LEVEL`; None where there is none."""

    value: float
    low: float | None
    high: float | None

    def clipped(self, least: float, most: float) -> Estimate:
        low, high = (None if x is None else min(max(x, least), most) for x in (self.low, self.high))
        return Estimate(self.value, low, high)


class Components(NamedTuple):
    """mean, within, between and icc as (estimate, replicates): replicates is (B, 4) in the same order."""

    mean: Estimate
    within: Estimate
    between: Estimate
    icc: Estimate
    replicates: Array


def components(population: Population, draws: int, seed: int) -> Components:
    """All components of a population of at least two prompts, from `draws` bootstrap samples of its prompts."""
    found = population.features
    point = moments(found, found.multiplicity[None, :] @ found.sums)[0]
    rng = np.random.default_rng(seed)
    replicates = moments(found, redrawn(found.sums, found.multiplicity, draws, rng))
    influence = _influences(found, point)
    estimates = [
        bca(float(point[j]), replicates[:, j], influence[:, j], found.multiplicity) for j in range(point.shape[0])
    ]
    if float(population.weight @ ~population.flat) < MIXED:
        estimates = [Estimate(e.value, None, None) for e in estimates]
    mean, within, between, icc = estimates
    return Components(mean, within, between, icc, replicates)


def redrawn(sums: Array, multiplicity: Array, draws: int, rng: np.random.Generator) -> Array:
    """Sums over bootstrap samples of prompts, shape (draws, K), from terms (U, K) with multiplicities (U,)."""
    keep = multiplicity > 0
    sums, multiplicity = sums[keep], multiplicity[keep]
    if len(sums) > BLOCKS and multiplicity.sum() <= UNFOLDED + len(
        sums
    ):  # sums over blocks of exchangeable prompts are again independent and alike
        each = np.repeat(np.arange(len(sums)), multiplicity.astype(np.int64))
        block = rng.permutation(len(each)) % BLOCKS
        sums = np.stack([np.bincount(block, column[each], BLOCKS) for column in sums.T], axis=1)
        multiplicity = np.ones(BLOCKS)
    total = int(multiplicity.sum())
    out = np.empty((draws, sums.shape[1]))
    step = max(1, 4_000_000 // len(sums))
    for start in range(0, draws, step):
        size = min(step, draws - start)
        out[start : start + size] = rng.multinomial(total, multiplicity / total, size=size) @ sums
    return out


def moments(found: Features, sums: Array) -> Array:
    """(mean, within, between, icc) from feature sums, shape (B, 4); icc NaN where all rewards are equal."""
    count, x, square, w, noise = sums.T
    centre = x / count
    between = (square - count * centre**2) / np.maximum(count - 1, 1) - noise / count
    within = w / count
    within, between = (np.where(np.abs(x) > found.tolerance, x, 0.0) for x in (within, between))
    whole = within + between
    known = whole > found.tolerance
    icc = np.where(known, between / np.where(known, whole, 1.0), np.nan)
    return np.stack([found.origin + centre, within, between, icc], axis=1)


def _influences(found: Features, point: Array) -> Array:
    """First-order effect of each prompt on (mean, within, between, icc), shape (U, 4), up to a common factor."""
    count, x, square, w, noise = found.sums.T
    mean, within, between, icc = point
    centre = mean - found.origin
    by_mean = x - count * centre
    by_within = w - count * within
    by_between = square - 2 * centre * x + count * centre**2 - noise - count * between
    whole = max(within + between, found.tolerance, 1e-300)
    return np.stack([by_mean, by_within, by_between, ((1 - icc) * by_between - icc * by_within) / whole], axis=1)


def proportion(p: float, total: float) -> Estimate:
    """Wilson's interval for a proportion p of `total`."""
    z = Z
    centre = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(p * (1 - p) / total + z * z / (4 * total**2))
    return Estimate(p, max(0.0, centre - half), min(1.0, centre + half))


def around(value: float, replicates: Array) -> Estimate:
    """The replicates' percentiles, shifted so that their median falls on the value."""
    low, middle, high = np.quantile(replicates, [(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2])
    return Estimate(value, float(value + low - middle), float(value + high - middle))


def spread(value: float, replicates: Array, wider: float = 1.0) -> Estimate:
    """The interval of a positive quantity from few replicates: value exp(-+ wider t sd(log replicates)), t of one
    degree of freedom fewer than replicates. Their outer quantiles would be their extremes, and too near: of 20 they
    hold 90 %."""
    half = wider * float(stdtrit(len(replicates) - 1, (1 + LEVEL) / 2) * np.std(np.log(replicates), ddof=1))
    return Estimate(value, value * math.exp(-half), value * math.exp(half))


def normal(value: float, variance: float, least: float = -math.inf, most: float = math.inf) -> Estimate:
    """The normal interval of an estimate with this variance, cut at the ends."""
    half = Z * math.sqrt(variance)
    return Estimate(value, value - half, value + half).clipped(least, most)


def bca(value: float, replicates: Array, influence: Array, multiplicity: Array) -> Estimate:
    """The bias-corrected accelerated interval: quantiles of the replicates at Phi(z0 + (z0 + z)/(1 - a (z0 + z))).

    z0 = Phi^-1(share of replicates below the value), a = sum I^3 / (6 (sum I^2)^1.5).
    """
    kept = replicates[np.isfinite(replicates)]
    if len(kept) < 20 or not np.isfinite(value):
        return Estimate(value, None, None)
    if np.ptp(kept) < 1e-15 * min(1.0, 1e3 * float(np.abs(kept).max())):
        return Estimate(value, float(kept[0]), float(kept[0]))
    below = (np.sum(kept < value) + 0.5 * np.sum(kept == value)) / len(kept)
    z0 = float(ndtri(np.clip(below, 0.5 / len(kept), 1 - 0.5 / len(kept))))
    scale = float(np.dot(multiplicity, influence**2))
    a = float(np.dot(multiplicity, influence**3)) / (6 * scale**1.5) if scale > 0 else 0.0
    ends = []
    for z in (float(ndtri((1 - LEVEL) / 2)), float(ndtri((1 + LEVEL) / 2))):
        shifted = z0 + z
        # Far out the formula turns back on itself; there the extreme replicate is what is left.
        denominator = 1 - a * shifted
        q = float(ndtr(z0 + shifted / denominator)) if denominator > 0 else float(shifted > 0)
        ends.append(float(np.quantile(kept, q)))
    return Estimate(value, min(ends), max(ends))
