"""The memory of every linear shrinkage rule: variance components of rewards, pooled or one bank a cluster.

Between-prompt and within-prompt moments are kept apart: once pooled they cannot be separated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import reduce
from typing import Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ebpo_sim import typed
from ebpo_sim.errors import InputError
from ebpo_sim.groups import Groups
from ebpo_sim.numbers import Array, moments
from ebpo_sim.numbers.moments import Moments, Real
from ebpo_sim.part import Need

T = TypeVar("T")
Memory = Literal["cumulative", "batch"] | float
EVERY = ""  # the bank's key when clusters are not told apart
REST = "\0rest"  # the key of all clusters that gave up their place
MOST_CLUSTERS = 1024  # a bank's bound: memory and the time of a step are linear in it
LEAST_WEIGHT = 1e-6  # rewards; what is remembered of a cluster below this is no evidence


class Components(NamedTuple):
    """Sufficient statistics of one stream of groups.

    rewards: moments of all rewards. means: moments of the group means, a group counting once.
    within_ss, within_df: sums over groups of sum (r - mean)^2 and of (size - 1).
    inverse_sizes: sum over groups of 1/size, for the sampling noise w/size in the variance of means.
    """

    rewards: Moments = Moments()
    means: Moments = Moments()
    within_ss: Real = 0.0
    within_df: Real = 0.0
    inverse_sizes: Real = 0.0


Bank = dict[str, Components]  # never mutated; {} is the identity of merge_banks


def retention(memory: Memory) -> float:
    """The factor on past weights: "cumulative" 1, "batch" 0, or a number strictly between."""
    if memory == "cumulative":
        return 1.0
    if memory == "batch":
        return 0.0
    if isinstance(memory, (int, float)) and 0 < memory < 1:
        return float(memory)
    raise InputError(f"memory must be 'cumulative', 'batch' or a retention strictly between 0 and 1, got {memory!r}")


def observe(groups: Groups) -> Components:
    """Components of one batch alone; groups without a valid rollout leave no trace."""
    count_P = np.where(groups.size_P > 0, groups.multiplicity_P, 0.0)
    weight_PG, rewards_PG = groups.weight_PG, groups.rewards_PG
    if rewards_PG.shape != weight_PG.shape:
        rewards_PG = np.broadcast_to(rewards_PG, weight_PG.shape)
    flat = (*weight_PG.shape[:-2], -1)
    return Components(
        moments.of(rewards_PG.reshape(flat), weight_PG.reshape(flat)),
        moments.of(groups.mean_P, count_P),
        (count_P * groups.within_ss_P).sum(axis=-1),
        (count_P * np.maximum(groups.size_P - 1, 0.0)).sum(axis=-1),
        (count_P / np.maximum(groups.size_P, 1.0)).sum(axis=-1),
    )


def merge(a: Components, b: Components) -> Components:
    """Evidence of both, commutative to the last bit."""
    return Components(
        moments.merge(a.rewards, b.rewards),
        moments.merge(a.means, b.means),
        a.within_ss + b.within_ss,
        a.within_df + b.within_df,
        a.inverse_sizes + b.inverse_sizes,
    )


def forget(state: Components, keep: float) -> Components:
    """Every past weight times `keep`; 0 gives the empty components."""
    if keep == 0.0:
        return Components()
    return Components(
        moments.forget(state.rewards, keep),
        moments.forget(state.means, keep),
        state.within_ss * keep,
        state.within_df * keep,
        state.inverse_sizes * keep,
    )


def remove_group(state: Components, groups: Groups) -> Components:
    """The components without each group in turn, fields (..., P): for leave-one-prompt-out rules.

    Only what those rules read is removed (means and within sums); `rewards` stays whole.
    """
    present_P = groups.size_P > 0
    own_df_P = np.maximum(groups.size_P - 1, 0.0)
    df_P = np.maximum(_per_row(state.within_df) - own_df_P, 0.0)
    return Components(
        state.rewards,
        moments.remove_one(Moments(*map(_per_row, state.means)), groups.mean_P),
        np.where(df_P > 0, np.maximum(_per_row(state.within_ss) - groups.within_ss_P, 0.0), 0.0),
        df_P,
        np.maximum(_per_row(state.inverse_sizes) - present_P / np.maximum(groups.size_P, 1.0), 0.0),
    )


def within_variance(state: Components) -> Real:
    """Pooled within-group variance sum SS / sum (size - 1), unbiased for w. Where no group has two rollouts it
    cannot be told from the between variance, and the variance of all rewards stands in (shrinkage then 1)."""
    df = state.within_df
    if np.all(df > 0):
        return state.within_ss / df
    return moments.choose(df > 0, state.within_ss / moments.choose(df > 0, df, 1.0), moments.variance(state.rewards, 1))


def mean_noise(state: Components) -> Real:
    """w * mean(1/size): the average sampling variance of a group mean."""
    count = state.means.n
    return within_variance(state) * (state.inverse_sizes / moments.choose(count > 0, count, 1.0))


def between_variance(state: Components) -> Real:
    """max(0, Var_ddof1(group means) - w mean(1/size)): unbiased for T2 but for the clip at 0."""
    return np.maximum(moments.variance(state.means, 1) - mean_noise(state), 0.0)


def observe_bank(groups: Groups, per_cluster: bool) -> Bank:
    """One Components a cluster, or one for all under the key ''."""
    seen = {c: observe(own) for c, own in by_cluster(groups, per_cluster)}
    return _bounded({c: found for c, found in seen.items() if not per_cluster or np.any(found.means.n > 0)})


def merge_banks(a: Bank, b: Bank) -> Bank:
    """Key by key, keys sorted, so that the result does not depend on the order of the arguments.

    Beyond MOST_CLUSTERS the clusters with the least evidence (ties: the last names) give up their place to REST: to
    the rules they are clusters not seen yet, and all clusters together keep what they taught. Up to the bound merging
    is associative up to rounding, beyond it not.
    """
    return _bounded(merge_keys(a, b, merge))


def _bounded(bank: Bank) -> Bank:
    return bounded(bank, merge, lambda found: float(np.max(found.rewards.n)))


def merge_keys(a: dict[str, T], b: dict[str, T], merge: Callable[[T, T], T]) -> dict[str, T]:
    """Both tables as one, keys sorted."""
    return {k: merge(a[k], b[k]) if k in a and k in b else a[k] if k in a else b[k] for k in sorted({*a, *b})}


def bounded(bank: dict[str, T], merge: Callable[[T, T], T], evidence: Callable[[T], float]) -> dict[str, T]:
    """The bank, of MOST_CLUSTERS keys at most: those with the least evidence (ties: the last names) merged to REST."""
    if len(bank) <= MOST_CLUSTERS:
        return bank
    ranked = sorted((k for k in bank if k != REST), key=lambda k: (-evidence(bank[k]), k))
    kept, others = ranked[: MOST_CLUSTERS - 1], ranked[MOST_CLUSTERS - 1 :]
    rest = reduce(merge, (bank[k] for k in ([REST] if REST in bank else []) + others))
    return {k: rest if k == REST else bank[k] for k in sorted({REST, *kept})}


def by_cluster(groups: Groups, per_cluster: bool) -> Iterator[tuple[str, Groups]]:
    """Each cluster with its groups, in the order of names; without clusters told apart, all under the key ''."""
    if not per_cluster:
        yield EVERY, groups
        return
    names, which_P = np.unique(np.array(required_clusters(groups), dtype=object), return_inverse=True)
    members = np.split(np.argsort(which_P, kind="stable"), np.cumsum(np.bincount(which_P))[:-1])
    for name, index in zip(names, members, strict=True):
        yield str(name), take(groups, index)


def forget_bank(bank: Bank, keep: float) -> Bank:
    """Forget in every cluster at the pace of batches, seen there or not; a cluster left with less than LEAST_WEIGHT
    is dropped, and is new when it comes again."""
    if keep in (0.0, 1.0):
        return bank if keep else {}
    faded = {k: forget(v, keep) for k, v in bank.items()}
    return {k: v for k, v in faded.items() if np.any(np.asarray(v.rewards.n) >= LEAST_WEIGHT)}


def rows(bank: Bank, groups: Groups, per_cluster: bool) -> Components:
    """The components that apply to each group, fields (..., P) or (..., 1); plain numbers where all share one.

    A cluster that the bank has not seen takes all clusters together; an empty bank gives empty components.
    """
    everything = reduce(merge, bank.values()) if bank else Components()
    chosen = [bank.get(c, everything) for c in required_clusters(groups)] if per_cluster else [everything]
    flat = [(*c.rewards, *c.means, c.within_ss, c.within_df, c.inverse_sizes) for c in chosen]
    if len(flat) == 1:
        f = [field[..., None] if isinstance(field, np.ndarray) else field for field in flat[0]]
    else:
        f = [np.stack(np.broadcast_arrays(*map(np.asarray, field)), axis=-1) for field in zip(*flat, strict=True)]
    return Components(Moments(*f[0:4]), Moments(*f[4:8]), f[8], f[9], f[10])


class BankMemory(typed.Settings):
    """The memory half of a baseline whose state is a `Bank`; the dataclass that inherits has these two settings."""

    memory: Memory
    per_cluster: bool

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({"clusters"} if self.per_cluster else ())

    def init(self) -> Bank:
        return {}

    def observe(self, groups: Groups) -> Bank:
        return observe_bank(groups, self.per_cluster)

    def forget(self, state: Bank) -> Bank:
        return forget_bank(state, retention(self.memory))

    def merge(self, a: Bank, b: Bank) -> Bank:
        return merge_banks(a, b)


def _per_row(x: Real) -> Array:
    return np.asarray(x)[..., None]


def required_clusters(groups: Groups) -> tuple[str, ...]:
    if groups.cluster_P is None:
        raise InputError("per_cluster=True needs clusters: pass clusters=... to group_rewards(), or per_cluster=False")
    return groups.cluster_P


def take(groups: Groups, index: NDArray[np.intp]) -> Groups:
    """The groups at `index` alone, in that order, for statistics: they can no longer be laid out as the batch was."""
    return replace(
        groups,
        rewards_PG=groups.rewards_PG[..., index, :],
        mask_PG=groups.mask_PG[..., index, :],
        multiplicity_P=groups.multiplicity_P[..., index],
        size_P=groups.size_P[..., index],
        mean_P=groups.mean_P[..., index],
        within_ss_P=groups.within_ss_P[..., index],
        degenerate_P=groups.degenerate_P[..., index],
        length_PG=None if groups.length_PG is None else groups.length_PG[..., index, :],
        score_norm_PG=None if groups.score_norm_PG is None else groups.score_norm_PG[..., index, :],
        prompt_P=None if groups.prompt_P is None else tuple(groups.prompt_P[i] for i in index),
        cluster_P=None if groups.cluster_P is None else tuple(groups.cluster_P[i] for i in index),
        flat_index=None,
        sides=groups.sides.take(index),
    )
