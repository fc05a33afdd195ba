r"""Which part of a text is its answer to a mathematical question: the last \boxed{...}, or else the end of the text."""

from __future__ import annotations

import re

TAIL = 2_000  # characters: math-verify's patterns take quadratic time on the endless repetitions bad policies write

_OPENING = re.compile(r"\\boxed\s*\{")
_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)  # a backslash takes the brace after it along


def last_box(text: str) -> str | None:
    r"""Contents of the last \boxed{...}: "" where it is empty or never closed, None where there is no box."""
    found = contents(text)
    return None if found is None else strip(found)


def contents(text: str) -> str | None:
    """`last_box`, as it is written."""
    found = _last(text)
    return None if found is None else text[found[1] : found[2]]


def compared(text: str) -> str:
    r"""The part of a text that decides its verdict: the last \boxed{...} as written, or the last TAIL characters."""
    found = _last(text)
    return text[-TAIL:] if found is None else text[found[0] : found[2] + 1]


def strip(content: str) -> str:
    """Without the white space around it and the full stop at its end."""
    return content.strip().rstrip(".").rstrip()


def _last(text: str) -> tuple[int, int, int] | None:
    """Where the last box starts, where its contents do, and its closing brace; where it has none, no contents."""
    openings = list(_OPENING.finditer(text))
    if not openings:
        return None
    opening, depth = openings[-1], 1
    for brace in _BRACES.finditer(text, opening.end()):
        depth += {"{": 1, "}": -1}.get(brace.group(), 0)
        if depth == 0:
            return opening.start(), opening.end(), brace.start()
    return opening.start(), opening.end(), opening.end()
