"""Generated tasks that are a file each: what such a file says, and where they are found.

A file llm/tasks/task_NAME.py holds FAMILY, and NAME is then a topic of the generated task: --topics NAME. There are
three ranges of sizes: those whose worked answers the warm start imitates (up to `traced`), those that reinforcement
learning meets (`levels`), and those that nothing is trained on (`longer`), for length generalisation.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import NamedTuple

from llm.tasks.base import Problem

PREFIX = "task_"


def _plain(text: str) -> str:
    return text


class Family(NamedTuple):
    """A generated task. Prompts and answers are made of the characters of `llm.tasks.tokenizer`.

    draw(rng, level): (prompt, gold answer). worked(prompt, gold, rng): a right answer with its working, of at most
    longest(level) characters. final(text): what of an answer counts, alike for answers that are the same one.
    right(text, gold): whether an answer is right; None: final(text) is the gold one. many: a problem has many right
    answers. pattern: a regular expression of the prompts, no other task's.
    """

    levels: tuple[int, ...]
    traced: int
    longer: tuple[int, ...]
    draw: Callable[[Random, int], tuple[str, str]]
    worked: Callable[[str, str, Random], str]
    longest: Callable[[int], int]
    pattern: str
    final: Callable[[str], str] = _plain
    right: Callable[[str, str], bool] | None = None
    many: bool = False

    def score(self, text: str, gold: str) -> float:
        """1.0 for a right answer, else 0.0."""
        return float(self.final(text) == gold if self.right is None else self.right(text, gold))


@cache
def names() -> tuple[str, ...]:
    """The topics that have a file."""
    return tuple(sorted(path.stem.removeprefix(PREFIX) for path in Path(__file__).parent.glob(f"{PREFIX}*.py")))


def module_of(topic: str) -> str:
    """The dotted name of a topic's file."""
    return f"{__package__}.{PREFIX}{topic}"


def family(topic: str) -> Family | None:
    """The family of a topic; None for a topic without a file."""
    return importlib.import_module(module_of(topic)).FAMILY if topic in names() else None


def compared_text(problem: Problem, text: str) -> str:
    """What of an answer counts."""
    found = family(problem.cell.topic)
    return text if found is None or problem.id != problem.prompt else found.final(text)


def has_many(problem: Problem) -> bool:
    """Whether a problem is known to have many right answers."""
    found = family(problem.cell.topic)
    return found is not None and problem.id == problem.prompt and found.many
