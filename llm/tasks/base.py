"""What every task is made of: cells (topic and level) and problems."""

from __future__ import annotations

from typing import NamedTuple


class Cell(NamedTuple):
    """A topic at a level; level 0 where the source gives none."""

    topic: str
    level: int


class Problem(NamedTuple):
    """A prompt, its right answer, and where it belongs.

    id: names the prompt wherever rollouts are grouped or logged: the prompt itself for generated problems, "source:own
    id or row" for data sets. messages: (role, content) pairs for a chat template where the data set gives them; empty
    means that the prompt stands alone.
    """

    prompt: str
    answer: str
    cell: Cell
    id: str = ""
    messages: tuple[tuple[str, str], ...] = ()
