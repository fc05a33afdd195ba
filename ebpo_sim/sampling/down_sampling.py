"""Down-sampling: train on those rollouts whose rewards, or advantages, differ most, and forget the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ebpo_sim.errors import InputError
from ebpo_sim.groups import Groups
from ebpo_sim.numbers import Array
from ebpo_sim.part import Draw, Need, Stateless
from ebpo_sim.sampling.base import Kept

_NEEDS: frozenset[Need] = frozenset({"batch_choice", "log_probs"})  # counts do not tell a group's rollouts apart


def widest(values_N: Array, keep: int) -> NDArray[np.bool_]:
    """Which `keep` of the values have the largest variance: the lowest and the highest, in the numbers that are best.

    Of equal values the first are taken, of equal splits the one with the fewest low ones.
    """
    count = len(values_N)
    if keep >= count:
        return np.ones(count, dtype=bool)
    order = np.argsort(values_N, kind="stable")
    ordered = values_N[order] - values_N.mean()
    sums, squares = (np.concatenate([[0.0], np.cumsum(x)]) for x in (ordered, ordered**2))
    low = np.arange(keep + 1)  # how many from below
    total, square = (x[low] + x[-1] - x[count - keep + low] for x in (sums, squares))
    variance = square / keep - (total / keep) ** 2
    best = int(np.argmax(variance > variance.max() - 1e-12 * max(1.0, float(variance.max()))))
    chosen = np.zeros(count, dtype=bool)
    chosen[np.concatenate([order[:best], order[count - keep + best :]])] = True
    return chosen


@dataclass(frozen=True)
class PODS(Stateless):
    """Of each group the `keep` rollouts whose rewards have the largest variance; smaller groups stay whole.

    The estimator sees the kept alone, so their mean and spread are those of a group that was made as unlike as can be:
    with 0/1 rewards half of it is right where there are enough of both. keep: 4 is ours; the paper keeps 16 of 64.
    Source: arXiv 2504.13818, max-variance down-sampling.
    """

    keep: int = 4

    needs: ClassVar[frozenset[Need]] = _NEEDS
    after: ClassVar = False
    batches: ClassVar = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep < 1:
            raise InputError(f"pods keep must be at least 1, got {self.keep}: 4 of 16 rollouts, say")

    def weigh(self, state: object, groups: Groups, advantage_PG: Array | None, draw: Draw) -> Kept:
        """Rollouts of every group."""
        keep_PG = np.zeros(groups.rewards_PG.shape, dtype=bool)
        for row, mask, rewards in zip(keep_PG, _masks(groups), groups.rewards_PG, strict=True):
            row[mask] = widest(rewards[mask], self.keep)
        return Kept(keep_PG)


@dataclass(frozen=True)
class _Share(Stateless):
    """A selection after scoring that keeps a share of the rollouts, in (0, 1]. Raises InputError for another share."""

    share: float = 0.5

    named: ClassVar[str] = ""
    needs: ClassVar[frozenset[Need]] = _NEEDS
    after: ClassVar = True
    batches: ClassVar = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share <= 1:
            raise InputError(f"{self.named} share must lie in (0, 1], got {self.share}: 0.5 keeps half of the rollouts")


@dataclass(frozen=True)
class MaxVariance(_Share):
    """Of the whole batch the `share` of rollouts whose advantages have the largest variance.

    The rollouts of D3S (arXiv 2509.22115), which goes on to choose tokens by |A| H and has a schedule of shares that
    is not public: this is its first part, at a share of ours.
    """

    named: ClassVar = "max_variance"

    def weigh(self, state: object, groups: Groups, advantage_PG: Array | None, draw: Draw) -> Kept:
        """Rollouts from anywhere in the batch, at least one."""
        assert advantage_PG is not None  # since `after`
        mask_PG = _masks(groups)
        keep_PG = np.zeros(mask_PG.shape, dtype=bool)
        keep_PG[mask_PG] = widest(advantage_PG[mask_PG], max(1, round(self.share * int(mask_PG.sum()))))
        return Kept(keep_PG)


@dataclass(frozen=True)
class CPPO(_Share):
    """Of each group the rollouts with the largest |A|, max(1, round(share * its size)) of them.

    They are not weighed up, so the expected update is another, and where a group's advantages cancel over an answer's
    shared beginning those of the kept no longer do. share: 0.5, half is pruned. Source: arXiv 2503.22342.
    """

    named: ClassVar = "cppo"

    def weigh(self, state: object, groups: Groups, advantage_PG: Array | None, draw: Draw) -> Kept:
        """Rollouts of every group; of equal sizes the first."""
        assert advantage_PG is not None  # since `after`
        keep_PG = np.zeros(groups.rewards_PG.shape, dtype=bool)
        for row, mask, advantages in zip(keep_PG, _masks(groups), advantage_PG, strict=True):
            size = int(mask.sum())
            largest = np.argsort(-np.abs(advantages[mask]), kind="stable")[: max(1, round(self.share * size))]
            row[np.flatnonzero(mask)[largest]] = True
        return Kept(keep_PG)


def _masks(groups: Groups) -> NDArray[np.bool_]:
    return np.broadcast_to(groups.mask_PG, groups.rewards_PG.shape)
