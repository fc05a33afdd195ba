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
from ebpo_sim.numbers import Array
from ebpo_sim.worlds import Counts


class SplitRatio(NamedTuple):
    """E (b - p)^2 relative to the group mean's w/G, estimated without a model; se over prompts (delta method)."""

    ratio: float
    se: float


class Terms(NamedTuple):
    """What the check needs of the counts, for groups of one size: C cells, F folds, K = G + 1 counts of a group."""

    pmf_CK: Array  # of k in the group
    rest_CK: Array  # the rest's pass rate
    own_C: Array  # the group mean's error, unbiased
    held_FC: Array  # prompts in a fold
    within: float  # w/G

    def slope(self, estimator: Estimator) -> tuple[float, Array]:
        """((R(b) - R(group mean)) / (w/G), each prompt's influence on it times w/G, (F, C)).

        The difference of the two risks is unbiased given what was learnt from the other folds.
        """
        group_size = self.pmf_CK.shape[1] - 1
        k, total = np.arange(group_size + 1) / group_size, self.held_FC.sum()
        # All folds are learnt at once: they are replicate axes of one state.
        others = count_groups(group_size, (self.held_FC.sum(axis=0) - self.held_FC) @ self.pmf_CK)
        state = estimator.update(estimator.init(), others)
        table = np.broadcast_to(baseline_table(estimator, state, group_size), (len(self.held_FC), group_size + 1, 2))
        plain_CK = (k - self.rest_CK) ** 2
        error = (table[:, None] - self.rest_CK[..., None]) ** 2 - plain_CK[..., None]
        difference_FC = np.sum(self.pmf_CK[..., None] * np.stack([1 - k, k], axis=-1) * error, axis=(2, 3))
        slope = float(np.sum(self.held_FC * difference_FC)) / total / self.within
        return float(slope), difference_FC - slope * self.own_C

    def ratio(self, estimator: Estimator) -> SplitRatio:
        """Ratio 1 + (R(b) - R(group mean)) / (w/G): numerator from splits, denominator from unbiased w."""
        slope, influence_FC = self.slope(estimator)
        total = float(self.held_FC.sum())
        spread = float(np.sum(self.held_FC * influence_FC**2)) / total
        return SplitRatio(1 + slope, float(np.sqrt(spread / max(total - 1, 1)) / self.within))


def terms(counts: Counts, group_size: int, folds: int = 5) -> Terms | None:
    """Splits of the prompts with more than `group_size` rollouts; None where there is none, or no noise in them."""
    if folds < 2:
        raise InputError(f"folds must be at least 2, got {folds!r}")
    n, s, c = counts.arrays
    usable = n > group_size
    n, s, c = n[usable], s[usable], c[usable]
    k = np.arange(group_size + 1)
    own_C = s * (n - s) / (n * (n - 1)) / group_size
    if not c @ own_C > 0:
        return None
    from scipy.stats import hypergeom  # takes half a second to import

    pmf_CK = np.asarray(hypergeom.pmf(k[None, :], n[:, None], s[:, None], group_size))
    fold = np.arange(folds)[:, None]
    held_FC = _dealt(np.cumsum(c), fold, folds) - _dealt(np.cumsum(c) - c, fold, folds)
    return Terms(
        pmf_CK, (s[:, None] - k) / (n - group_size)[:, None], own_C, held_FC, float(c @ own_C) / float(c.sum())
    )


def split_ratio(estimator: Estimator, counts: Counts, group_size: int, folds: int = 5) -> SplitRatio | None:
    """`Terms.ratio`; None as `terms`."""
    parts = terms(counts, group_size, folds)
    return None if parts is None else parts.ratio(estimator)


def _dealt(prompts: Array, fold: NDArray[np.int_], folds: int) -> Array:
    """How many of the first `prompts` prompts fold number `fold` holds when they are dealt out in turn."""
    return np.asarray(np.floor((prompts + folds - 1 - fold) / folds))
