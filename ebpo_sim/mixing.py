"""Binomial mixtures: a discrete prior of success probabilities, its likelihood, its fit, its posterior mean.

With rewards Bernoulli(p) and p drawn from `weights` on `nodes`, a group of size G has k successes with
probability sum_j weights_j C(G,k) p_j^k (1-p_j)^(G-k).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln, xlog1py, xlogy

from ebpo_sim.errors import InputError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Prior:
    """A distribution of p in [0, 1] as nodes and weights: a discrete law, or a quadrature rule for a smooth one.

    E f(p) = sum_j weights_j f(nodes_j). Moments: mean = E p, within = E p(1-p), between = Var p.
    Raises InputError unless nodes lie in [0, 1] and weights are >= 0 and sum to 1 within 1e-9.
    """

    nodes: tuple[float, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        nodes, weights = np.asarray(self.nodes), np.asarray(self.weights)
        if nodes.ndim != 1 or nodes.shape != weights.shape or len(nodes) == 0:
            raise InputError(f"prior needs as many weights as nodes, at least one, got {nodes.shape} and {weights.shape}")
        if not (np.all((nodes >= 0) & (nodes <= 1)) and np.all(weights >= 0) and abs(weights.sum() - 1) < 1e-9):
            raise InputError("prior needs nodes in [0, 1] and weights >= 0 that sum to 1")

    @property
    def mean(self) -> float:
        return float(np.dot(self.weights, self.nodes))

    @property
    def within(self) -> float:
        p = np.asarray(self.nodes)
        return float(np.dot(self.weights, p * (1 - p)))

    @property
    def between(self) -> float:
        return float(np.dot(self.weights, (np.asarray(self.nodes) - self.mean) ** 2))


def count_pmf(nodes: ArrayLike, trials: ArrayLike, successes: ArrayLike) -> Array:
    """P(k | n, p) = C(n,k) p^k (1-p)^(n-k), shape (J, C): a row for each node, a column for each (n, k) pair."""
    n, k = np.asarray(trials, dtype=np.float64), np.asarray(successes, dtype=np.float64)
    p = np.asarray(nodes, dtype=np.float64)[:, None]
    log_choose = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return np.asarray(np.exp(log_choose + xlogy(k, p) + xlog1py(n - k, -p)))


def arcsine_grid(size: int) -> tuple[Array, Array]:
    """`size` points p = sin^2(theta), theta equally spaced on [0, pi/2], with the weights of a uniform p.

    The arcsine scale makes a binomial's noise equal everywhere, so the grid is finest near 0 and 1.
    """
    edges = np.sin(np.pi / 2 * (np.arange(size + 1) - 0.5).clip(0, size - 1) / (size - 1)) ** 2
    nodes = np.sin(np.pi / 2 * np.arange(size) / (size - 1)) ** 2
    return nodes, np.diff(edges)


def fit_weights(pmf_JC: Array, counts_C: Array, start_J: Array, iterations: int) -> Array:
    """EM for the mixing weights: w_j <- w_j sum_c (counts_c / N) pmf_jc / (sum_j w_j pmf_jc).

    counts_C may have leading replicate axes; the result has them too. The likelihood never falls; without any
    counts the start is returned. Towards the nonparametric maximum-likelihood prior (Kiefer-Wolfowitz, Laird).
    """
    total = counts_C.sum(axis=-1, keepdims=True)
    shares_C = counts_C / np.where(total > 0, total, 1.0)
    weights = np.broadcast_to(start_J, (*counts_C.shape[:-1], len(start_J)))
    if not np.any(total > 0):
        return np.array(weights)
    for _ in range(iterations):
        mixture_C = weights @ pmf_JC
        ratio_C = np.divide(shares_C, mixture_C, out=np.zeros_like(shares_C), where=shares_C > 0)
        weights = weights * np.where(total > 0, ratio_C @ pmf_JC.T, 1.0)
    return np.asarray(weights)


def posterior_mean(nodes: Array, weights: Array, group_size: int) -> Array:
    """E[p | k of G] for k = 0..G, shape (..., G+1); where k is impossible under the prior, the prior mean."""
    k = np.arange(group_size + 1)
    pmf = count_pmf(nodes, group_size, k)
    evidence = weights @ pmf
    numerator = (weights * nodes) @ pmf
    mean = np.sum(weights * nodes, axis=-1)[..., None]
    return np.asarray(np.where(evidence > 0, numerator / np.where(evidence > 0, evidence, 1.0), mean))
