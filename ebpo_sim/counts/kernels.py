"""The compiled inner loops; the only module that imports numba.

Bernoulli rewards are drawn a block at a time, one bit plane after another. A uniform U and a success
probability p are compared from their most significant bit on, and U < p is settled at the first bit where they
differ. A block is 64 * LANES prompts: prompt LANES i + l sits in bit i of word l, so a plane (one bit of every
p in the block) is LANES words; a transposition brings all planes into place. One random word per lane settles
half of the comparisons still open in it, and about a dozen planes settle them all: 0.2 random words a draw.
Successes are added in bit planes as well (a ripple-carry counter). Every inner loop runs over the lanes, which
the compiler turns into vector instructions; that is why arrays are flat, with the lane as the last index.

The plain-Python twin in tests/naive.py compares one prompt at a time on the same random words.
"""

from __future__ import annotations

import numpy as np
from numba import njit

LANES = 64
BLOCK = 64 * LANES  # prompts settled together
BITS = 53  # resolution of p: the mantissa of a float64
STATE_WORDS = 4 * LANES  # of the random stream
TALLIES = 8  # partial sums, a power of two

# Unsigned throughout: an index that might be negative would need a wrap-around test, which blocks vectorisation.
_U = np.uint64
_L = np.uint64(LANES)
_ZERO, _ONE = np.uint64(0), np.uint64(1)


@njit(cache=True, nogil=True)
def transpose_bits(matrix):
    """Transpose the 64 x 64 bit matrix of every lane in place: bit j of row i <-> bit i of row j.

    matrix (64 * LANES,), row-major. Swaps off-diagonal blocks of width 32, 16, ..., 1 (Warren 2012, section 7-3).
    """
    width = _U(32)
    mask = _U(0x00000000FFFFFFFF)
    while width > _ZERO:
        row = _ZERO
        while row < _U(64):
            low_at, high_at = _L * row, _L * (row + width)
            for lane in range(_L):
                low, high = matrix[low_at + lane], matrix[high_at + lane]
                swap = ((low >> width) ^ high) & mask
                matrix[high_at + lane] = high ^ swap
                matrix[low_at + lane] = low ^ (swap << width)
            row = (row + width + _ONE) & ~width
        width >>= _ONE
        mask ^= mask << width


@njit(cache=True, nogil=True)
def settle_plane(state, planes, bit, still_open, hit):
    """Compare one random word per lane with plane `bit`; returns the OR of the comparisons still open.

    The random words are one xoshiro256++ step in each lane (Blackman and Vigna 2021), state (4 * LANES,).
    """
    base = bit * _L
    undecided = _ZERO
    for lane in range(_L):
        s0, s1, s2, s3 = state[lane], state[_L + lane], state[_U(2) * _L + lane], state[_U(3) * _L + lane]
        total = s0 + s3
        word = ((total << _U(23)) | (total >> _U(41))) + s0
        s2 ^= s0
        s3 ^= s1
        state[lane] = s0 ^ s3
        state[_U(2) * _L + lane] = s2 ^ (s1 << _U(17))
        state[_L + lane] = s1 ^ s2
        state[_U(3) * _L + lane] = (s3 << _U(45)) | (s3 >> _U(19))
        plane = planes[base + lane]
        differs = word ^ plane
        hit[lane] |= still_open[lane] & differs & plane
        left = still_open[lane] & ~differs
        still_open[lane] = left
        undecided |= left
    return undecided


@njit(cache=True, nogil=True)
def add_hits(hit, digits, counter):
    """counter += hit, a number of `digits` bit planes for each of the block's prompts; `hit` is used up."""
    for digit in range(digits):
        base = digit * _L
        for lane in range(_L):
            both = counter[base + lane] & hit[lane]
            counter[base + lane] ^= hit[lane]
            hit[lane] = both


@njit(cache=True, nogil=True)
def read_counts(counter, digits, row, counts):
    """The counts of prompts LANES row .. LANES row + LANES - 1 of the block, gathered from the bit planes."""
    for lane in range(_L):
        counts[lane] = _ZERO
    for digit in range(digits):
        for lane in range(_L):
            counts[lane] |= ((counter[digit * _L + lane] >> row) & _ONE) << digit


@njit(cache=True, nogil=True)
def count_successes(p_P, group_size, state, successes_P):
    """Draw k_i ~ Binomial(group_size, p_i) by group_size Bernoulli draws each; advances `state`.

    p_P (P,) float64 in [0, 1]; state (STATE_WORDS,) uint64 from a SeedSequence; successes_P (P,) int64, written.
    p is resolved to 2^-53, a tie taking p's last bit; 0 and 1 are exact.
    """
    planes = np.zeros(BLOCK, np.uint64)
    still_open = np.empty(LANES, np.uint64)
    hit = np.empty(LANES, np.uint64)
    counts = np.empty(LANES, np.uint64)
    digits = _ZERO
    while (_ONE << digits) <= _U(group_size):
        digits += _ONE
    counter = np.empty(int(digits) * LANES, np.uint64)
    for start in range(_ZERO, _U(len(p_P)), _U(BLOCK)):
        size = min(_U(BLOCK), _U(len(p_P)) - start)
        for j in range(size):
            # 2^53 - 1, all ones, stands for p = 1: it can only be hit, or stay open and take its last bit, 1.
            planes[j] = _U(min(p_P[start + j] * 9007199254740992.0, 9007199254740991.0))
        planes[size:] = _ZERO
        transpose_bits(planes)
        counter[:] = _ZERO
        for _ in range(group_size):
            still_open[:] = _U(0xFFFFFFFFFFFFFFFF)
            hit[:] = _ZERO
            bit = _U(BITS)
            undecided = _ONE
            while undecided != _ZERO and bit > _ZERO:
                bit -= _ONE
                undecided = settle_plane(state, planes, bit, still_open, hit)
            for lane in range(_L):
                hit[lane] |= still_open[lane] & planes[lane]
            add_hits(hit, digits, counter)
        for row in range(_U(64)):
            first = _L * row
            if first >= size:
                break
            read_counts(counter, digits, row, counts)
            for lane in range(min(_L, size - first)):
                successes_P[start + first + lane] = counts[lane]


@njit(cache=True, nogil=True)
def tally(p_P, successes_P, sums):
    """Add each group to `sums` (3, G+1) at its k: number of groups, sum of p, sum of p^2.

    These are all that any table b[k] needs for its squared error: sum_k n b^2 - 2 b sum p + sum p^2.
    Prompt i goes to partial sum i mod TALLIES, because adding to the cell just written would wait for it; the
    partial sums are added in order at the end.
    """
    parts = np.zeros(4 * TALLIES * sums.shape[1])  # [k, partial sum, quantity], padded to four
    for i in range(_U(len(p_P))):
        p = p_P[i]
        cell = _U(4) * (_U(TALLIES) * _U(successes_P[i]) + (i & _U(TALLIES - 1)))
        parts[cell] += 1.0
        parts[cell + _ONE] += p
        parts[cell + _U(2)] += p * p
    for k in range(sums.shape[1]):
        for part in range(TALLIES):
            for quantity in range(3):
                sums[quantity, k] += parts[4 * (TALLIES * k + part) + quantity]


@njit(cache=True, nogil=True)
def draw_and_tally(p_P, group_size, state, sums):
    """`count_successes` and `tally` block by block, so that the counts never leave the first-level cache."""
    successes = np.empty(BLOCK, np.int64)
    for start in range(0, len(p_P), BLOCK):
        block = p_P[start : start + BLOCK]
        count_successes(block, group_size, state, successes[: len(block)])
        tally(block, successes[: len(block)], sums)
