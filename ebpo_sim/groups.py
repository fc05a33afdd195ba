"""Groups: rewards of one batch, arranged by prompt.

Inside, every batch is a padded matrix `(..., P, G)` with a mask, so ragged groups, rejected rollouts and
rectangular batches share one code path. Leading axes are independent replicates. `multiplicity_P` says how
often a group counts: G+1 groups with multiplicities stand for any number of binary groups of size G.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache, reduce
from typing import Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from ebpo_sim.errors import InputError
from ebpo_sim.host import Host, to_bool, to_float64, to_labels
from ebpo_sim.sides import LARGEST, NONE, Sides, pack, per_group, per_rollout, same_shape, scatter, sides

Array = NDArray[np.float64]
Weights = Literal["none", "length", "score"]  # of a rollout in a mean: 1, its tokens, |grad log pi|^2
MOST = 1e18  # copies of a group


@dataclass(frozen=True, eq=False)
class Groups:
    """One batch of groups; build it with `group_rewards()` or `count_groups()`.

    rewards_PG: float64, padded and masked entries 0.   mask_PG: True where a rollout counts.
    multiplicity_P: how often each group counts.        length_PG: tokens per rollout, or None.
    score_norm_PG: |grad log pi|^2 of each rollout, any one scale, or None.
    prompt_P: stable prompt ids, or None.               cluster_P: cluster ids (text), or None.
    sides: what few rules ask for: answers, reward components, the greedy answer's reward.
    Derived: size_P valid rollouts; mean_P; within_ss_P = sum (r - mean)^2; degenerate_P = all valid rewards
    exactly equal (decided by comparison, never by a computed spread; then mean_P is that very number and
    within_ss_P is 0). A group without a valid rollout has size 0, mean 0, and is degenerate.
    """

    rewards_PG: Array
    mask_PG: NDArray[np.bool_]
    multiplicity_P: Array
    size_P: Array
    mean_P: Array
    within_ss_P: Array
    degenerate_P: NDArray[np.bool_]
    length_PG: Array | None
    score_norm_PG: Array | None
    prompt_P: tuple[Any, ...] | None
    cluster_P: tuple[str, ...] | None
    host: Host
    flat_index: NDArray[np.intp] | None  # (N,) position in the padded matrix, for batches given by group_ids
    sides: Sides = NONE

    @property
    def weight_PG(self) -> Array:
        """How often each rollout counts: multiplicity where valid, else 0."""
        return np.where(self.mask_PG, self.multiplicity_P[..., None], 0.0)

    def restore(self, values_PG: Array) -> Any:
        """Per-rollout values in the layout, library, dtype and device the rewards came in."""
        if self.flat_index is not None:
            values_PG = values_PG.reshape(-1)[self.flat_index]
        return self.host.restore(values_PG)


def group_rewards(
    rewards: Any,
    group_ids: Any = None,
    *,
    mask: Any = None,
    lengths: Any = None,
    score_norms: Any = None,
    clusters: Any = None,
    prompt_ids: Any = None,
    multiplicity: Any = None,
    answers: Any = None,
    components: Any = None,
    greedy: Any = None,
) -> Groups:
    """Arrange a batch of rewards by prompt.

    rewards: (P, G), or (..., P, G) with leading replicate axes; with `group_ids`, (N,) in any order.
    group_ids: (N,) ids (numbers or text); rows with equal ids form a group, groups in order of appearance.
    mask: like rewards, False leaves a rollout out of everything (its reward may then be anything, NaN included).
    lengths: like rewards, tokens per rollout, 0 to 1e12. score_norms: like rewards, the squared norm of grad log pi of
    the rollout, in logits or parameters, 0 to 1e12. clusters, prompt_ids, multiplicity: one entry a group, in
    the order of the groups; with `group_ids`, clusters and prompt_ids are given a row (N,) and must agree
    within a group, and prompt_ids default to the group ids. answers, components, greedy: see `sides.sides`.
    Raises InputError for NaN, infinite or non-numeric rewards and those beyond 1e12 in size (a state that never
    forgets would round away everything that comes after), for empty batches, and for shapes that do not fit.
    """
    values, host = to_float64("rewards", rewards)
    valid = np.ones(values.shape, dtype=bool) if mask is None else to_bool("mask", mask)
    same_shape("mask", valid, values.shape)
    tokens, norms = per_rollout("lengths", lengths, values), per_rollout("score_norms", score_norms, values)
    extra = sides(answers, components, greedy, values.shape, group_ids is not None)
    flat_index = None
    cluster_P, prompt_P = to_labels("clusters", clusters), to_labels("prompt_ids", prompt_ids)
    if group_ids is not None:
        if values.ndim != 1:
            raise InputError(f"rewards must have shape (N,) when group_ids are given, got {values.shape}")
        if multiplicity is not None:
            raise InputError("multiplicity needs rectangular rewards (P, G): leave it out when group_ids are given")
        ids = to_labels("group_ids", group_ids)
        assert ids is not None
        if len(ids) != len(values):
            raise InputError(f"group_ids has {len(ids)} entries for {len(values)} rewards: give one id a rollout")
        flat_index, row_N, n_groups, width = pack(ids)
        values, valid = (
            scatter(values, flat_index, n_groups, width),
            scatter(valid, flat_index, n_groups, width),
        )
        tokens, norms = (None if x is None else scatter(x, flat_index, n_groups, width) for x in (tokens, norms))
        extra = extra.scattered(flat_index, row_N, n_groups, width)
        cluster_P = per_group("clusters", cluster_P, row_N, n_groups)
        prompt_P = per_group("prompt_ids", ids if prompt_P is None else prompt_P, row_N, n_groups)
    if values.ndim < 2:
        raise InputError(f"rewards must have shape (P, G), got {values.shape}: pass group_ids for a flat batch")
    n_groups = values.shape[-2]
    for name, labels in (("clusters", cluster_P), ("prompt_ids", prompt_P)):
        if labels is not None and len(labels) != n_groups:
            raise InputError(f"{name} has {len(labels)} entries for {n_groups} groups: give one a group")
    count_P = np.ones(n_groups) if multiplicity is None else _checked_multiplicity(multiplicity, n_groups)
    return _build(
        values,
        valid,
        count_P,
        tokens,
        norms,
        prompt_P,
        None if cluster_P is None else tuple(map(str, cluster_P)),
        host,
        flat_index,
        extra,
    )


def masked(groups: Groups, keep_PG: Any, rewards_PG: Any = None) -> Groups:
    """The same batch with only the rollouts of `keep_PG`, (P, G) in the padded layout, the others as if never drawn;
    with these rewards where they are given, 0 where masked. Raises InputError where none is left."""
    return _build(
        groups.rewards_PG if rewards_PG is None else rewards_PG, groups.mask_PG & np.asarray(keep_PG, dtype=bool),
        groups.multiplicity_P, groups.length_PG,
        groups.score_norm_PG, groups.prompt_P, groups.cluster_P, groups.host, groups.flat_index, groups.sides,
    )  # fmt: skip


def rollout_weights(groups: Groups, weights: Weights) -> Array:
    """How often each rollout counts, times its length or score norm; InputError where the batch has none."""
    if weights == "none":
        return groups.weight_PG
    side_PG = groups.length_PG if weights == "length" else groups.score_norm_PG
    if side_PG is None:
        name = "lengths" if weights == "length" else "score_norms"
        raise InputError(f"weights={weights!r} needs {name}: pass {name}=... to group_rewards(), or weights='none'")
    return groups.weight_PG * side_PG


def count_groups(group_size: int, multiplicity: Any = None) -> Groups:
    """The G+1 binary groups of size G, the k-th with k successes (first) and then G-k failures.

    `multiplicity` (..., G+1) says how many groups had k successes; with it this is a whole batch, or a whole
    population, in G+1 rows. Any exchangeable estimator treats it exactly as the batch it stands for.
    """
    if group_size < 1:
        raise InputError(f"group_size must be at least 1, got {group_size!r}")
    plain = _one_of_each(group_size)
    if multiplicity is None:
        return plain
    return replace(plain, multiplicity_P=_checked_multiplicity(multiplicity, group_size + 1))


def binary_groups(sizes: Any, successes: Any, multiplicity: Any = None) -> Groups:
    """One binary group per entry: `successes[i]` ones (first), then zeros up to `sizes[i]` rollouts of one token."""
    n, k = np.asarray(sizes)[:, None], np.asarray(successes)[:, None]
    column = np.arange(int(n.max()))[None, :]
    rewards = (column < k).astype(np.float64)
    return group_rewards(rewards, mask=column < n, lengths=np.ones_like(rewards), multiplicity=multiplicity)


@lru_cache(maxsize=64)
def _one_of_each(group_size: int) -> Groups:
    return binary_groups(np.full(group_size + 1, group_size), np.arange(group_size + 1))


def _checked_multiplicity(multiplicity: Any, n_groups: int) -> Array:
    count_P = to_float64("multiplicity", multiplicity)[0]
    if count_P.shape[-1:] != (n_groups,) or not np.all((count_P >= 0) & (count_P <= MOST)):
        raise InputError(
            f"multiplicity must be finite, >= 0, at most {MOST:g}, with one entry for each of {n_groups} groups"
        )
    count_P.flags.writeable = False
    return count_P


def _build(
    values: Array,
    valid: NDArray[np.bool_],
    count_P: Array,
    tokens: Array | None,
    norms: Array | None,
    prompt_P: tuple[Any, ...] | None,
    cluster_P: tuple[str, ...] | None,
    host: Host,
    flat_index: NDArray[np.intp] | None,
    extra: Sides,
) -> Groups:
    if not valid.any():
        raise InputError(f"rewards hold no valid rollout (shape {values.shape}): an empty batch has no advantage")
    size_PG = np.abs(values)
    if not size_PG.max() <= LARGEST and (bad := valid & ~(size_PG <= LARGEST)).any():  # NaN too
        _refuse_rewards(values, bad)
    rewards_PG, first_P, every = values, values[..., 0], valid.all()
    size_P = np.full(values.shape[:-1], float(values.shape[-1]))
    if not every:
        rewards_PG, size_P = np.where(valid, values, 0.0), valid.sum(axis=-1, dtype=np.float64)
        first_P = np.take_along_axis(rewards_PG, np.argmax(valid, axis=-1)[..., None], axis=-1)[..., 0]
    # below 8 terms NumPy adds in order, along the first axis too and sooner
    axis, each = (0, ...) if values.shape[-1] < 8 else (-1, (..., None))
    rewards, counted = (x if axis else np.ascontiguousarray(np.moveaxis(x, -1, 0)) for x in (rewards_PG, valid))
    differs = rewards != first_P[each]
    degenerate_P = ~np.logical_or.reduce(differs if every else counted & differs, axis=axis)
    mean_P = np.where(degenerate_P, first_P, np.add.reduce(rewards, axis=axis) / np.maximum(size_P, 1.0))
    deviation = rewards - mean_P[each]
    squares = (deviation if every else np.where(counted, deviation, 0.0)) ** 2
    within_ss_P = np.where(degenerate_P, 0.0, np.add.reduce(squares, axis=axis))
    for array in (rewards_PG, valid, count_P, size_P, mean_P, within_ss_P, degenerate_P):
        array.flags.writeable = False
    return Groups(
        rewards_PG,
        valid,
        count_P,
        size_P,
        mean_P,
        within_ss_P,
        degenerate_P,
        tokens,
        norms,
        prompt_P,
        cluster_P,
        host,
        flat_index,
        extra,
    )


def _refuse_rewards(values: Array, bad: NDArray[np.bool_]) -> NoReturn:
    infinite = bad & ~np.isfinite(values)
    where = tuple(int(i) for i in np.argwhere(infinite if infinite.any() else bad)[0])
    got = f"got {values[where]} at {where}"
    if infinite.any():
        raise InputError(f"rewards must be finite, {got}: mask rollouts that could not be scored")
    raise InputError(f"rewards must lie within ±{LARGEST:g}, {got}: rescale or mask them")


def over(function: np.ufunc, values_PG: NDArray[Any]) -> NDArray[Any]:
    """The function over the last axis. Below 8 terms NumPy goes in order, which columns do sooner, to the same bits."""
    if values_PG.shape[-1] >= 8:
        return np.asarray(function.reduce(values_PG, axis=-1))
    return np.asarray(reduce(function, [values_PG[..., g] for g in range(values_PG.shape[-1])]))
