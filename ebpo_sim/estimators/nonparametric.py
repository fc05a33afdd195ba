"""The posterior mean under a prior that is known (the Bayes oracle) or learnt without a parametric form."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ebpo_sim.errors import InputError
from ebpo_sim.estimators import components
from ebpo_sim.estimators.base import Domain, Evaluation
from ebpo_sim.estimators.components import Memory
from ebpo_sim.groups import Groups
from ebpo_sim.mixing import Prior, arcsine_grid, count_pmf, fit_weights, posterior_mean

Array = NDArray[np.float64]
Histograms = dict[str, Array]  # group size -> how many groups had k = 0..size successes, (..., size+1)


@dataclass(frozen=True)
class PosteriorMean:
    """V = E[p | k of n], the Bayes-optimal baseline for binary rewards, not a line in k.

    prior: the true prior (oracle), or None: the mixing distribution is fitted by `iterations` EM steps on an
    arcsine grid of `grid` points, from a uniform p, to the running histograms of success counts (all group
    sizes together; groups of one included). State: size+1 numbers per group size. A group of size n determines
    only the prior's first n moments, so at n = 2 the rest is the start's and it can lose to a line.
    memory as in `Shrinkage`. Before any group the prior is the uniform start, V = (k+1)/(n+2) nearly.
    Source: Robbins 1956; Kiefer and Wolfowitz 1956; theory item 7 of this project.
    """

    prior: Prior | None = None
    memory: Memory = "cumulative"
    grid: int = 65
    iterations: int = 200

    domain: ClassVar[Domain] = "binary"

    def __post_init__(self) -> None:
        components.retention(self.memory)
        if self.grid < 3 or self.iterations < 0:
            raise InputError(f"grid must be >= 3 and iterations >= 0, got {self.grid!r} and {self.iterations!r}")

    def init(self) -> Histograms:
        return {}

    def observe(self, groups: Groups) -> Histograms:
        if self.prior is not None:
            return {}
        successes_P = np.rint(groups.mean_P * groups.size_P)
        found: Histograms = {}
        for size in np.unique(groups.size_P[groups.size_P > 0]).astype(int):
            hit_PK = (groups.size_P == size)[..., None] & (successes_P[..., None] == np.arange(size + 1))
            found[str(size)] = np.sum(groups.multiplicity_P[..., None] * hit_PK, axis=-2)
        return found

    def forget(self, state: Histograms) -> Histograms:
        keep = components.retention(self.memory)
        return {} if keep == 0.0 else {n: counts * keep for n, counts in state.items()}

    def merge(self, a: Histograms, b: Histograms) -> Histograms:
        zero = np.zeros(())
        return {n: a.get(n, zero) + b.get(n, zero) for n in sorted({*a, *b}, key=int)}

    def fitted(self, state: Histograms) -> tuple[Array, Array]:
        """(nodes, weights) of the prior in use: the given one, or the fit to the state."""
        if self.prior is not None:
            return np.asarray(self.prior.nodes), np.asarray(self.prior.weights)
        nodes, start = arcsine_grid(self.grid)
        if not state:
            return nodes, start
        pmf_JC = np.concatenate([_grid_pmf(self.grid, int(n)) for n in state], axis=1)
        return nodes, fit_weights(pmf_JC, np.concatenate(list(state.values()), axis=-1), start, self.iterations)

    def evaluate(self, state: Histograms, groups: Groups) -> Evaluation:
        nodes, weights = self.fitted(state)
        lead = weights.shape[:-1]
        baseline_P = np.zeros((*lead, *groups.size_P.shape[-1:]))
        variance_P = np.zeros_like(baseline_P)
        successes_P = np.rint(groups.mean_P * groups.size_P).astype(int)
        prior_mean = np.sum(weights * nodes, axis=-1)[..., None]
        for size in np.unique(groups.size_P).astype(int):
            table = posterior_mean(nodes, weights, size)
            marginal = weights @ count_pmf(nodes, size, np.arange(size + 1))
            share = np.arange(size + 1) / max(size, 1)
            spread = np.sum(marginal * (share * (1 - table) ** 2 + (1 - share) * table**2), axis=-1)[..., None]
            here_P = groups.size_P == size
            baseline_P = np.where(here_P, table[..., np.where(here_P, successes_P, 0)], baseline_P)
            variance_P = np.where(here_P, spread, variance_P)
        weight_P = groups.multiplicity_P * groups.size_P
        raw_variance = np.sum(weight_P * variance_P, axis=-1) / np.maximum(np.sum(weight_P, axis=-1), 1e-300)
        return Evaluation(baseline_P[..., None], None, np.broadcast_to(prior_mean, baseline_P.shape), raw_variance)


@lru_cache(maxsize=256)
def _grid_pmf(grid: int, size: int) -> Array:
    return count_pmf(arcsine_grid(grid)[0], size, np.arange(size + 1))
