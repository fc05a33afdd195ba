"""Digits that sum to a number, out of five that may be used again: many right answers, so that diversity is measurable.

    +17:24579=    9+4+4    5+5+7, 2+2+4+9 and more

Level: digits of the answer that the problem was made from; an answer may have any number of them. Answers with the same
digits in another order count as one answer.
"""

from __future__ import annotations

from random import Random

from llm.tasks.family import Family


def draw(rng: Random, level: int) -> tuple[str, str]:
    """A sum of `level` of five digits; the gold answer is the question, as there is no one right answer."""
    digits = "".join(sorted(rng.sample("123456789", 5)))
    gold = f"{sum(int(rng.choice(digits)) for _ in range(level))}:{digits}"
    return f"+{gold}=", gold


def worked(prompt: str, gold: str, rng: Random) -> str:
    """Digits chosen at random among those that leave a rest within reach, at most one digit more than needed."""
    total, _, allowed = gold.partition(":")
    rest, used = int(total), [int(x) for x in allowed]
    found: list[int] = []
    fewest = [0]  # digits that a rest needs at least; 99: it cannot be reached
    for value in range(1, rest + 1):
        fewest.append(min((1 + fewest[value - x] for x in used if x <= value), default=99))
    while rest:
        left = fewest[int(total)] - len(found)
        found.append(rng.choice([x for x in used if x <= rest and fewest[rest - x] <= max(left, fewest[rest] - 1)]))
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
