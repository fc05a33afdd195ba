"""Plain-Python twins of the compiled kernels: ints, floats and loops, nothing clever. Slow on purpose."""

from __future__ import annotations

from collections.abc import Sequence

BITS = 53
WORD = 2**64


def rotate_left(x: int, by: int) -> int:
    """The 64-bit word x with its bits moved `by` places up, those that fall off coming in below."""
    return (x * 2**by % WORD) + x // 2 ** (64 - by)


def xoshiro256pp(state: list[int]) -> int:
    """One step of xoshiro256++ as published (Blackman and Vigna): the next word; `state` (4 words) is advanced."""
    word = (rotate_left((state[0] + state[3]) % WORD, 23) + state[0]) % WORD
    shifted = state[1] * 2**17 % WORD
    state[2] ^= state[0]
    state[3] ^= state[1]
    state[1] ^= state[2]
    state[0] ^= state[3]
    state[2] ^= shifted
    state[3] = rotate_left(state[3], 45)
    return word


def bit_of(word: int, place: int) -> int:
    """Bit number `place` of a word, 0 the least significant."""
    return word // 2**place % 2


def fixed_point(p: float) -> int:
    """p in steps of 2^-53, cut off; 1 is the largest number of 53 bits."""
    return min(int(p * 2**BITS), 2**BITS - 1)


def is_below(words: Sequence[int], place: int, p_bits: int) -> bool:
    """Whether the uniform whose bits stand at `place` of words 0..52, highest first, is below p; a tie takes p's last
    bit."""
    for plane, word in enumerate(words):
        u, digit = bit_of(word, place), bit_of(p_bits, BITS - 1 - plane)
        if u != digit:
            return digit == 1
    return p_bits % 2 == 1


def bits_read(words: Sequence[int], place: int, p_bits: int) -> int:
    """How many planes that comparison looks at."""
    for plane, word in enumerate(words):
        if bit_of(word, place) != bit_of(p_bits, BITS - 1 - plane):
            return plane + 1
    return BITS


def count_successes(
    p: Sequence[float], group_size: int, state: Sequence[int], lanes: int
) -> tuple[list[int], list[int]]:
    """(successes of each prompt, state afterwards), one prompt at a time.

    A block is 64 * lanes prompts, the last one filled up with p = 0; prompt lanes * i + l of a block reads bit i of
    the words of lane l. A rollout of the block takes one word from every lane for each plane, until the comparison
    of every prompt is settled. `state` is flat: word w of lane l at w * lanes + l.
    """
    streams = [[int(state[lanes * w + lane]) for w in range(4)] for lane in range(lanes)]
    successes = []
    for start in range(0, len(p), 64 * lanes):
        block = [fixed_point(x) for x in p[start : start + 64 * lanes]]
        padded = block + [0] * (64 * lanes - len(block))
        found = [0] * len(padded)
        for _ in range(group_size):
            after = []  # each lane's stream after 0, 1, ..., 53 words
            words = []
            for lane in range(lanes):
                ahead, drawn, trail = list(streams[lane]), [], [list(streams[lane])]
                for _ in range(BITS):
                    drawn.append(xoshiro256pp(ahead))
                    trail.append(list(ahead))
                words.append(drawn)
                after.append(trail)
            depth = 0
            for j, p_bits in enumerate(padded):
                i, lane = j // lanes, j % lanes
                found[j] += is_below(words[lane], i, p_bits)
                depth = max(depth, bits_read(words[lane], i, p_bits))
            streams = [after[lane][depth] for lane in range(lanes)]
        successes += found[: len(block)]
    return successes, [streams[lane][w] for w in range(4) for lane in range(lanes)]


def tally(
    p: Sequence[Sequence[float]], successes: Sequence[Sequence[int]], group_size: int, parts: int
) -> list[list[float]]:
    """[number of groups, sum of p, sum of p^2] by number of successes, over several calls.

    In a call, group i is added to partial sum i mod `parts`; the partial sums are then added in order.
    """
    sums = [[0.0] * (group_size + 1) for _ in range(3)]
    for p_call, k_call in zip(p, successes, strict=True):
        for part in range(parts):
            partial = [[0.0] * (group_size + 1) for _ in range(3)]
            for x, k in list(zip(p_call, k_call, strict=True))[part::parts]:
                partial[0][k] += 1.0
                partial[1][k] += x
                partial[2][k] += x * x
            for row, added in zip(sums, partial, strict=True):
                for k in range(group_size + 1):
                    row[k] += added[k]
    return sums
