"""A generated family of problems: seven topics, levels from trivial to hopeless, split by `llm.tasks.splits`.

    topic    prompt        answer   level = size, difficulty grows with it
    add      12+7=         19       digits of the larger operand, 1 to 4
    sub      12-7=         5        the same; never negative
    mul      12*7=         84       digits of the first factor, 1 to 3
    mod      12%7=         5        digits of the dividend, 1 to 4; divisor 2 to 9
    reverse  <abc=         cba      letters, 3 to 8
    sort     >cab=         abc      letters, 3 to 8
    count    #a:abca=      2        letters, 3, 5, 7 or 9

Pass rates of a briefly warm-started model spread over [0, 1]; topics, levels and warm-up steps shift them. More topics,
with working or many right answers, have files of their own (`llm.tasks.family`) and are there when they are named.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence

from ebpo_sim.errors import InputError, unknown_name
from llm.tasks.base import Cell, Problem
from llm.tasks.family import family, names
from llm.tasks.splits import Split, split_of

MAX_ANSWER = 8  # characters of the longest gold answer
LETTERS = "abcdefghij"
PROMPT = re.compile(rf"[0-9]+[-+*%][0-9]+=|[<>][{LETTERS}]+=|#[{LETTERS}]:[{LETTERS}]+=")  # any of the family


def _number(rng: random.Random, digits: int) -> int:
    return rng.randrange(0 if digits == 1 else 10 ** (digits - 1), 10**digits)


def _letters(rng: random.Random, length: int, alphabet: str = LETTERS) -> str:
    return "".join(rng.choices(alphabet, k=length))


def _add(rng: random.Random, level: int) -> tuple[str, str]:
    a, b = _number(rng, level), rng.randrange(10**level)
    if rng.random() < 0.5:
        a, b = b, a
    return f"{a}+{b}=", str(a + b)


def _sub(rng: random.Random, level: int) -> tuple[str, str]:
    a = _number(rng, level)
    b = rng.randrange(a + 1)
    return f"{a}-{b}=", str(a - b)


def _mul(rng: random.Random, level: int) -> tuple[str, str]:
    a, b = _number(rng, level), rng.randrange(10)
    return f"{a}*{b}=", str(a * b)


def _mod(rng: random.Random, level: int) -> tuple[str, str]:
    a, b = _number(rng, level), rng.randrange(2, 10)
    return f"{a}%{b}=", str(a % b)


def _reverse(rng: random.Random, level: int) -> tuple[str, str]:
    text = _letters(rng, level)
    return f"<{text}=", text[::-1]


def _sort(rng: random.Random, level: int) -> tuple[str, str]:
    text = _letters(rng, level)
    return f">{text}=", "".join(sorted(text))


def _count(rng: random.Random, level: int) -> tuple[str, str]:
    text = _letters(rng, level, LETTERS[:4])
    letter = rng.choice(LETTERS[:4])
    return f"#{letter}:{text}=", str(text.count(letter))


_MAKERS: dict[str, tuple[Callable[[random.Random, int], tuple[str, str]], tuple[int, ...]]] = {
    "add": (_add, (1, 2, 3, 4)),
    "sub": (_sub, (1, 2, 3, 4)),
    "mul": (_mul, (1, 2, 3)),
    "mod": (_mod, (1, 2, 3, 4)),
    "reverse": (_reverse, (3, 4, 5, 6, 7, 8)),
    "sort": (_sort, (3, 4, 5, 6, 7, 8)),
    "count": (_count, (3, 5, 7, 9)),
}
TOPICS = tuple(_MAKERS)
CELLS = tuple(Cell(topic, level) for topic, (_, levels) in _MAKERS.items() for level in levels)


def cells(topics: str = "all", max_level: int = 9) -> tuple[Cell, ...]:
    """The cells of the named topics ("add,sub", or "all" of the seven) up to a level.

    Raises InputError for an unknown topic, and where no cell is left.
    """
    wanted = _wanted(topics)
    found = tuple(cell for cell in CELLS if cell.topic in wanted)
    found += tuple(Cell(topic, level) for topic in wanted for level in _levels(topic, "levels"))
    found = tuple(cell for cell in found if cell.level <= max_level)
    if not found:
        raise InputError(f"no level of {topics!r} is at most {max_level}: raise --max-level (letters start at 3)")
    return found


def longer_cells(topics: str) -> tuple[Cell, ...]:
    """The cells of the named topics whose sizes nothing is trained on. Raises InputError where there is none."""
    found = tuple(Cell(topic, level) for topic in _wanted(topics) for level in _levels(topic, "longer"))
    if not found:
        raise InputError(f"no topic of {topics!r} has sizes beyond those that are trained: {', '.join(names())} have")
    return found


def _wanted(topics: str) -> tuple[str, ...]:
    wanted = TOPICS if topics == "all" else tuple(topics.split(","))
    for topic in wanted:
        if topic not in (*TOPICS, *names()):
            raise unknown_name("topic", topic, (*TOPICS, *names()))
    return wanted


def _levels(topic: str, sizes: str) -> tuple[int, ...]:
    found = family(topic)
    return () if found is None else getattr(found, sizes)


def traced(chosen: Sequence[Cell]) -> tuple[Cell, ...]:
    """The cells whose answers a warm start may imitate. Raises InputError where there is none."""
    found = tuple(cell for cell in chosen if (known := family(cell.topic)) is None or cell.level <= known.traced)
    if not found:
        raise InputError(f"no cell of {', '.join(f'{t} {n}' for t, n in chosen)} has worked answers: name others")
    return found


def worked(problem: Problem, rng: random.Random) -> str:
    """A right answer, with its working where the topic has one."""
    found = family(problem.cell.topic)
    return problem.answer if found is None else found.worked(problem.prompt, problem.answer, rng)


def longest_answer(chosen: Sequence[Cell]) -> int:
    """Characters of the longest worked answer."""
    return max(MAX_ANSWER if (f := family(cell.topic)) is None else f.longest(cell.level) for cell in chosen)


def is_generated(prompt: str) -> bool:
    """Whether a prompt has the form of a generated one."""
    patterns = [PROMPT.pattern, *(found.pattern for topic in names() if (found := family(topic)))]
    return any(re.fullmatch(pattern, prompt) for pattern in patterns)


def draw(rng: random.Random, cell: Cell) -> Problem:
    """A random problem of the cell, of any split."""
    found = family(cell.topic)
    prompt, answer = (_MAKERS[cell.topic][0] if found is None else found.draw)(rng, cell.level)
    return Problem(prompt, answer, cell, id=prompt)


def stream(split: Split, chosen: Sequence[Cell], rng: random.Random) -> Iterator[Problem]:
    """Endless problems of a split, balanced over cells: a pool of distinct ones would starve the smallest cells."""
    while True:
        cell = rng.choice(chosen)
        problem = next(p for p in (draw(rng, cell) for _ in range(1000)) if split_of(p.prompt) == split)
        yield problem


def pool(split: Split, chosen: Sequence[Cell], per_cell: int, seed: int) -> list[Problem]:
    """Up to `per_cell` distinct problems of every cell; cells with fewer in the split give what they have.

    Tries are capped (a cell of one-digit sums has about a hundred prompts in all), so this always ends.
    """
    if per_cell < 1:
        raise InputError(f"problems per cell must be at least 1, got {per_cell}")
    found: list[Problem] = []
    for cell in chosen:
        rng = random.Random(f"{seed} {split} {cell.topic} {cell.level}")
        distinct: dict[str, Problem] = {}
        for _ in range(200 + 30 * per_cell):
            problem = draw(rng, cell)
            if split_of(problem.prompt) == split:
                distinct.setdefault(problem.prompt, problem)
            if len(distinct) == per_cell:
                break
        found += distinct.values()
    return found
