"""The model-free check on real rollout counts: no distribution of p is assumed.

A prompt with n rollouts is split at random into a group of G and a rest of n - G. The rest's pass rate is an
independent, unbiased estimate of p, so for a baseline b made from the group

    E (b - rest)^2 = E (b - p)^2 + E Var(rest | p),

and the last term cancels in the difference of two baselines. The expectation over splits is exact: k of the
group is hypergeometric. What an estimator learnt comes from other prompts (cross-fitting), so nothing leaks.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import hypergeom

from ebpo_sim.errors import InputError
from ebpo_sim.estimators import Estimator, baseline_table
from ebpo_sim.groups import count_groups
from ebpo_sim.worlds import Counts

Array = NDArray[np.float64]


class SplitRatio(NamedTuple):
    """E (b - p)^2 relative to the group mean's w/G, estimated without a model; se over prompts (delta method)."""

    ratio: float
    se: float


def split_ratio(estimator: Estimator, counts: Counts, group_size: int, folds: int = 5) -> SplitRatio | None:
    """Ratio 1 + (R(b) - R(group mean)) / (w/G): numerator from splits, denominator from unbiased w.

    None when no prompt has more than `group_size` rollouts (such prompts are left out). The difference of the
    two risks is unbiased given what was learnt from the other folds.
    """
    if folds < 2:
        raise InputError(f"folds must be at least 2, got {folds!r}")
    n, s, c = counts.arrays
    usable = n > group_size
    if not np.any(usable):
        return None
    n, s, c = n[usable], s[usable], c[usable]
    k = np.arange(group_size + 1)
    pmf_CK = hypergeom.pmf(k[None, :], n[:, None], s[:, None], group_size)
    rest_CK = (s[:, None] - k) / (n - group_size)[:, None]
    share = np.stack([1 - k / group_size, k / group_size], axis=-1)
    plain_K = np.broadcast_to((k / group_size)[:, None], (group_size + 1, 2))
    own_within_C = s * (n - s) / (n * (n - 1)) / group_size
    total = c.sum()
    sum_difference = sum_within = 0.0
    moments = np.zeros((2, 2))
    for fold in range(folds):
        held_C = _fold_sizes(c, fold, folds)
        learnt_K = (c - held_C) @ pmf_CK
        if learnt_K.sum() == 0 or held_C.sum() == 0:
            continue
        state = estimator.update(estimator.init(), count_groups(group_size, learnt_K))
        table = baseline_table(estimator.baseline, state, group_size)
        error = (table[None] - rest_CK[..., None]) ** 2 - (plain_K[None] - rest_CK[..., None]) ** 2
        difference_C = np.sum(pmf_CK[..., None] * share[None] * error, axis=(1, 2))
        pair = np.stack([difference_C, own_within_C])
        sum_difference += float(held_C @ difference_C)
        sum_within += float(held_C @ own_within_C)
        moments += (pair * held_C) @ pair.T
    if sum_within <= 0:
        return None
    slope = sum_difference / sum_within
    # Variance over prompts of difference - slope * within, the influence of one prompt on the ratio.
    gradient = np.array([1.0, -slope])
    spread = max(float(gradient @ moments @ gradient) / total, 0.0)
    return SplitRatio(1 + slope, float(np.sqrt(spread / max(total - 1, 1)) / (sum_within / total)))


def _fold_sizes(c: Array, fold: int, folds: int) -> Array:
    """How many prompts of each cell belong to `fold`: whole prompts, dealt out in turn through all cells."""
    ends = np.cumsum(c)
    deal = lambda x: np.floor((x + folds - 1 - fold) / folds)  # noqa: E731
    return np.asarray(deal(ends) - deal(ends - c))
