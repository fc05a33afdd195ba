"""The best baseline that counts can give: for each count of the others' successes a number of its own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ebpo_sim import typed
from ebpo_sim.estimators import components
from ebpo_sim.estimators.components import Memory, merge_keys
from ebpo_sim.estimators.group_mean import others_mean
from ebpo_sim.estimators.transforms.base import Domain, Evaluation
from ebpo_sim.groups import Groups, Weights, rollout_weights
from ebpo_sim.numbers import Array
from ebpo_sim.part import OF_WEIGHTS, Need

Sums = dict[str, Array]  # group size n -> sums of weights of the groups with k = 0..n successes, (..., n+1)
Table = dict[str, Sums]  # under RIGHT those of the right rollouts, under WRONG of the wrong ones
RIGHT, WRONG = "right", "wrong"
LEAST = np.finfo(np.float64).tiny  # below it a sum has lost its digits, and is no evidence


@dataclass(frozen=True)
class LooTable:
    """f_n(k) = sum W r / sum W over all rollouts so far that were in a group of n with k successes among the OTHER n-1.

    The minimiser of E[W (r - f)^2] over all functions of k, W the weight of a rollout: 1 ("none": f is the posterior
    mean given the others, E[r | k]), its tokens ("length"), or |grad log pi|^2 ("score": the least gradient noise;
    Greensmith, Bartlett and Baxter 2004). Learnt by counting, without a prior; independent of the scored rollout, so
    the gradient is unbiased whatever the table holds. Any one scale of W gives the same baseline.
    A cell without weight takes the same cell of all clusters together, then sum W r / sum W of all groups of its size,
    then of all sizes; before anything has weight the mean of the others (a group of one then its own reward: advantage
    0). In groups of one k is always 0: the weighted running mean. Rewards 0 and 1.
    """

    weights: Weights = "none"
    memory: Memory = "cumulative"
    per_cluster: bool = False

    domain: ClassVar[Domain] = "binary"

    def __post_init__(self) -> None:
        typed.check_fields(self)
        components.retention(self.memory)

    @property
    def needs(self) -> frozenset[Need]:
        return OF_WEIGHTS[self.weights] | ({"clusters"} if self.per_cluster else set())

    def init(self) -> dict[str, Table]:
        return {}

    def observe(self, groups: Groups) -> dict[str, Table]:
        parts = components.by_cluster(groups, self.per_cluster)
        seen = {cluster: _count(own, rollout_weights(own, self.weights)) for cluster, own in parts}
        return _bounded({cluster: table for cluster, table in seen.items() if _evidence(table) > 0})

    def forget(self, state: dict[str, Table]) -> dict[str, Table]:
        keep = components.retention(self.memory)
        if keep in (0.0, 1.0):
            return state if keep else {}
        faded = {c: {s: {n: x * keep for n, x in t[s].items()} for s in t} for c, t in state.items()}
        return {c: table for c, table in faded.items() if _evidence(table) >= LEAST}

    def merge(self, a: dict[str, Table], b: dict[str, Table]) -> dict[str, Table]:
        return _bounded(merge_keys(a, b, _add))

    def evaluate(self, state: dict[str, Table], groups: Groups) -> Evaluation:
        all_of_them: Table = reduce(_add, state.values()) if state else {RIGHT: {}, WRONG: {}}
        totals = [sum((x.sum(axis=-1) for x in all_of_them[s].values()), np.zeros(())) for s in (RIGHT, WRONG)]
        others_PG = np.rint(groups.mean_P * groups.size_P)[..., None] - groups.rewards_PG
        baseline_PG = _first(_share(*totals)[..., None, None], others_mean(groups))
        known = [state.get(c) for c in components.required_clusters(groups)] if self.per_cluster else []
        for size in all_of_them[RIGHT]:
            here_P = groups.size_P == int(size)
            if not here_P.any():
                continue
            of_size = _share(*(all_of_them[s][size].sum(axis=-1) for s in (RIGHT, WRONG)))
            found_PG = _first(of_size[..., None, None], baseline_PG)
            live_PG = here_P[..., None] & groups.mask_PG
            index_PG = np.where(live_PG, others_PG, 0).astype(np.intp)
            found_PG = _first(_at(_cells(all_of_them, size)[..., None, :], index_PG), found_PG)
            if known:
                own_P = np.broadcast_arrays(*(_cells(table, size) for table in known))
                found_PG = _first(_at(np.stack(own_P, axis=-2), index_PG), found_PG)
            baseline_PG = np.where(here_P[..., None], found_PG, baseline_PG)
        return Evaluation(baseline_PG)


def _count(groups: Groups, weight_PG: Array) -> Table:
    """The table of one batch alone, of the sizes whose groups have weight."""
    sums = {
        RIGHT: (weight_PG * groups.rewards_PG).sum(axis=-1),
        WRONG: (weight_PG * (1 - groups.rewards_PG)).sum(axis=-1),
    }
    successes_P = np.rint(groups.mean_P * groups.size_P)
    sizes = np.unique(groups.size_P[groups.size_P > 0]).astype(int)
    hits = {str(n): (groups.size_P == n)[..., None] & (successes_P[..., None] == np.arange(n + 1)) for n in sizes}
    return {s: {n: np.sum(sums[s][..., None] * hits[n], axis=-2) for n in sorted(hits)} for s in sums}


def _add(a: Table, b: Table) -> Table:
    return {s: merge_keys(a[s], b[s], lambda x, y: x + y) for s in a}


def _bounded(bank: dict[str, Table]) -> dict[str, Table]:
    return components.bounded(bank, _add, _evidence)


def _evidence(table: Table) -> float:
    """The weight in a table; of the largest replicate where there are some."""
    return float(np.max(sum((x.sum(axis=-1) for s in table.values() for x in s.values()), np.zeros(()))))


def _cells(table: Table | None, size: str) -> Array:
    """f_n(k), k = 0..n-1, NaN where nothing is known: a right rollout saw one success less than its group has."""
    if table is None or size not in table[RIGHT]:
        return np.full(int(size), np.nan)
    return _share(table[RIGHT][size][..., 1:], table[WRONG][size][..., :-1])


def _share(right: Array, wrong: Array) -> Array:
    """right / (right + wrong), NaN without weight."""
    whole = np.asarray(right + wrong)
    return np.where(whole >= LEAST, right / np.where(whole >= LEAST, whole, 1.0), np.nan)


def _at(cells_PK: Array, index_PG: NDArray[np.intp]) -> Array:
    lead = np.broadcast_shapes(cells_PK.shape[:-1], index_PG.shape[:-1])
    cells_PK = np.broadcast_to(cells_PK, (*lead, cells_PK.shape[-1]))
    return np.take_along_axis(cells_PK, np.broadcast_to(index_PG, (*lead, index_PG.shape[-1])), axis=-1)


def _first(known: Array, otherwise: Array) -> Array:
    """Known values, and where they are NaN the others."""
    return np.where(np.isnan(known), otherwise, known)
