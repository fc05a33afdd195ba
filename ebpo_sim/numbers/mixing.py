"""Binomial mixtures: a discrete prior of success probabilities, its likelihood, its fit, its posterior mean.

With rewards Bernoulli(p) and p drawn from `weights` on `nodes`, a group of size G has k successes with
probability sum_j weights_j C(G,k) p_j^k (1-p_j)^(G-k).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betainc, gammaln, xlog1py, xlogy

from ebpo_sim.errors import InputError
from ebpo_sim.numbers import Array


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
            raise InputError(
                f"prior needs as many weights as nodes, at least one, got {nodes.shape} and {weights.shape}"
            )
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


def arcsine_grid(size: int) -> Array:
    """`size` points p = sin^2(theta), theta equally spaced on [0, pi/2], 0 and 1 included.

    The arcsine scale makes a binomial's noise equal everywhere, so the grid is finest near 0 and 1.
    """
    return np.asarray(np.sin(np.pi / 2 * np.arange(size) / (size - 1)) ** 2)


def beta_on_grid(mean: ArrayLike, between: ArrayLike, nodes: Array) -> Array:
    """Weights on `nodes` of the Beta prior with this mean and variance, shape (..., J).

    Every p is shared between its two neighbours so that the mean is kept exactly. mean is held inside
    (0, 1) and a + b = mean (1 - mean)/between - 1 inside [1e-3, 1e4].
    """
    m = np.clip(np.asarray(mean, dtype=np.float64), 1e-9, 1 - 1e-9)[..., None]
    v = np.asarray(between, dtype=np.float64)[..., None]
    nu = np.clip(m * (1 - m) / np.maximum(v, 1e-300) - 1, 1e-3, 1e4)
    mass = np.diff(betainc(m * nu, (1 - m) * nu, nodes), axis=-1)
    moment = m * np.diff(betainc(m * nu + 1, (1 - m) * nu, nodes), axis=-1)
    to_right = np.clip((moment - nodes[:-1] * mass) / np.diff(nodes), 0.0, mass)
    weights = np.zeros((*mass.shape[:-1], len(nodes)))
    weights[..., :-1] += mass - to_right
    weights[..., 1:] += to_right
    return weights


def fit_weights(pmf_JC: Array, counts_C: Array, start_J: Array, iterations: int) -> Array:
    """EM for the mixing weights: w_j <- w_j sum_c (counts_c / N) pmf_jc / (sum_j w_j pmf_jc).

    counts_C and start_J may have leading replicate axes. The likelihood never falls; without any counts the
    start is returned. Towards the nonparametric maximum-likelihood prior (Kiefer and Wolfowitz 1956; Laird 1978).
    """
    total = counts_C.sum(axis=-1, keepdims=True)
    shares_C = counts_C / np.where(total > 0, total, 1.0)
    weights = np.array(np.broadcast_to(start_J, (*counts_C.shape[:-1], start_J.shape[-1])))
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
