"""Sorting by swaps: the word after each swap of its first letter out of place with the least one behind it.

    *cadb=    acdb>abdc>abcd

Level: letters. What stands after the last > counts, with or without the working; a sorted word needs no swap.
"""

from __future__ import annotations

from random import Random

from llm.tasks.family import Family

LETTERS = "abcdefghij"


def states(word: str) -> list[str]:
    """The word after each swap of selection sort."""
    letters, found = list(word), []
    for i in range(len(letters)):
        least = min(range(i, len(letters)), key=letters.__getitem__)
        if letters[least] != letters[i]:
            letters[i], letters[least] = letters[least], letters[i]
            found.append("".join(letters))
    return found


def draw(rng: Random, level: int) -> tuple[str, str]:
    """A word of `level` letters, and the letters in order."""
    word = "".join(rng.choices(LETTERS, k=level))
    return f"*{word}=", "".join(sorted(word))


def worked(prompt: str, gold: str, rng: Random) -> str:
    """The word after each swap, or the word itself."""
    return ">".join(states(prompt[1:-1]) or [gold])


FAMILY = Family(
    levels=(3, 4, 5, 6), traced=5, longer=(7,), draw=draw, worked=worked, longest=lambda level: level * level - 2,
    pattern=rf"\*[{LETTERS}]+=", final=lambda text: text.rpartition(">")[2],
)  # fmt: skip
