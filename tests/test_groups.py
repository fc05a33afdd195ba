"""Arranging rewards by prompt: layouts, order, masks, and every refusal with its remedy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given

from ebpo_sim import InputError, count_groups, group_rewards
from ebpo_sim.groups import binary_groups
from strategies import REAL, Batch, batches

MATRIX = np.array([[1.0, 0.0, 0.35], [0.1, 0.1, 0.1]])


@given(batches(REAL))
def test_flat_batches_are_grouped_by_id(batch: Batch) -> None:
    """Groups in order of appearance, rollouts in order within a group, statistics per group, rows restored."""
    groups = group_rewards(batch.rewards, batch.ids)
    order = list(dict.fromkeys(batch.ids.tolist()))
    assert groups.prompt_P == tuple(order)
    for p, name in enumerate(order):
        mine = batch.rewards[batch.ids == name]
        assert groups.rewards_PG[p][groups.mask_PG[p]].tolist() == mine.tolist()
        assert not np.any(groups.rewards_PG[p][~groups.mask_PG[p]])
        assert groups.size_P[p] == len(mine)
        assert groups.mean_P[p] == pytest.approx(mine.mean(), rel=1e-14)
        assert groups.within_ss_P[p] == pytest.approx(np.sum((mine - mine.mean()) ** 2), rel=1e-12, abs=1e-12)
        assert groups.degenerate_P[p] == (len(set(mine.tolist())) == 1)
    np.testing.assert_array_equal(groups.restore(groups.rewards_PG), batch.rewards)
    numbered = np.arange(groups.mask_PG.size).reshape(groups.mask_PG.shape)
    assert len(set(groups.restore(numbered).tolist())) == len(batch.rewards)


def test_flat_and_rectangular_are_one_batch() -> None:
    """The same rewards interleaved with ids and as a matrix: equal fields, each restored to its own layout."""
    flat = group_rewards(MATRIX.T.ravel(), ["a", "b"] * 3, lengths=np.arange(6.0), clusters=["x", "y"] * 3)
    square = group_rewards(MATRIX, lengths=np.arange(6.0).reshape(3, 2).T, clusters=["x", "y"], prompt_ids=["a", "b"])
    for field in ("rewards_PG", "mask_PG", "size_P", "mean_P", "within_ss_P", "degenerate_P", "length_PG", "weight_PG"):
        np.testing.assert_array_equal(getattr(flat, field), getattr(square, field), err_msg=field)
    assert (flat.cluster_P, flat.prompt_P) == (square.cluster_P, square.prompt_P) == (("x", "y"), ("a", "b"))
    assert flat.restore(MATRIX).shape == (6,)
    assert square.restore(MATRIX).shape == (2, 3)


def test_ids_may_be_numbers_text_or_tensors() -> None:
    """Only equality of ids counts."""
    for ids in ([7, -1, 7], ["q", "r", "q"], torch.tensor([7, -1, 7]), np.array([0.5, 1.5, 0.5]), (True, False, True)):
        assert group_rewards([1.0, 2.0, 4.0], ids).mean_P.tolist() == [2.5, 2.0]
    assert group_rewards([1.0, 2.0], ["a", "a"], prompt_ids=["n", "n"]).prompt_P == ("n",)


@pytest.mark.parametrize("junk", [np.nan, np.inf, -np.inf, 1e300])
def test_masked_rewards_are_never_read(junk: float) -> None:
    """Masked entries leave every statistic, also at the front of a group; an empty group is there, with size 0."""
    rewards = [[junk, 0.1, 0.1], [1.0, junk, 0.0], [junk, junk, junk]]
    groups = group_rewards(rewards, mask=[[0, 1, 1], [1, 0, 1], [0, 0, 0]])
    assert groups.size_P.tolist() == [2, 2, 0]
    assert groups.mean_P.tolist() == [0.1, 0.5, 0]
    assert groups.within_ss_P.tolist() == [0, 0.5, 0]
    assert groups.degenerate_P.tolist() == [True, False, True]
    assert np.all(groups.rewards_PG[~groups.mask_PG] == 0)
    assert np.all(groups.weight_PG == groups.mask_PG)


@pytest.mark.parametrize("value", [0.1, 0.35, 0.95, 1 / 3, 1e8 + 0.1, -2.7])
def test_degenerate_by_exact_equality(value: float) -> None:
    """Equal rewards have exactly their mean and no spread, although their sum does not divide back."""
    sums = []
    for size in range(1, 40):
        groups = group_rewards([[value] * size, [np.nextafter(value, 9e9)] + [value] * (size - 1)])
        assert groups.degenerate_P.tolist() == [True, size == 1]
        assert groups.mean_P[0] == value
        assert groups.within_ss_P[0] == 0
        sums.append(np.sum([value] * size) / size != value)
    assert any(sums)  # else the plain mean would do, and this test would prove nothing


def test_replicate_axes() -> None:
    """Leading axes stay, statistics are per slice."""
    rewards = np.random.default_rng(0).random((2, 3, 4, 5))
    groups = group_rewards(rewards)
    assert groups.size_P.shape == groups.mean_P.shape == groups.degenerate_P.shape == (2, 3, 4)
    np.testing.assert_allclose(groups.mean_P, rewards.mean(axis=-1), rtol=1e-14)
    assert groups.restore(groups.rewards_PG).shape == rewards.shape


def test_arrays_are_copies_and_frozen() -> None:
    """Neither side can change the other's numbers afterwards."""
    mine = MATRIX.copy()
    mask, lengths, counts = np.ones((2, 3), dtype=bool), np.ones((2, 3)), np.ones(2)
    groups = group_rewards(mine, mask=mask, lengths=lengths, multiplicity=counts)
    for array in (mine, mask, lengths, counts):
        array[:] = 0
    assert groups.rewards_PG.tolist() == MATRIX.tolist()
    assert groups.length_PG is not None
    for array in (groups.mask_PG, groups.length_PG, groups.multiplicity_P):
        assert np.all(array == 1)
    for field in ("rewards_PG", "mask_PG", "multiplicity_P", "size_P", "mean_P", "within_ss_P", "degenerate_P"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(groups, field)[0] = 1


def test_counted_groups() -> None:
    """Row k of count_groups has k successes first; binary_groups is ragged; multiplicity weighs rollouts."""
    groups = count_groups(3, [1, 0, 2, 5])
    assert groups.rewards_PG.tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert groups.weight_PG.sum() == 8 * 3
    assert count_groups(3).multiplicity_P.tolist() == [1, 1, 1, 1]  # the shared batch is not touched by the above
    assert count_groups(1).rewards_PG.tolist() == [[0], [1]]
    assert count_groups(3, np.ones((2, 4))).multiplicity_P.shape == (2, 4)
    ragged = binary_groups([1, 4, 2], [1, 3, 0])
    assert ragged.size_P.tolist() == [1, 4, 2]
    assert ragged.mean_P.tolist() == [1, 0.75, 0]


def test_clusters_become_text_and_may_be_numbers() -> None:
    """Cluster ids are keys of a JSON state."""
    assert group_rewards([[1.0], [0.0]], clusters=[3, 4]).cluster_P == ("3", "4")
    assert group_rewards([1.0, 0.0, 1.0], [9, 8, 9], clusters=["b", "a", "b"]).cluster_P == ("b", "a")


REFUSED: dict[str, tuple[tuple[Any, ...], dict[str, Any], str]] = {
    "nan": (([[1.0, np.nan]],), {}, r"rewards must be finite, got nan at \(0, 1\): mask rollouts"),
    "inf": (([[1.0], [-np.inf]],), {}, r"rewards must be finite, got -inf at \(1, 0\): mask rollouts"),
    "torch nan": ((torch.tensor([[float("nan")]]),), {}, "rewards must be finite, got nan"),
    "text": (([["1", "0"]],), {}, "rewards must be numeric, got dtype <U1: convert text or objects"),
    "object": ((np.array([[1, None]], dtype=object),), {}, "rewards must be numeric, got dtype object: convert"),
    "complex": (([[1j]],), {}, "rewards must be numeric, got dtype complex128"),
    "ragged list": (([[1.0], [1.0, 0.0]],), {}, "rewards must be a rectangular array .*: .* with group_ids"),
    "flat without ids": (([1.0, 0.0],), {}, r"rewards must have shape \(P, G\), got \(2,\): pass group_ids"),
    "scalar": ((1.0,), {}, r"rewards must have shape \(P, G\), got \(\): pass group_ids"),
    "ids with matrix": (([[1.0]], [0]), {}, r"rewards must have shape \(N,\) when group_ids are given, got \(1, 1\)"),
    "ids length": (([1.0, 0.0], [0]), {}, "group_ids has 1 entries for 2 rewards: give one id a rollout"),
    "ids 2-D": (([1.0], [[0]]), {}, r"group_ids must be one-dimensional, got shape \(1, 1\)"),
    "no rows": (([], []), {}, "an empty batch has no advantage"),
    "no groups": ((np.zeros((0, 4)),), {}, "an empty batch has no advantage"),
    "no rollouts": ((np.zeros((4, 0)),), {}, "an empty batch has no advantage"),
    "all masked": (([[1.0, 0.0]],), {"mask": [[0, 0]]}, r"no valid rollout \(shape \(1, 2\)\)"),
    "mask shape": (([[1.0, 0.0]],), {"mask": [1, 1]}, r"mask has shape \(2,\), rewards have \(1, 2\): give one entry"),
    "mask values": (([[1.0, 0.0]],), {"mask": [[1, 2]]}, "mask must hold only booleans or 0 and 1"),
    "mask nan": (([[1.0, 0.0]],), {"mask": [[1, np.nan]]}, "mask must hold only booleans or 0 and 1"),
    "mask text": (([[1.0]],), {"mask": [["yes"]]}, "mask must be numeric, got dtype <U3"),
    "lengths shape": (([1.0, 0.0], [0, 1]), {"lengths": [3]}, r"lengths has shape \(1,\), rewards have \(2,\)"),
    "lengths negative": (([[1.0]],), {"lengths": [[-1]]}, "lengths must be finite and >= 0"),
    "lengths nan": (([[1.0]],), {"lengths": [[np.nan]]}, "lengths must be finite and >= 0"),
    "clusters count": (([[1.0], [0.0]],), {"clusters": ["a"]}, "clusters has 1 entries for 2 groups: give one a group"),
    "clusters rows": (([1.0, 0.0], [0, 0]), {"clusters": ["a"]}, "clusters has 1 entries for 2 rollouts"),
    "clusters differ": (([1.0, 0.0], [0, 0]), {"clusters": ["a", "b"]}, "clusters differ within a group: 'a' and 'b'"),
    "prompts differ": (([1.0, 0.0], [0, 0]), {"prompt_ids": [1, 2]}, "prompt_ids differ within a group: 1 and 2"),
    "prompts count": (([[1.0]],), {"prompt_ids": [1, 2]}, "prompt_ids has 2 entries for 1 groups"),
    "multiplicity with ids": (([1.0], [0]), {"multiplicity": [1]}, r"multiplicity needs rectangular rewards \(P, G\)"),
    "multiplicity count": (([[1.0]],), {"multiplicity": [1, 2]}, r"multiplicity must be .* one entry for each of 1 "),
    "multiplicity negative": (([[1.0]],), {"multiplicity": [-1]}, "multiplicity must be finite, >= 0"),
    "multiplicity nan": (([[1.0]],), {"multiplicity": [np.nan]}, "multiplicity must be finite, >= 0"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_name_the_argument_and_the_remedy(case: str) -> None:
    """Nothing silently becomes a reward: each bad input is refused by name."""
    arguments, options, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        group_rewards(*arguments, **options)


def test_a_group_needs_a_rollout() -> None:
    """count_groups refuses size 0 by value."""
    with pytest.raises(InputError, match="group_size must be at least 1, got 0"):
        count_groups(0)
    with pytest.raises(InputError, match="one entry for each of 4 groups"):
        count_groups(3, [1, 2])


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf, 1e13])
def test_score_norms_are_checked_by_name(bad: float) -> None:
    """Guards W: kept in the groups' layout, for flat batches too; all but finite numbers of at least 0 are refused."""
    groups = group_rewards([1.0, 0.0, 1.0], ["a", "b", "a"], score_norms=[0.1, 2.0, 0.3])
    assert groups.score_norm_PG is not None and groups.score_norm_PG.tolist() == [[0.1, 0.3], [2.0, 0.0]]
    with pytest.raises(InputError, match=r"score_norms must be finite and >= 0"):
        group_rewards([[1.0, 0.0]], score_norms=[[0.5, bad]])
