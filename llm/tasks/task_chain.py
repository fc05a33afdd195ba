"""Chains of operations modulo 5 or 7, from left to right, with the result after each.

    %7:3*4+5=    5>3    3 * 4 is 5, and 5 + 5 is 3

Level: operations. What stands after the last > counts, with or without the working.
"""

from __future__ import annotations

from random import Random

from llm.tasks.family import Family

OPERATIONS = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}


def steps(prompt: str) -> list[int]:
    """The result after each operation."""
    modulus, value, found = int(prompt[1]), int(prompt[3]), []
    for sign, number in zip(prompt[4:-1:2], prompt[5:-1:2], strict=True):
        value = OPERATIONS[sign](value, int(number)) % modulus
        found.append(value)
    return found


def draw(rng: Random, level: int) -> tuple[str, str]:
    """A chain of `level` operations on numbers below the modulus, and its result."""
    modulus = rng.choice((5, 7))
    chain = "".join(f"{rng.choice('+-*')}{rng.randrange(modulus)}" for _ in range(level))
    prompt = f"%{modulus}:{rng.randrange(modulus)}{chain}="
    return prompt, str(steps(prompt)[-1])


def worked(prompt: str, gold: str, rng: Random) -> str:
    """All results, the last one being the answer."""
    return ">".join(map(str, steps(prompt)))


FAMILY = Family(
    levels=(2, 3, 4, 5, 6), traced=4, longer=(7, 8), draw=draw, worked=worked, longest=lambda level: 2 * level - 1,
    pattern=r"%[57]:[0-6]([-+*][0-6])+=", final=lambda text: text.rpartition(">")[2],
)  # fmt: skip
