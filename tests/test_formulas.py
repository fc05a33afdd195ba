"""Closed forms of single groups against all 2^G outcomes."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

import exact_forms
from ebpo_sim.numbers import formulas


@given(st.fractions(0, 1, max_denominator=50), st.integers(1, 8))
def test_degenerate_groups_by_enumeration(p: Fraction, group_size: int) -> None:
    """P(all equal) and E[mean | mixed] against all 2^G outcomes, in exact rationals."""
    chance = {r: math.prod(p if x else 1 - p for x in r) for r in product((0, 1), repeat=group_size)}
    equal = sum(c for r, c in chance.items() if len(set(r)) == 1)
    assert formulas.degenerate_probability(p, group_size) == (equal if group_size > 1 else 1)
    if equal < 1:
        mean = sum(c * Fraction(sum(r), group_size) for r, c in chance.items() if len(set(r)) == 2) / (1 - equal)
        assert exact_forms.mixed_group_mean(p, group_size) == mean


@pytest.mark.parametrize(
    ("p", "printed"), [(0.1, "0.175583"), (0.25, "0.277800"), (0.5, "0.500000"), (0.9, "0.824417")]
)
def test_conditional_bias_of_mixed_groups(p: float, printed: str) -> None:
    """arXiv 2601.08521 at G = 8: the printed values of E[mean | mixed], above p for hard prompts, below for easy."""
    found = exact_forms.mixed_group_mean(p, 8)
    assert f"{found:.6f}" == printed
    assert (found > p) == (p < 0.5)
    assert (found < p) == (p > 0.5)


@given(st.integers(2, 64), st.data(), st.sampled_from((0, 1)))
def test_normalised_advantages_of_mixed_groups(group_size: int, data: st.DataObject, ddof: int) -> None:
    """GRPO's two advantages of a mixed group: (1 - mean)/std and -mean/std with a std summed by hand."""
    k = data.draw(st.integers(1, group_size - 1))
    rewards = [1.0] * k + [0.0] * (group_size - k)
    mean = k / group_size
    std = math.sqrt(math.fsum((r - mean) ** 2 for r in rewards) / (group_size - ddof))
    assert math.isclose(formulas.grpo_advantage_right(k, group_size, ddof), (1 - mean) / std, rel_tol=1e-12)
    assert math.isclose(formulas.grpo_advantage_wrong(k, group_size, ddof), -mean / std, rel_tol=1e-12)


@given(st.fractions(0, 1, max_denominator=20), st.fractions(0, 1, max_denominator=9), st.integers(1, 6))
def test_own_sample_factor_by_enumeration(p: Fraction, shrinkage: Fraction, group_size: int) -> None:
    """E[(r - V) score] of a one-logit policy (score r - p) with S and mu external is (1 - (1-S)/G) p (1-p)."""
    mu, total = Fraction(1, 3), Fraction(0)
    for r in product((0, 1), repeat=group_size):
        chance = math.prod(p if x else 1 - p for x in r)
        baseline = (1 - shrinkage) * Fraction(sum(r), group_size) + shrinkage * mu
        total += chance * sum((x - baseline) * (x - p) for x in r) / group_size
    assert total == exact_forms.own_sample_factor(shrinkage, group_size) * p * (1 - p)
