"""The compiled loops against their plain-Python twins, bit for bit, and against the binomial law."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

import naive
from ebpo_sim.counts.kernels import (
    BLOCK,
    LANES,
    STATE_WORDS,
    TALLIES,
    count_successes,
    draw_and_tally,
    settle_plane,
    tally,
    transpose_bits,
)

ALL_ONES = np.uint64(2**64 - 1)
EDGES = (0.0, 1.0, 0.5, 2.0**-53, 1 - 2.0**-53)
PUBLISHED = (41943041, 58720359, 3588806011781223)  # xoshiro256++ from the state 1, 2, 3, 4


def fresh_state(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 2**64, STATE_WORDS, dtype=np.uint64)


def draw(p: np.ndarray, group_size: int, state: np.ndarray) -> np.ndarray:
    successes = np.full(len(p), -1, dtype=np.int64)
    count_successes(p, group_size, state, successes)
    return successes


def kernel_words(state: np.ndarray, steps: int) -> np.ndarray:
    """The random words that the kernel compares with, read off as what stays open against p = 0: (steps, LANES)."""
    rows = []
    for _ in range(steps):
        still_open, hit = np.full(LANES, ALL_ONES), np.zeros(LANES, np.uint64)
        settle_plane(state, np.zeros(BLOCK, np.uint64), np.uint64(52), still_open, hit)
        assert not hit.any()
        rows.append(~still_open)
    return np.array(rows)


def test_xoshiro_gives_the_published_numbers() -> None:
    """Guards the random stream: twin and kernel reproduce the published vector in every lane."""
    words = [1, 2, 3, 4]
    assert tuple(naive.xoshiro256pp(words) for _ in PUBLISHED) == PUBLISHED
    state = np.repeat(np.arange(1, 5, dtype=np.uint64), LANES)
    assert kernel_words(state, 3).tolist() == [[number] * LANES for number in PUBLISHED]
    assert state.tolist() == [word for word in words for _ in range(LANES)]


def test_every_lane_has_its_own_stream() -> None:
    """Guards against lanes that read one another's state: 100 words of each lane equal that lane's twin."""
    state = fresh_state(1)
    streams = [[int(state[LANES * w + lane]) for w in range(4)] for lane in range(LANES)]
    expected = [[naive.xoshiro256pp(stream) for stream in streams] for _ in range(100)]
    assert kernel_words(state, 100).tolist() == expected


@pytest.mark.parametrize("group_size", [1, 2, 5, 8, 33])
@pytest.mark.parametrize("prompts", [1, 63, 64, BLOCK - 1, BLOCK, BLOCK + 5])
def test_kernel_equals_its_twin(prompts: int, group_size: int) -> None:
    """Guards every count and the state left behind, over part, whole and several blocks."""
    rng = np.random.default_rng([prompts, group_size])
    p = np.where(rng.random(prompts) < 0.2, rng.choice(EDGES, prompts), rng.beta(0.5, 0.5, prompts))
    state = fresh_state(prompts + 7919 * group_size)
    expected, left = naive.count_successes(p.tolist(), group_size, state.tolist(), LANES)
    assert draw(p, group_size, state).tolist() == expected
    assert state.tolist() == left


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=70), st.integers(1, 3), st.integers(0, 2**32))
def test_kernel_equals_its_twin_for_any_p(p: list[float], group_size: int, seed: int) -> None:
    """Guards odd probabilities: subnormal, next to 1, not a multiple of 2^-53."""
    state = fresh_state(seed)
    expected, left = naive.count_successes(p, group_size, state.tolist(), LANES)
    assert draw(np.array(p), group_size, state).tolist() == expected
    assert state.tolist() == left


def test_certain_prompts_are_exact() -> None:
    """Guards p = 0 and p = 1, alone and beside uncertain neighbours: never and always a success."""
    mixed = np.tile([0.0, 1.0, 0.5], 3 * BLOCK)
    k = draw(mixed, 7, fresh_state(2))
    assert np.all(k[0::3] == 0)
    assert np.all(k[1::3] == 7)
    assert set(k[2::3].tolist()) == set(range(8))  # one of 8 missing: < 8 (127/128)^2048 < 1e-6
    assert np.all(draw(np.zeros(BLOCK + 3), 5, fresh_state(3)) == 0)
    assert np.all(draw(np.ones(BLOCK + 3), 5, fresh_state(4)) == 5)


def test_a_tie_takes_the_last_bit_of_p() -> None:
    """Guards what no simulation would meet: every p is set to the very uniform it will be compared with."""
    state = fresh_state(5)
    streams = [[int(state[LANES * w + lane]) for w in range(4)] for lane in range(LANES)]
    words = [[naive.xoshiro256pp(stream) for _ in range(53)] for stream in streams]
    uniforms = [
        sum(naive.bit_of(words[j % LANES][plane], j // LANES) * 2 ** (52 - plane) for plane in range(53))
        for j in range(BLOCK)
    ]
    k = draw(np.array([u / 2**53 for u in uniforms]), 1, state)
    assert k.tolist() == [u % 2 for u in uniforms]
    assert 0 < k.sum() < BLOCK
    assert state.tolist() == [streams[lane][w] for w in range(4) for lane in range(LANES)]  # 53 words a lane were read


@pytest.mark.parametrize("p", [0.001, 0.1, 1 / 3, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("group_size", [1, 4, 16])
def test_counts_are_binomial(p: float, group_size: int) -> None:
    """Guards the law of k: chi-square of 200 blocks against exact probabilities; false-fail rate 1e-6 a case."""
    prompts = 200 * BLOCK
    k = draw(np.full(prompts, p), group_size, fresh_state(group_size))
    expected = [prompts * math.comb(group_size, j) * p**j * (1 - p) ** (group_size - j) for j in range(group_size + 1)]
    observed = np.bincount(k, minlength=group_size + 1).tolist()
    common = [j for j in range(group_size + 1) if expected[j] >= 10]
    cells = [(observed[j], expected[j]) for j in common]
    rest = prompts - sum(o for o, _ in cells), prompts - sum(e for _, e in cells)
    cells += [rest] if rest[1] >= 10 else []
    if rest[1] < 10:  # too rare for chi-square: P(Poisson(10) > 35) < 1e-9
        assert rest[0] <= 35
    statistic = sum((o - e) ** 2 / e for o, e in cells)
    assert len(cells) >= 2
    assert statistic < chi2.isf(1e-6, len(cells) - 1)


def test_rollouts_are_independent() -> None:
    """Guards against words used twice: rewards as +-1 at p = 1/2, 19 pairings of rollouts, lanes and bits.

    The sum of n products of independent signs has mean 0 and standard error sqrt(n); 5.5 of them fail by chance at a
    rate of 4e-8 a pairing, 1e-6 together.
    """
    state, half = fresh_state(5), np.full(BLOCK, 0.5)
    signs = np.array([2 * draw(half, 1, state) - 1 for _ in range(128)]).reshape(128, 64, LANES)
    pairs = [(signs[lag:], signs[:-lag]) for lag in range(1, 8)]
    pairs += [(signs[:, lag:], signs[:, :-lag]) for lag in (1, 2, 17, 23, 41, 45)]
    pairs += [(signs[:, :, lag:], signs[:, :, :-lag]) for lag in (1, 2, 3, 4, 8, 16)]
    assert len(pairs) == 19
    for a, b in pairs:
        assert abs(np.sum(a * b)) < 5.5 * np.sqrt(a.size)


def test_groups_are_sums_of_single_rollouts() -> None:
    """Guards the bit-plane counter: G rollouts at once equal G calls for one, on the same words."""
    p = np.random.default_rng(6).random(BLOCK)
    together, apart = fresh_state(7), fresh_state(7)
    assert np.array_equal(draw(p, 21, together), sum(draw(p, 1, apart) for _ in range(21)))
    assert np.array_equal(together, apart)


def test_a_wide_counter_does_not_overflow() -> None:
    """Guards group sizes at powers of two, where the counter takes another digit: all successes at p = 1."""
    for group_size in (1, 2, 3, 4, 7, 8, 15, 16, 63, 64, 127, 128, 1023, 1024):
        assert np.all(draw(np.ones(3), group_size, fresh_state(8)) == group_size)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 6)), max_size=60))
def test_tally_equals_its_twin(groups: list[tuple[float, int]]) -> None:
    """Guards the sufficient statistics of a batch, to the last bit, and that they are added to what was there."""
    p, k = [g[0] for g in groups], [g[1] for g in groups]
    sums = np.zeros((3, 7))
    tally(np.array(p), np.array(k, dtype=np.int64), sums)
    assert sums.tolist() == naive.tally([p], [k], 6, TALLIES)
    tally(np.array(p), np.array(k, dtype=np.int64), sums)
    assert sums.tolist() == naive.tally([p, p], [k, k], 6, TALLIES)


@pytest.mark.parametrize("prompts", [1, BLOCK, 2 * BLOCK + 7])
def test_drawing_and_tallying_at_once(prompts: int) -> None:
    """Guards the fused loop: the same words, and each block's counts tallied in turn, to the last bit."""
    p = np.random.default_rng(10).random(prompts)
    fused, apart, sums = fresh_state(11), fresh_state(11), np.zeros((3, 6))
    draw_and_tally(p, 5, fused, sums)
    k = draw(p, 5, apart).tolist()
    blocks = range(0, prompts, BLOCK)
    p_blocks, k_blocks = [p[i : i + BLOCK].tolist() for i in blocks], [k[i : i + BLOCK] for i in blocks]
    assert sums.tolist() == naive.tally(p_blocks, k_blocks, 5, TALLIES)
    assert np.array_equal(fused, apart)


def test_transposition_moves_every_bit() -> None:
    """Guards the layout: bit j of row i goes to bit i of row j, in its own lane, for all 4096 bits."""
    for i in range(64):
        matrix = np.zeros(BLOCK, np.uint64)
        for j in range(64):
            matrix[LANES * i + j % LANES] |= np.uint64(1 << j)
        transpose_bits(matrix)
        expected = np.zeros(BLOCK, np.uint64)
        for j in range(64):
            expected[LANES * j + j % LANES] = np.uint64(1 << i)
        assert np.array_equal(matrix, expected)


def test_transposition_is_an_involution() -> None:
    """Guards full matrices: twice transposed is the same, and once is the twin's bit-by-bit transpose."""
    matrix = np.random.default_rng(9).integers(0, 2**64, BLOCK, dtype=np.uint64)
    once = matrix.copy()
    transpose_bits(once)
    for lane in (0, 1, LANES - 1):
        rows, columns = matrix[lane::LANES].tolist(), once[lane::LANES].tolist()
        assert columns == [sum(naive.bit_of(rows[j], i) * 2**j for j in range(64)) for i in range(64)]
    transpose_bits(once)
    assert np.array_equal(once, matrix)
