"""Addition digit by digit, with scratch space: from the lowest on, both digits, the digit of the sum, the carry.

    :58+67=    8751 5621 =125    without the spaces: 8 + 7 is 5 carry 1, 5 + 6 + 1 is 2 carry 1

Level: digits of both numbers, leading zeros kept. What stands after the last = counts, with or without the working.
"""

from __future__ import annotations

from random import Random

from llm.tasks.family import Family


def draw(rng: Random, level: int) -> tuple[str, str]:
    """Two numbers of `level` digits, and their sum with `level` or one more."""
    a, b = (rng.randrange(10**level) for _ in "ab")
    return f":{a:0{level}}+{b:0{level}}=", f"{a + b:0{level}}"


def worked(prompt: str, gold: str, rng: Random) -> str:
    """The working and the sum."""
    carry, steps = 0, ""
    a, b = prompt[1:-1].split("+")
    for x, y in zip(reversed(a), reversed(b), strict=True):
        carry, digit = divmod(int(x) + int(y) + carry, 10)
        steps += f"{x}{y}{digit}{carry}"
    return f"{steps}={gold}"


FAMILY = Family(
    levels=(1, 2, 3, 4, 5), traced=3, longer=(6, 7), draw=draw, worked=worked, longest=lambda level: 5 * level + 2,
    pattern=r":[0-9]+\+[0-9]+=", final=lambda text: text.rpartition("=")[2],
)  # fmt: skip
