"""Rules of aggregation: sums, formulas, both libraries, and the second paper's table."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ebpo_sim.bias import prefix
from ebpo_sim.objectives import PUBLISHED, Aggregation

LENGTHS = hnp.arrays(np.int64, st.integers(1, 9), elements=st.integers(1, 50))


@given(length_N=LENGTHS)
def test_aggregation_rules(length_N: np.ndarray) -> None:
    """Weights of all tokens sum to 1 where the rule is a mean; each equals its formula; torch as NumPy."""
    mask = np.arange(length_N.max()) < length_N[:, None]
    sums = {}
    for rule in ("token_mean", "sequence_mean", "constant_length", "sequence_sum"):
        aggregation = Aggregation(rule, 50)
        weight = aggregation.tokens(mask)
        sums[rule] = weight.sum()
        np.testing.assert_allclose(aggregation.tokens(torch.from_numpy(mask)).numpy(), weight, rtol=1e-6)
        np.testing.assert_array_equal(weight[~mask], 0.0)
    assert sums["token_mean"] == pytest.approx(1)
    assert sums["sequence_mean"] == pytest.approx(1)
    assert sums["constant_length"] == pytest.approx(length_N.mean() / 50)
    assert sums["sequence_sum"] == pytest.approx(length_N.mean())


@given(length_N=LENGTHS, copies=st.integers(1, 4))
def test_copies_are_equal_rows(length_N: np.ndarray, copies: int) -> None:
    """Guards the weights of prompts whose answers are all as long: those of the rows written out, to the bit."""
    for rule in ("token_mean", "sequence_mean", "constant_length", "sequence_sum"):
        found = Aggregation(rule, 50).rows(np.stack([length_N, length_N[::-1]]), copies)
        for row_N, lengths_N in zip(found, (length_N, length_N[::-1]), strict=True):
            np.testing.assert_array_equal(
                np.repeat(row_N, copies), Aggregation(rule, 50).rows(np.repeat(lengths_N, copies))
            )


def test_torch_masks_keep_their_type() -> None:
    """Weights in float64 for a float64 mask, to the bit of NumPy's; in float32 for a mask of bools."""
    mask = np.arange(7) < np.array([3, 7, 1])[:, None]
    for rule in ("token_mean", "sequence_mean"):
        found = Aggregation(rule).tokens(torch.from_numpy(mask).double())
        np.testing.assert_array_equal(found.numpy(), Aggregation(rule).tokens(mask))
        assert Aggregation(rule).tokens(torch.from_numpy(mask)).dtype == torch.float32


# Table 1 of arXiv 2601.05002, written out: L the lengths, s the group's deviation, A the centred rewards.
TABLE: dict[str, Callable[[np.ndarray, float, np.ndarray], np.ndarray]] = {
    "grpo": lambda L, s, A: 1 / (4 * L * s),
    "grpo_v3.2": lambda L, s, A: 1 / (4 * L),
    "gspo": lambda L, s, A: 1 / (4 * L * s),
    "dapo": lambda L, s, A: 1 / (L.sum() * s) + 0 * L,
    "cppo": lambda L, s, A: (np.abs(A) > 0.4) / (4 * L * s),
    "dr_grpo": lambda L, s, A: 1 / 4 + 0 * L,
    "gpg": lambda L, s, A: 1 / L.sum() + 0 * L,
    "cispo": lambda L, s, A: 1 / (L.sum() * s) + 0 * L,
    "gcpo": lambda L, s, A: 1 / (4 * s) + 0 * L,
}


@pytest.mark.parametrize("method", PUBLISHED)
def test_published_rules_are_the_second_papers_table(method: str) -> None:
    """A rule of aggregation, divided by the group's deviation where the table says so, pruned for CPPO."""
    lengths, rewards = np.array([3.0, 5.0, 2.0, 7.0]), np.array([1.0, 0.0, 0.0, 0.5])
    expected = TABLE[method](lengths, float(np.std(rewards)), rewards - rewards.mean())
    np.testing.assert_allclose(prefix.token_weights(method, lengths, rewards, gamma=0.4), expected, rtol=1e-14)
    assert TABLE.keys() == PUBLISHED.keys()
