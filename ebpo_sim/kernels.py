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

LANES = 32
BLOCK = 64 * LANES  # prompts settled together
BITS = 53  # resolution of p: the mantissa of a float64
STATE_WORDS = 4 * LANES  # of the random stream

_U = np.uint64
_ONE = np.uint64(1)


@njit(cache=True, nogil=True)
def _transpose_bits(matrix):
    """Transpose the 64 x 64 bit matrix of every lane in place: bit j of row i <-> bit i of row j.

    matrix (64 * LANES,), row-major. Swaps off-diagonal blocks of width 32, 16, ..., 1 (Warren 2012, section 7-3).
    """
    width = 32
    mask = _U(0x00000000FFFFFFFF)
    while width > 0:
        row = 0
        while row < 64:
            low_at, high_at = LANES * row, LANES * (row + width)
            for lane in range(LANES):
                low, high = matrix[low_at + lane], matrix[high_at + lane]
                swap = ((low >> _U(width)) ^ high) & mask
                matrix[high_at + lane] = high ^ swap
                matrix[low_at + lane] = low ^ (swap << _U(width))
            row = (row + width + 1) & ~width
        width >>= 1
        mask ^= mask << _U(width)


@njit(cache=True, nogil=True)
def _settle_plane(state, planes, bit, still_open, hit):
    """Compare one random word per lane with plane `bit`; returns the OR of the comparisons still open.

    The random words are one xoshiro256++ step in each lane (Blackman and Vigna 2021), state (4 * LANES,).
    """
    base = bit * LANES
    undecided = _U(0)
    for lane in range(LANES):
        s0, s1, s2, s3 = state[lane], state[LANES + lane], state[2 * LANES + lane], state[3 * LANES + lane]
        total = s0 + s3
        word = ((total << _U(23)) | (total >> _U(41))) + s0
        s2 ^= s0
        s3 ^= s1
        state[lane] = s0 ^ s3
        state[2 * LANES + lane] = s2 ^ (s1 << _U(17))
        state[LANES + lane] = s1 ^ s2
        state[3 * LANES + lane] = (s3 << _U(45)) | (s3 >> _U(19))
        plane = planes[base + lane]
        differs = word ^ plane
        hit[lane] |= still_open[lane] & differs & plane
        left = still_open[lane] & ~differs
        still_open[lane] = left
        undecided |= left
    return undecided


@njit(cache=True, nogil=True)
def _add_hits(hit, still_open, last_plane, digits, counter):
    """counter += hit, as `digits` bit planes; a comparison open to the end takes the last bit of p."""
    for lane in range(LANES):
        hit[lane] |= still_open[lane] & last_plane[lane]
    for digit in range(digits):
        base = digit * LANES
        for lane in range(LANES):
            both = counter[base + lane] & hit[lane]
            counter[base + lane] ^= hit[lane]
            hit[lane] = both


@njit(cache=True, nogil=True)
def count_successes(p_P, group_size, state, successes_P):
    """Draw k_i ~ Binomial(group_size, p_i) by group_size Bernoulli draws each; advances `state`.

    p_P (P,) float64 in [0, 1]; state (STATE_WORDS,) uint64, not all zero; successes_P (P,) int64, written.
    p is resolved to 2^-53; 0 and 1 are exact.
    """
    planes = np.zeros(BLOCK, np.uint64)
    still_open = np.empty(LANES, np.uint64)
    hit = np.empty(LANES, np.uint64)
    digits = 0
    while (1 << digits) <= group_size:
        digits += 1
    counter = np.empty(digits * LANES, np.uint64)
    counts = np.empty(LANES, np.uint64)
    for start in range(0, len(p_P), BLOCK):
        size = min(BLOCK, len(p_P) - start)
        for j in range(size):
            # 2^53 - 1, all ones, stands for p = 1: it can only be hit, or stay open and take its last bit, 1.
            planes[j] = _U(min(p_P[start + j] * 9007199254740992.0, 9007199254740991.0))
        planes[size:] = _U(0)
        _transpose_bits(planes)
        counter[:] = _U(0)
        for _ in range(group_size):
            still_open[:] = _U(0xFFFFFFFFFFFFFFFF)
            hit[:] = _U(0)
            bit = BITS
            undecided = _ONE
            while undecided != _U(0) and bit > 0:
                bit -= 1
                undecided = _settle_plane(state, planes, bit, still_open, hit)
            _add_hits(hit, still_open, planes[:LANES], digits, counter)
        for i in range(64):
            first = LANES * i
            counts[:] = _U(0)
            for digit in range(digits):
                for lane in range(LANES):
                    counts[lane] |= ((counter[digit * LANES + lane] >> _U(i)) & _ONE) << _U(digit)
            for lane in range(min(LANES, size - first)):
                successes_P[start + first + lane] = np.int64(counts[lane])


@njit(cache=True, nogil=True)
def tally(p_P, successes_P, sums):
    """Add each group to `sums` (3, G+1) at its k: number of groups, sum of p, sum of p^2.

    These are all that any table b[k] needs for its squared error: sum_k n b^2 - 2 b sum p + sum p^2.
    """
    for i in range(len(p_P)):
        p, k = p_P[i], successes_P[i]
        sums[0, k] += 1.0
        sums[1, k] += p
        sums[2, k] += p * p
