"""What needs the distribution of p and not only its moments: zero-signal groups, and rules that are no line.

The distribution is deconvolved from binary counts; its uncertainty is that of the same fit (fewer steps) on bootstrap
samples of the prompts. n rollouts a prompt determine n moments of p and no more, so at G above n a rule's error would
rest on the smoothness of the fit alone and is not given.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import gammaln

from ebpo_sim.counts.exact import POPULATION, limit_risk
from ebpo_sim.diagnose.intervals import Estimate, around, proportion
from ebpo_sim.estimators import Estimator, baseline_table
from ebpo_sim.groups import count_groups
from ebpo_sim.numbers import Array, formulas
from ebpo_sim.numbers.mixing import Prior, arcsine_grid, beta_on_grid, count_pmf, fit_weights
from ebpo_sim.worlds import Counts, Points, deconvolve
from ebpo_sim.worlds.counts import MOST_CELLS

GRID, STEPS, CELLS = 101, 300, 600


class Shape(NamedTuple):
    """The deconvolved prior, and the same fit on bootstrap samples: weights (B, J) on nodes (J,)."""

    prior: Prior
    nodes: Array
    weights: Array


def shape(counts: Counts, draws: int, seed: int, independent: float = 1.0) -> Shape | None:
    """The prior behind the counts with `draws` replicates; None where it is all or nothing, as the unbiased moments of
    few prompts can be, and for more different counts than can be deconvolved."""
    if len(counts.prompts) > MOST_CELLS:
        return None
    prior = deconvolve(counts)
    if prior.within <= 1e-12:
        return None
    n, s, c = counts.arrays
    nodes = arcsine_grid(GRID)
    if len(c) > CELLS:
        draws = max(20, draws * CELLS // len(c))
    drawn = (
        np.random.default_rng(seed)
        .multinomial(max(2, int(c.sum() * independent)), c / c.sum(), size=draws)
        .astype(np.float64)
    )
    start = beta_on_grid(prior.mean, max(prior.between, 1e-9), nodes)
    return Shape(prior, nodes, fit_weights(count_pmf(nodes, n, s), drawn, start, STEPS))


def refitted(counts: Counts, found: Shape, draws: int, seed: int, independent: float = 1.0) -> list[Prior]:
    """The prior of `draws` bootstrap samples of the prompts, each deconvolved as the prior itself was: the quicker fits
    of `found` are smoother, and gradient noise varies a third less over them than it should. They stand in where there
    are too many different counts."""
    n, s, c = counts.arrays
    if len(c) > CELLS // 4:
        kept = [w > 1e-9 for w in found.weights[:draws]]
        pairs = zip(found.weights, kept, strict=False)
        return [Prior(tuple(found.nodes[k].tolist()), tuple((w[k] / w[k].sum()).tolist())) for w, k in pairs]
    total = max(2, int(c.sum() * independent))
    made = []
    for drawn in np.random.default_rng([seed, 1]).multinomial(total, c / c.sum(), size=draws):
        k = drawn > 0
        sample = Counts(*(tuple(x[k].astype(np.int64).tolist()) for x in (n, s, drawn)))
        prior = deconvolve(sample)
        made += [prior] if prior.within > 1e-12 else []
    return made


def zero_signal(
    counts: Counts | None, found: Shape | None, group_size: int, independent: float = 1.0
) -> tuple[Estimate, str] | None:
    """P(all G rewards equal) with its interval, and how it was found.

    Where every prompt has G rollouts: "counted", avg [C(s, G) + C(n-s, G)]/C(n, G), unbiased. Otherwise "modelled".
    """
    if counts is None:
        return None
    n, s, c = counts.arrays
    if n.min() >= group_size:
        each = _all_of(s, n, group_size) + _all_of(n - s, n, group_size)
        total = float(c.sum())
        value = float(c @ each / total)
        if np.all(each == each[0]):  # no spread is no certainty
            return proportion(float(each[0]), total * independent), "counted"
        variance = float(c @ (each - value) ** 2 / total / max(total * independent - 1, 1))
        return proportion(value, value * (1 - value) / variance), "counted"  # as of so many groups that are or are not
    if found is None:
        return None
    value = float(np.dot(found.prior.weights, formulas.degenerate_probability(np.array(found.prior.nodes), group_size)))
    replicates = found.weights @ formulas.degenerate_probability(found.nodes, group_size)
    return around(value, replicates).clipped(0, 1), "modelled"


def curved_ratio(estimator: Estimator, counts: Counts, found: Shape, group_size: int) -> Estimate | None:
    """Long-run error of a rule that is no line, relative to the group mean; None where n determines too little."""
    n, _, c = counts.arrays
    if c[n > group_size].sum() < 0.5 * c.sum() or not found.prior.within > 0:
        return None
    world = Points("deconvolved", found.prior)
    value = limit_risk(estimator, world, group_size).mse / (found.prior.within / group_size)
    k = np.arange(group_size + 1)
    pmf = count_pmf(found.nodes, group_size, k)
    state = estimator.update(estimator.init(), count_groups(group_size, POPULATION * (found.weights @ pmf)))
    table = np.broadcast_to(baseline_table(estimator, state, group_size), (len(found.weights), group_size + 1, 2))
    share = np.stack([1 - k / group_size, k / group_size], axis=-1)
    error = np.sum(share * (table[:, None] - found.nodes[:, None, None]) ** 2, axis=-1)
    mse = np.einsum("bj,jk,bjk->b", found.weights, pmf, error)
    within = found.weights @ (found.nodes * (1 - found.nodes)) / group_size
    ratios = mse[within > 0] / within[within > 0]
    return around(value, ratios) if len(ratios) > 10 else Estimate(value, None, None)


def _all_of(good: Array, n: Array, group_size: int) -> Array:
    """C(good, G)/C(n, G): the chance that G of n rollouts, drawn without replacement, are all among the good."""
    kept = np.maximum(good, group_size)
    log = gammaln(kept + 1) - gammaln(kept - group_size + 1) - gammaln(n + 1) + gammaln(n - group_size + 1)
    return np.asarray(np.where(good >= group_size, np.exp(log), 0.0))


def advantage_gap(prior: Prior, group_size: int) -> list[float]:
    """[least, greatest] delta(p) = E[A | r=1] - E[A | r=0] under GRPO's group std, over the middle 90 % of the prompts
    with 0.01 < p < 0.99, in order of delta. A constant delta moves every prompt at the same pace."""
    nodes, weights = np.asarray(prior.nodes), np.asarray(prior.weights)
    inner = (nodes > 0.01) & (nodes < 0.99)
    if weights[inner].sum() < 0.01 or group_size < 2:
        return []
    p = nodes[inner]
    k = np.arange(1, group_size)
    right = np.asarray(formulas.grpo_advantage_right(k, group_size, 1))
    wrong = np.asarray(formulas.grpo_advantage_wrong(k, group_size, 1))
    joint = count_pmf(p, group_size, k)
    rewarded = (joint * right * k / group_size).sum(axis=1) / p
    failed = (joint * wrong * (1 - k / group_size)).sum(axis=1) / (1 - p)
    gap = rewarded - failed
    ends: list[float] = np.quantile(gap, (0.05, 0.95), weights=weights[inner], method="inverted_cdf").tolist()
    return ends
