"""Score norms of the log by pass rate, as a model of them for `counts.noise`.

A right rollout of a group with k of n right has E[W | r = 1, k] = E[a(p) | k], W its squared score norm. With a(p) a
quadratic this is a_0 + a_1 E[p | k] + a_2 E[p^2 | k], so least squares on the posterior moments of the deconvolved
prior is unbiased for it, where rates k/n in the place of p would flatten it; c(p) of wrong rollouts alike. What norms
cannot tell is how much of a score all right, or all wrong, answers have in common: `SHARE`, as under equal scores.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ebpo_sim.counts.noise import SHARE, Model, Scores
from ebpo_sim.diagnose.intervals import redrawn
from ebpo_sim.diagnose.population import Population
from ebpo_sim.numbers import Array
from ebpo_sim.numbers.mixing import Prior, count_pmf

POWERS = 3  # 1, p, p^2
LEAST, FEW = 0.05, 50  # of the mean norm, at which a line is cut; right and wrong rollouts below which there is none


class Norms(NamedTuple):
    """Models of the norms: of the log, and of bootstrap samples of its prompts. of: the role of their column."""

    of: str
    model: Model
    drawn: tuple[Model, ...]


def fitted(population: Population, prior: Prior, draws: int, seed: int) -> Norms | None:
    """The log's norms by pass rate; None where it has none, or too few right or wrong rollouts with one."""
    known = population.norms_P2
    if known is None or population.successes is None:
        return None
    kept = np.isfinite(known).all(axis=1)
    n, k, norms_P2 = population.n[kept], population.successes[kept], known[kept]
    many_P2 = np.stack([n - k, k], axis=1)
    if many_P2.sum(axis=0).min() < FEW or not norms_P2.sum(axis=0).min() > 0:
        return None
    basis_PJ = _posterior(prior, n, k)
    squares = [(m[:, None, None] * basis_PJ[:, :, None] * basis_PJ[:, None, :]).reshape(len(n), -1) for m in many_P2.T]
    crosses = [norm[:, None] * basis_PJ for norm in norms_P2.T]
    terms = np.concatenate([*squares, *crosses, norms_P2, many_P2], axis=1)
    _, prompt = np.unique(population.prompt[kept], return_inverse=True)
    sums = np.stack([np.bincount(prompt, column) for column in terms.T], axis=1).astype(np.float64)
    drawn = redrawn(sums, np.ones(len(sums)), draws, np.random.default_rng(seed))
    return Norms(population.norms_of, _model(sums.sum(axis=0)), tuple(map(_model, drawn)))


def _posterior(prior: Prior, n: Array, k: Array) -> Array:
    """E[p^j | k of n], j = 0, 1, 2, a row a group."""
    cells, inverse = np.unique(np.stack([n, k], axis=1), axis=0, return_inverse=True)
    nodes, weights = np.asarray(prior.nodes), np.asarray(prior.weights)
    joint = weights[:, None] * count_pmf(nodes, cells[:, 0], cells[:, 1])
    moments = np.stack([nodes**j @ joint for j in range(POWERS)], axis=1)
    return np.asarray((moments / np.maximum(moments[:, :1], 1e-300))[inverse.reshape(-1)])


def _model(sums: Array) -> Model:
    """The model of score norms from its normal equations."""
    cut = POWERS**2
    squares = sums[: 2 * cut].reshape(2, POWERS, POWERS)
    crosses = sums[2 * cut : 2 * cut + 2 * POWERS].reshape(2, POWERS)
    mean = sums[-4:-2].sum() / max(sums[-2:].sum(), 1.0)
    wrong, right = (np.linalg.lstsq(s, c, rcond=1e-9)[0] for s, c in zip(squares, crosses, strict=True))

    def model(p: ArrayLike) -> Scores:
        basis = np.asarray(p, dtype=np.float64)[..., None] ** np.arange(POWERS)
        a, c = (np.maximum(basis @ line, LEAST * mean) for line in (right, wrong))
        return Scores(a, c, np.full_like(a, SHARE * mean))

    return model
