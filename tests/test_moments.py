"""Running moments: exact where they can be, against fractions and written-out formulas."""

from __future__ import annotations

import statistics
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from battery import assert_close, assert_same
from ebpo_sim import InputError
from ebpo_sim.numbers.moments import Moments, forget, merge, of, remove_one, variance

NUMBERS = st.floats(-1e3, 1e3, allow_nan=False).map(lambda x: round(x, 3))
STREAMS = st.lists(NUMBERS, min_size=1, max_size=12)


zero = Moments


def push(state: Moments, x: float) -> Moments:
    """Welford's update with one observation: mean += (x - mean)/n, m2 += (x - mean_old)(x - mean_new)."""
    count, delta = state.n + 1.0, x - state.mean
    mean = state.mean + delta / count
    return Moments(count, state.n_sq + 1.0, mean, state.m2 + delta * (x - mean))


def push_many(state: Moments, xs: Any, multiplicity: Any = 1.0) -> Moments:
    return merge(state, of(xs, multiplicity))


def pushed(xs: list[float]) -> Moments:
    """The stream, one observation at a time."""
    state = zero()
    for x in xs:
        state = push(state, x)
    return state


def exact(xs: list[float], ddof: int) -> float:
    """The variance of these very floats, in rational arithmetic, rounded once."""
    q = [Fraction(x) for x in xs]
    mean = sum(q, Fraction(0)) / len(q)
    return float(sum((x - mean) ** 2 for x in q) / (len(q) - ddof))


@given(STREAMS)
def test_push_at_every_prefix(xs: list[float]) -> None:
    """Welford's update is right after each observation, not only at the end."""
    state = zero()
    for n, x in enumerate(xs, start=1):
        state = push(state, x)
        seen = xs[:n]
        assert (state.n, state.n_sq) == (n, n)
        assert state.mean == pytest.approx(statistics.fmean(seen), rel=1e-12, abs=1e-9)
        assert variance(state, 0) == pytest.approx(np.var(seen), rel=1e-9, abs=1e-9)
        if n > 1:
            assert variance(state, 1) == pytest.approx(exact(seen, 1), rel=1e-9, abs=1e-9)


@given(STREAMS, st.lists(st.integers(0, 3), min_size=12, max_size=12))
def test_push_many_is_repeated_push(xs: list[float], copies: list[int]) -> None:
    """A batch with multiplicities is each observation pushed so many times, whatever came before."""
    counts = copies[: len(xs)]
    written = [x for x, c in zip(xs, counts, strict=True) for _ in range(c)]
    state = pushed([3.0, -1.0])
    assert_close(push_many(state, xs, counts), pushed([3.0, -1.0, *written]), rtol=1e-9, atol=1e-7)


@given(STREAMS, STREAMS, st.lists(NUMBERS, max_size=2))
def test_merge_laws(xs: list[float], ys: list[float], zs: list[float]) -> None:
    """Merging streams is the stream of both; identity and commutativity to the last bit; parts of 0 and 1 too."""
    a, b, c = pushed(xs), push_many(zero(), ys), pushed(zs)
    assert_same(merge(a, b), merge(b, a))
    assert_same(merge(a, zero()), merge(zero(), a))
    assert_same(merge(a, zero()), a)
    assert_close(merge(merge(a, b), c), merge(a, merge(b, c)), rtol=1e-12, atol=1e-8)
    assert_close(merge(a, b), pushed(xs + ys), rtol=1e-9, atol=1e-7)
    assert_close(merge(a, pushed(ys[:1])), push(a, ys[0]), rtol=1e-9, atol=1e-7)


def test_merge_of_nothing() -> None:
    """Two empty streams merge to an empty one."""
    assert_same(merge(zero(), zero()), zero())
    assert_same(push_many(zero(), [5.0, 7.0], [0, 0]), zero())


@given(STREAMS, NUMBERS)
def test_remove_one_undoes_push(xs: list[float], x: float) -> None:
    """Leave-one-out by subtraction is the stream without that observation."""
    assert_close(remove_one(push(pushed(xs), x), x), pushed(xs), rtol=1e-9, atol=1e-6)


def test_remove_one_broadcasts_and_ends_empty() -> None:
    """Every observation left out in turn; the last one leaves the empty stream, which stays empty."""
    xs = [1.0, 4.0, 7.0, 0.5]
    left = remove_one(pushed(xs), np.array(xs))
    for i in range(4):
        rest = xs[:i] + xs[i + 1 :]
        assert left.mean[i] == pytest.approx(statistics.fmean(rest), rel=1e-14)
        assert variance(left, 1)[i] == pytest.approx(exact(rest, 1), rel=1e-13)
    empty = remove_one(pushed([2.5]), 2.5)
    assert_same(empty, zero())
    assert_same(remove_one(empty, 2.5), zero())


BATCHES = [[0.1, 0.7, 0.35], [0.95], [0.2, 0.2]]


