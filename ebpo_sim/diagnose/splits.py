"""The model-free check of `counts.splits`, for several baselines at once, so that they can be compared in pairs.

Each prompt with more than G rollouts is split into a group and a rest; b is made from the group and what other
prompts taught, and E (b - rest)^2 - E (group mean - rest)^2 = E (b - p)^2 - w/G exactly. Per-prompt terms are kept:
the difference of two baselines has a much smaller error than either.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ebpo_sim.counts.splits import terms
from ebpo_sim.diagnose.intervals import Estimate, bca
from ebpo_sim.estimators import Estimator, baseline_table
from ebpo_sim.groups import count_groups
from ebpo_sim.numbers import Array
from ebpo_sim.worlds import Counts

FOLDS = 5
DRAWS = 500  # bootstrap samples at most: in each, every baseline is learnt anew


class Splits(NamedTuple):
    """slope: E (b - p)^2 - w/G over w/G, for each estimator. influence: (E, F, C) per-prompt terms; held: (F, C)
    prompts of a cell in a fold. replicates: (B, E) slopes of bootstrap samples of prompts."""

    slope: Array
    influence: Array
    held: Array
    replicates: Array

    def ratio(self, e: int) -> Estimate:
        """Error of estimator `e` relative to the group mean, with its interval over prompts."""
        return self._interval(float(self.slope[e]), self.replicates[:, e], self.influence[e], 1.0)

    def gain(self, e: int, other: int) -> Estimate:
        """Ratio of `other` minus ratio of `e`, paired by prompt: above 0 where `e` is better."""
        value = float(self.slope[other] - self.slope[e])
        replicates = self.replicates[:, other] - self.replicates[:, e]
        return self._interval(value, replicates, self.influence[other] - self.influence[e], 0.0)

    def _interval(self, slope: float, replicates: Array, influence: Array, offset: float) -> Estimate:
        found = bca(slope, replicates, influence.reshape(-1), self.held.reshape(-1))
        return Estimate(*(None if x is None else x + offset for x in found))  # type: ignore[arg-type]


def split(
    estimators: Sequence[Estimator], counts: Counts, group_size: int, draws: int, seed: int, independent: float = 1.0
) -> Splits | None:
    """Splits of all prompts with more than `group_size` rollouts; None without two of them, or without any noise.

    The difference of two errors is unbiased given what was learnt from the other folds. independent: prompts per
    group; below 1 prompts recur, and intervals count each prompt once, which is wide enough for any correlation.
    """
    parts = terms(counts, group_size, FOLDS)
    if parts is None or parts.held_FC.sum() < max(2, FOLDS):
        return None
    slope, influence = zip(*map(parts.slope, estimators), strict=True)
    held = parts.held_FC * independent
    rng = np.random.default_rng(seed)
    drawn = [
        _replicates(estimators, group_size, held, parts.pmf_CK, parts.rest_CK, parts.own_C, size, rng)
        for size in _slices(min(draws, DRAWS), held.size)
    ]
    return Splits(np.array(slope), np.array(influence), held, np.concatenate(drawn))


def _replicates(
    estimators: Sequence[Estimator], group_size: int, held: Array, pmf_CK: Array, rest_CK: Array, own: Array,
    size: int, rng: np.random.Generator,
) -> Array:  # fmt: skip
    """Slopes of `size` bootstrap samples of prompts, (size, E); every sample teaches its own baselines.

    sum_c pmf (b - rest)^2 needs of the sample only sum_c pmf and sum_c pmf rest, for each k.
    """
    k = np.arange(group_size + 1)
    share = np.stack([1 - k / group_size, k / group_size], axis=-1)
    chosen = rng.multinomial(round(held.sum()), (held / held.sum()).reshape(-1), size=size).astype(np.float64)
    chosen_BFC = chosen.reshape(size, *held.shape)
    weight, rest = chosen_BFC @ pmf_CK, chosen_BFC @ (pmf_CK * rest_CK)
    others = count_groups(group_size, weight.sum(axis=1, keepdims=True) - weight)
    within = chosen_BFC.sum(axis=1) @ own
    plain = np.sum((k / group_size) ** 2 * weight - 2 * k / group_size * rest, axis=(1, 2))
    out = []
    for estimator in estimators:
        state = estimator.update(estimator.init(), others)
        table = np.broadcast_to(baseline_table(estimator, state, group_size), (*weight.shape, 2))
        error = np.sum(share * (table**2 * weight[..., None] - 2 * table * rest[..., None]), axis=(1, 2, 3))
        out.append(np.where(within > 0, (error - plain) / np.where(within > 0, within, 1.0), np.nan))
    return np.stack(out, axis=1)


def _slices(draws: int, cells: int) -> list[int]:
    """Sizes of the parts in which `draws` samples are drawn, so that memory stays small."""
    part = max(1, 2_000_000 // max(cells, 1))
    return [min(part, draws - start) for start in range(0, draws, part)]
