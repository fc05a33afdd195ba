"""Digits that sum to a number, out of five that may be used again: many right answers, so that diversity is measurable.

    +17:24579=    9+4+4    5+5+7, 2+2+4+9 and more

Level: digits that an answer needs at least; it may have more. Answers with the same digits in another order count as
one answer.
"""

from __future__ import annotations

from random import Random

from llm.tasks.family import Family

UNREACHABLE = 99


def fewest(digits: str, most: int) -> list[int]:
    """How many of the digits the numbers from 0 to `most` need at least; UNREACHABLE for what is no sum of them."""
    found = [0]
    for value in range(1, most + 1):
        found.append(min((1 + found[value - x] for x in map(int, digits) if x <= value), default=UNREACHABLE))
    return found


def draw(rng: Random, level: int) -> tuple[str, str]:
    """A sum that needs `level` of five digits; the gold answer is the question, as there is no one right answer."""
    digits = "".join(sorted(rng.sample("123456789", 5)))
    needed = fewest(digits, level * int(digits[-1]))
    gold = f"{rng.choice([value for value, least in enumerate(needed) if least == level])}:{digits}"
    return f"+{gold}=", gold


def worked(prompt: str, gold: str, rng: Random) -> str:
    """Digits chosen at random among those that leave a rest within reach, at most one digit more than needed."""
    total, _, allowed = gold.partition(":")
    rest, needed = int(total), fewest(allowed, int(total))
    found: list[int] = []
    while rest:
        left = needed[-1] - len(found)
        choice = [x for x in map(int, allowed) if x <= rest and needed[rest - x] <= max(left, needed[rest] - 1)]
        found.append(rng.choice(choice))
        rest -= found[-1]
    return "+".join(map(str, found))


def right(text: str, gold: str) -> bool:
    """Whether the text is allowed digits with plus signs between them, and their sum is the one that is asked for."""
    total, _, allowed = gold.partition(":")
    parts = text.split("+")
    return all(len(part) == 1 and part in allowed for part in parts) and sum(map(int, parts)) == int(total)


FAMILY = Family(
    levels=(2, 3, 4, 5), traced=3, longer=(6, 7), draw=draw, worked=worked, longest=lambda level: 2 * level + 3,
    pattern=r"\+[0-9]+:[1-9]{5}=", final=lambda text: "+".join(sorted(text.split("+"))), right=right, many=True,
)  # fmt: skip
