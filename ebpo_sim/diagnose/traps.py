"""What a log can hide: groups that were filtered before it was written, and gradients that come from format alone."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
from scipy.stats import binom

from ebpo_sim.diagnose.intervals import Estimate, around, proportion
from ebpo_sim.diagnose.population import Population
from ebpo_sim.diagnose.shape import GRID, STEPS, Shape
from ebpo_sim.numbers.formulas import degenerate_probability
from ebpo_sim.numbers.mixing import arcsine_grid, count_pmf, fit_weights
from ebpo_sim.worlds import Counts

UNLIKELY = 1e-3  # probability of so few silent groups below which the log is taken for a filtered one
MAIN = re.compile("acc|correct|answer|math|solve")  # in the name of the reward that the others serve


class Silence(NamedTuple):
    """Groups, those with equal rewards, the share that the fitted prior expects, and P(so few | that share)."""

    groups: int
    silent: int
    expected: float
    probability: float

    @property
    def filtered(self) -> bool:
        """Far fewer than expected: half at most, and not by chance."""
        return 2 * self.silent < self.groups * self.expected and self.probability < UNLIKELY


class Kept(NamedTuple):
    """Pass rates of the prompts behind kept groups: mean and intra-class correlation, by the truncated likelihood."""

    mean: Estimate
    icc: Estimate


class Component(NamedTuple):
    """A reward column. silent: share of groups in which it is constant. others: share of all groups in which it is,
    while the others are not, so that the whole gradient is theirs."""

    name: str
    silent: Estimate
    others: Estimate


def silence(counts: Counts, shape: Shape, independent: float) -> Silence:
    """The exact binomial test on the number of silent groups.

    Group i is silent with probability q_i = E p^n_i + (1-p)^n_i under the fitted prior. Fewer than their sum are less
    likely than under a binomial of the mean q (Hoeffding 1956), which is therefore on the safe side. Visits of one
    prompt count as one group. A prior fitted to a log without silent groups expects fewer of them than there were.
    """
    n, s, c = counts.arrays
    sizes, inverse = np.unique(n, return_inverse=True)
    nodes, weights = np.array(shape.prior.nodes), np.array(shape.prior.weights)
    chance = np.array([weights @ degenerate_probability(nodes, int(size)) for size in sizes])
    expected = float(c @ chance[inverse] / c.sum())
    groups, silent = float(c.sum()), float(c @ ((s == 0) | (s == n)))
    seen = np.ceil(silent * independent)
    probability = float(binom.cdf(seen, np.floor(groups * independent), expected))
    return Silence(int(groups), int(silent), expected, probability)


def kept(counts: Counts, draws: int, seed: int, independent: float) -> Kept | None:
    """The prompts behind groups that were kept because their rewards differ; None where all are equal.

    P(s | kept) = sum_j v_j C(n, s) p_j^s (1-p_j)^(n-s)/(1 - q_j), v_j the share of kept groups with pass rate p_j: a
    mixture like any other. Prompts that are never mixed leave no trace in it.
    """
    n, s, c = counts.arrays
    mixed = (s > 0) & (s < n)
    if not c[mixed].sum() >= 2:
        return None
    n, s, c = n[mixed], s[mixed], c[mixed]
    nodes = arcsine_grid(GRID)[1:-1]
    pmf = count_pmf(nodes, n, s) / (1 - np.stack([degenerate_probability(nodes, int(size)) for size in n], axis=1))
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(max(2, int(c.sum() * independent)), c / c.sum(), size=draws)
    samples = np.concatenate([c[None], drawn]).astype(np.float64)
    weights = fit_weights(pmf, samples, np.full(len(nodes), 1 / len(nodes)), STEPS)
    mean = weights @ nodes
    icc = (weights @ nodes**2 - mean**2) / (mean * (1 - mean))
    return Kept(*(around(float(x[0]), x[1:]) for x in (mean, icc)))


def parts(population: Population) -> tuple[Component, ...]:
    """Every reward column of several, the one that the others serve first."""
    if not population.flat_R.shape[1]:
        return ()
    weight, total = population.weight, population.groups * population.independent
    found = []
    for name, flat in zip(population.rewards, population.flat_R.T, strict=True):
        shares = (float(weight @ hit / weight.sum()) for hit in (flat, flat & ~population.flat))
        found.append(Component(name, *(proportion(share, total) for share in shares)))
    return tuple(sorted(found, key=lambda c: MAIN.search(c.name.lower()) is None))
