"""The posterior mean under a prior that is known (the Bayes oracle) or learnt without a parametric form."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np

from ebpo_sim import typed
from ebpo_sim.errors import InputError
from ebpo_sim.estimators import components
from ebpo_sim.estimators.components import Memory
from ebpo_sim.estimators.transforms.base import Domain, Evaluation
from ebpo_sim.groups import Groups, binary_groups
from ebpo_sim.numbers import Array
from ebpo_sim.numbers.mixing import Prior, arcsine_grid, beta_on_grid, count_pmf, fit_weights, posterior_mean

Histograms = dict[str, Array]  # group size -> how many groups had k = 0..size successes, (..., size+1)


@dataclass(frozen=True)
class PosteriorMean(typed.Settings):
    """V = E[p | k of n], the Bayes-optimal baseline for binary rewards, not a line in k.

    prior: the true prior (oracle), or None: the mixing distribution is learnt from the running histograms of
    success counts (all group sizes together) by `iterations` EM steps on an arcsine grid of `grid` points. EM
    starts from the Beta prior with the unbiased mean and between variance, whose posterior mean is the best
    line: a group of size n determines only the prior's first n moments, so at n = 2 the line is what is left,
    and few steps keep the noise of a short history out. State: size+1 numbers per group size.
    memory as in `Shrinkage`. Before any group the prior is uniform, V = (k+1)/(n+2) nearly.
    Source: Robbins 1956; Kiefer and Wolfowitz 1956; start and early stopping are ours.
    """

    prior: Prior | None = None
    memory: Memory = "cumulative"
    grid: int = 65
    iterations: int = 20

    domain: ClassVar[Domain] = "binary"

    def check_settings(self) -> None:
        components.retention(self.memory)
        if not 3 <= self.grid <= 4097 or not 0 <= self.iterations <= 10_000:
            raise InputError(
                "grid must lie between 3 and 4097 and iterations between 0 and 10000, "
                f"got {self.grid!r} and {self.iterations!r}"
            )

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
        nodes = arcsine_grid(self.grid)
        uniform = beta_on_grid(0.5, 1 / 12, nodes)
        if not state:
            return nodes, uniform
        counts_C = np.concatenate(list(state.values()), axis=-1)
        sizes_C = np.concatenate([np.full(int(n) + 1, float(n)) for n in state])
        successes_C = np.concatenate([np.arange(int(n) + 1.0) for n in state])
        pmf_JC = np.concatenate([_grid_pmf(self.grid, int(n)) for n in state], axis=1)
        fitted = beta_on_grid(*_moments(counts_C, sizes_C, successes_C), nodes)
        start = np.where(counts_C.sum(axis=-1, keepdims=True) > 0, fitted, uniform)
        return nodes, fit_weights(pmf_JC, counts_C, start, self.iterations)

    def evaluate(self, state: Histograms, groups: Groups) -> Evaluation:
        nodes, weights = self.fitted(state)
        lead = np.broadcast_shapes(weights.shape[:-1], groups.size_P.shape[:-1])
        baseline_P = np.zeros((*lead, groups.size_P.shape[-1]))
        variance_P = np.zeros_like(baseline_P)
        successes_P = np.rint(groups.mean_P * groups.size_P).astype(int)
        prior_mean = np.sum(weights * nodes, axis=-1)[..., None]
        for size in np.unique(groups.size_P).astype(int):
            table = posterior_mean(nodes, weights, size)
            marginal = weights @ count_pmf(nodes, size, np.arange(size + 1))
            share = np.arange(size + 1) / max(size, 1)
            spread = np.sum(marginal * (share * (1 - table) ** 2 + (1 - share) * table**2), axis=-1)[..., None]
            here_P = groups.size_P == size
            index_P = np.broadcast_to(np.where(here_P, successes_P, 0), baseline_P.shape)
            said_P = np.take_along_axis(np.broadcast_to(table, (*lead, size + 1)), index_P, axis=-1)
            baseline_P = np.where(here_P, said_P, baseline_P)
            variance_P = np.where(here_P, spread, variance_P)
        weight_P = groups.multiplicity_P * groups.size_P
        raw_variance = np.sum(weight_P * variance_P, axis=-1) / np.maximum(np.sum(weight_P, axis=-1), 1e-300)
        return Evaluation(
            baseline_P[..., None], None, np.broadcast_to(prior_mean, baseline_P.shape), lambda: raw_variance
        )


def _moments(counts_C: Array, sizes_C: Array, successes_C: Array) -> tuple[Array, Array]:
    """Mean and unbiased (clipped) between variance of p, by the same components as linear shrinkage."""
    known = components.observe(binary_groups(sizes_C, successes_C, counts_C))
    return np.asarray(known.means.mean), np.asarray(components.between_variance(known))


@lru_cache(maxsize=256)
def _grid_pmf(grid: int, size: int) -> Array:
    return count_pmf(arcsine_grid(grid), size, np.arange(size + 1))
