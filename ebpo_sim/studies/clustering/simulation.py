"""One epoch of prompts with topics, simulated in every order, and the real estimators' walk along it.

Beside each walk stands its exact counterpart, `worlds.topics.prior_exact`.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ebpo_sim.counts.streams import Design, stream_seed, words_of
from ebpo_sim.errors import InputError
from ebpo_sim.estimators import Estimator, make, needs_prior
from ebpo_sim.estimators.beta_binomial import BetaBinomial
from ebpo_sim.estimators.components import Memory
from ebpo_sim.estimators.shrinkage import Shrinkage
from ebpo_sim.groups import Groups, binary_groups
from ebpo_sim.numbers import Array
from ebpo_sim.worlds.topics import ORDERS, Topics, Tracking, composition


class Keep(NamedTuple):
    """A memory of the prior: how much is kept from batch to batch, for all prompts together or one a topic."""

    memory: Memory
    per_cluster: bool

    @property
    def text(self) -> str:
        kept = f"retention {self.memory:g}" if isinstance(self.memory, float) else self.memory
        return f"per topic, {kept}" if self.per_cluster else kept


MEMORIES = (
    Keep("cumulative", False),
    Keep(0.9, False),
    Keep("batch", False),
    Keep("cumulative", True),
    Keep(0.9, True),
)


class Cell(NamedTuple):
    """One (world, G, order, memory, estimator): what was simulated (R, T) and what is exact (T,); NaN: no prior yet."""

    key: dict[str, Any]
    exact: Tracking
    prior_RT: Array
    static_RT: Array
    baseline_RT: Array
    group_mean_RT: Array
    lag_RT: Array
    shrinkage_RT: Array


def remember(name: str, keep: Keep) -> Estimator:
    """The preset with this memory. Raises InputError for presets without a running prior."""
    estimator = None if needs_prior(name) else make(name)
    if estimator is None or not isinstance(estimator.baseline, (Shrinkage, BetaBinomial)):
        raise InputError(f"estimator {name!r} has no running prior to study: use ebpo, ebpo_within or ebpo_debiased")
    return estimator.with_baseline(memory=keep.memory, per_cluster=keep.per_cluster)


def orders_of(text: str) -> tuple[str, ...]:
    return ("shuffled", "blocked") if text.startswith("drift:") else ORDERS


def memories_of(text: str) -> tuple[Keep, ...]:
    """All; under drift every batch is a topic of its own, so a memory per topic means nothing there."""
    return tuple(k for k in MEMORIES if not (k.per_cluster and text.startswith("drift:")))


def simulate_epochs(
    topics: Topics, orders: Sequence[str], group_size: int, design: Design, threads: int = 1
) -> dict[str, Array]:
    """Each order's stream as sums over groups, (R, T, 3, K, G+1): count, sum p, sum p^2 by topic and successes.

    Every order deals out the same prompts with the same rollouts. One seed a replicate, by name of the cell.
    """
    from ebpo_sim.counts.kernels import count_successes

    fixed = {o: composition(topics, o, design.prompts, design.steps) for o in {*orders, "blocked"}}
    size_K = fixed["blocked"].sum(axis=0).astype(np.intp)
    topic_N = np.repeat(np.arange(len(size_K)), size_K)
    batch_N = np.repeat(np.arange(design.steps), design.prompts)
    shape = (design.steps, len(size_K), group_size + 1)

    def deal(order: str, rng: np.random.Generator) -> NDArray[np.intp]:
        """Which prompt stands in each place of the stream."""
        if order == "shuffled":
            return rng.permutation(len(topic_N)).astype(np.intp)
        places = np.tile(np.arange(len(size_K)), design.steps).repeat(fixed[order].astype(np.intp).ravel())
        who = np.empty(len(topic_N), np.intp)
        who[np.argsort(places, kind="stable")] = np.arange(len(topic_N))
        return who

    def one(seed: np.random.SeedSequence) -> dict[str, Array]:
        prompt_seed, rollout_seed, order_seed = seed.spawn(3)
        rng = np.random.Generator(np.random.PCG64DXSM(prompt_seed))
        draws = [rng.permutation(part.sample(rng, int(n))) for part, n in zip(topics.parts, size_K, strict=True)]
        p_N, k_N = np.concatenate(draws), np.empty(len(topic_N), np.int64)
        count_successes(p_N, group_size, words_of(rollout_seed), k_N)
        found = {}
        for order in orders:
            who = deal(order, np.random.Generator(np.random.PCG64DXSM(order_seed)))
            place = np.ravel_multi_index((batch_N, topic_N[who], k_N[who]), shape)
            sums = [np.bincount(place, p_N[who] ** power, int(np.prod(shape))).reshape(shape) for power in range(3)]
            found[order] = np.stack(sums, axis=1).astype(np.float64)
        return found

    with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
        runs = list(pool.map(one, stream_seed(design.seed, topics.name, group_size).spawn(design.replicates)))
    return {order: np.stack([run[order] for run in runs]) for order in orders}


def walk(estimator: Estimator, topics: Topics, stream: Array, exact: Tracking, key: dict[str, Any]) -> Cell:
    """The estimator along the stream (R, T, 3, K, G+1), in its own order, all replicates in step."""
    per_cluster = "clusters" in estimator.needs
    if not per_cluster:
        stream = stream.sum(axis=3, keepdims=True)
    replicates, steps, _, _, counts = stream.shape
    state, found = estimator.init(), []
    for step in range(steps):
        sums = stream[:, step]
        here = np.flatnonzero(
            sums[:, 0].sum(axis=(0, 2))
        )  # topics of this batch: a group counted 0 times is still seen
        n, p, p2 = np.moveaxis(sums[:, :, here].reshape(replicates, 3, -1), 1, 0)
        labels = tuple(topics.labels[k] for k in here) if per_cluster else None
        batch = replace(_layout(labels, counts - 1), multiplicity_P=n)
        local_P = batch.mean_P
        scoring, state = estimator.turn(state, batch)
        said = estimator.baseline_of(scoring, batch)
        assert said is not None and said.prior_mean_P is not None and said.shrinkage_P is not None
        prior_P = said.prior_mean_P if estimator.order == "update_then_score" or step else np.nan
        total = n.sum(axis=1)
        error = [_squared(b, n, p, p2) for b in (prior_P, topics.mean, said.baseline_PG[..., 0], local_P)]
        lag, shrinkage = np.sum(prior_P * n - p, axis=1), np.sum(said.shrinkage_P * n, axis=1)
        found.append([x / total for x in (*error, lag, shrinkage)])
    return Cell(key, exact, *np.moveaxis(np.array(found), 0, -1))


def _squared(b: Any, n: Array, p: Array, p2: Array) -> Array:
    """Sum over prompts of (b - p)^2 from the counts and sums of their groups."""
    return np.asarray(np.sum(b * b * n - 2 * b * p + p2, axis=1))


@lru_cache(maxsize=256)
def _layout(labels: tuple[str, ...] | None, group_size: int) -> Groups:
    """The G+1 binary groups, once for each topic; without labels once for all."""
    rows = 1 if labels is None else len(labels)
    k = np.tile(np.arange(group_size + 1), rows)
    groups = binary_groups(np.full(len(k), group_size), k)
    return groups if labels is None else replace(groups, cluster_P=tuple(np.repeat(labels, group_size + 1).tolist()))