def test_forgetting_weights_are_geometric() -> None:
    """After T batches the t-th has weight retention^(T-t), in every field, and variances follow the weights."""
    keep, state = 0.8, zero()
    for xs in BATCHES:
        state = push_many(forget(state, keep), xs)
    w = np.repeat([keep**2, keep, 1.0], [3, 1, 2])
    x = np.concatenate(BATCHES)
    mean = np.sum(w * x) / np.sum(w)
    squares = np.sum(w * (x - mean) ** 2)
    np.testing.assert_allclose(state, [np.sum(w), np.sum(w**2), mean, squares], rtol=1e-14)
    assert variance(state, 0) == pytest.approx(squares / np.sum(w), rel=1e-14)
    reliability = np.sum(w) - np.sum(w**2) / np.sum(w)  # the divisor for weights that are not counts
    assert variance(state, 1) == pytest.approx(squares / reliability, rel=1e-14)


@pytest.mark.parametrize("keep", [1.0, 0.9, 0.5])
def test_variance_is_unbiased_under_forgetting(keep: float) -> None:
    """E[variance ddof 1] = p(1-p) exactly, by enumeration of all 2^6 Bernoulli streams of three batches."""
    p, expected = 0.3, 0.0
    for bits in product((0.0, 1.0), repeat=6):
        state = zero()
        for xs in (bits[:3], bits[3:4], bits[4:]):
            state = push_many(forget(state, keep), xs)
        expected += p ** sum(bits) * (1 - p) ** (6 - sum(bits)) * variance(state, 1)
    assert expected == pytest.approx(p * (1 - p), rel=1e-13)


def test_forget_ends() -> None:
    """Retention 1 keeps every bit, 0 returns the empty stream, the mean never moves in between."""
    state = pushed([1.0, 2.0, 4.0])
    assert_same(forget(state, 1.0), state)
    assert_same(forget(state, 0.0), zero())
    assert forget(state, 0.3).mean == state.mean


@pytest.mark.parametrize("ddof", [0, 1])
def test_offset_of_1e8_keeps_the_variance(ddof: int) -> None:
    """Data near 1e8 with spread 1: a sum of squares would lose every digit."""
    xs = [1e8 + x for x in np.random.default_rng(0).integers(-16, 17, 60) / 8]
    truth = exact(xs, ddof)
    assert truth > 0.5
    ways = {
        "push": pushed(xs),
        "push_many": push_many(zero(), xs),
        "merge": merge(push_many(zero(), xs[:7]), merge(pushed(xs[7:20]), push_many(zero(), xs[20:]))),
        "onto": push_many(pushed(xs[:1]), xs[1:]),
        "remove": remove_one(push_many(zero(), [*xs, xs[0]]), xs[0]),
    }
    for way, state in ways.items():
        assert variance(state, ddof) == pytest.approx(truth, rel=1e-6), way


@given(st.lists(st.one_of(NUMBERS, st.floats(1e8, 1e8 + 1)), min_size=1, max_size=8), st.integers(1, 7), NUMBERS)
def test_variance_is_never_negative(xs: list[float], cut: int, stranger: float) -> None:
    """Through pushes, merges, forgetting and the removal even of an observation that was never there."""
    a, b = pushed(xs[:cut]), push_many(zero(), xs[cut:] or [0.0])
    for state in (a, b, merge(a, b), forget(merge(a, b), 0.3), remove_one(merge(a, b), stranger)):
        for ddof in (0, 1):
            value = variance(state, ddof)
            assert value >= 0
            assert np.isfinite(value)


@pytest.mark.parametrize("value", [0.1, 0.35, 0.95, 1 / 3])
def test_equal_observations_have_exactly_no_spread(value: float) -> None:
    """By whatever way they came: decisions hang on a variance of 0, so rounding must not make one."""
    ways = {
        "push": pushed([value] * 7),
        "push_many": push_many(zero(), [value] * 3),
        "batches": zero(),
        "merge": merge(push_many(zero(), [value] * 3), push_many(zero(), [value] * 4)),
    }
    for size in (3, 4, 7, 1, 6, 5):
        ways["batches"] = push_many(forget(ways["batches"], 0.9), [value] * size)
    assert {way: variance(state, 0) for way, state in ways.items()} == dict.fromkeys(ways, 0.0)


def test_too_few_observations_have_no_spread() -> None:
    """0, and no division warning, for the empty stream and for a single observation."""
    assert [variance(s, d) for s in (zero(), pushed([3.0])) for d in (0, 1)] == [0, 0, 0, 0]
    assert variance(forget(pushed([3.0]), 0.37), 1) == 0


def test_replicates_advance_together() -> None:
    """Leading axes are separate streams: push_many, merge, forget and variance act on each slice alone."""
    xs = np.random.default_rng(1).random((3, 5))
    counts = np.array([[1, 0, 2, 1, 1], [0, 0, 0, 0, 0], [3, 1, 0, 0, 0]])
    state = push_many(forget(push_many(zero(), xs), 0.5), xs, counts)
    for r in range(3):
        alone = push_many(forget(push_many(zero(), xs[r]), 0.5), xs[r], counts[r])
        assert_close(Moments(*(np.asarray(f)[r] for f in state)), alone, rtol=1e-14)
        assert variance(state, 1)[r] == pytest.approx(variance(alone, 1), rel=1e-13)


def test_refusals() -> None:
    """Retention and ddof outside their range name the value."""
    for bad in (-0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match=r"retention must lie in \[0, 1\], got"):
            forget(zero(), bad)
    for bad in (2, -1):
        with pytest.raises(InputError, match=f"ddof must be 0 or 1, got {bad}"):
            variance(zero(), bad)
