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
    from scipy.stats import hypergeom  # takes half a second to import

    pmf_CK = np.asarray(hypergeom.pmf(k[None, :], n[:, None], s[:, None], group_size))
    rest_CK = (s[:, None] - k) / (n - group_size)[:, None]
    share = np.stack([1 - k / group_size, k / group_size], axis=-1)
    plain_K = np.broadcast_to((k / group_size)[:, None], (group_size + 1, 2))
    own_within_C = s * (n - s) / (n * (n - 1)) / group_size
    fold = np.arange(folds)[:, None]
    held_FC = _dealt(np.cumsum(c), fold, folds) - _dealt(np.cumsum(c) - c, fold, folds)
    # All folds are learnt at once: they are replicate axes of one state.
    state = estimator.update(estimator.init(), count_groups(group_size, (c - held_FC) @ pmf_CK))
    table = baseline_table(estimator, state, group_size)
    table_FK2 = np.broadcast_to(table, (folds, group_size + 1, 2))
    error = (table_FK2[:, None] - rest_CK[..., None]) ** 2 - (plain_K[None] - rest_CK[..., None]) ** 2
    difference_FC = np.sum(pmf_CK[..., None] * share[None] * error, axis=(2, 3))
    total = float(c.sum())
    within = float(c @ own_within_C) / total
    if within <= 0:
        return None
    slope = float(np.sum(held_FC * difference_FC)) / total / within
    # One prompt's influence on the ratio is (its difference - slope * its own within) / within.
    influence_FC = difference_FC - slope * own_within_C
    spread = float(np.sum(held_FC * influence_FC**2)) / total
    return SplitRatio(1 + slope, float(np.sqrt(spread / max(total - 1, 1)) / within))


def _dealt(prompts: Array, fold: NDArray[np.int_], folds: int) -> Array:
    """How many of the first `prompts` prompts fold number `fold` holds when they are dealt out in turn."""
    return np.asarray(np.floor((prompts + folds - 1 - fold) / folds))
