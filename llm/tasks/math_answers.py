r"""Is an answer mathematically equal to the gold answer? The verifier "math", by math-verify; runs in a worker.

What is compared, in this order:
1. The last \boxed{...} of the text, and nothing else: an earlier box does not count, so two boxes are one answer, the
   last. An empty or unclosed last box is no answer.
2. In a text without a box what math-verify finds in its last `TAIL` characters: after "answer is" or "answer:", else
   the last expression. Tuples, intervals and sets are found only between dollars or in a box.

What counts as equal (measured, and pinned by tests): different forms of a number (1/2, 0.5, \frac12; 1,234; 3.0), an
expression that evaluates to it (2+5 for 7), 50% for both 50 and 0.5, x = 3 for 3, sets in any order, a unit or
\text{} left out; floats to six decimals. Not equal: a rounded value (0.33 for 1/3), a list of candidates ("3 or 4" is
the set {3, 4}), open for closed intervals, tuples in another order, digits outside ASCII.
Source: https://github.com/huggingface/Math-Verify
"""

from __future__ import annotations

import logging
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import math_verify

if TYPE_CHECKING or __package__:
    from llm.tasks.final_answer import TAIL, last_box, strip
else:  # in a worker, which imports this file alone: the package needs torch
    from final_answer import TAIL, last_box, strip

DEEPEST = 20  # brackets within brackets of a box; parsing takes exponential time in them
logging.getLogger("math_verify").setLevel(logging.CRITICAL)  # it warns of the missing time limit: the worker has one

_INTEGER = re.compile(r"-?[0-9]{1,18}")


def check(answer: str, gold: str) -> bool:
    """Whether the final answer in `answer` equals `gold`, itself LaTeX or plain, boxed or not.

    Raises ValueError for a gold answer in which there is nothing to compare.
    """
    box, gold_box = last_box(answer), last_box(gold)
    wanted = strip(gold) if gold_box is None else gold_box
    if box is not None and _INTEGER.fullmatch(box) and _INTEGER.fullmatch(wanted):  # most answers; parsing takes ms
        return int(box) == int(wanted)
    if box is not None and wanted and (len(box) > max(TAIL, 2 * len(wanted)) or _depth(box) > _depth(wanted) + DEEPEST):
        return False
    return _equal(answer[-TAIL:] if box is None else _boxed(box), _boxed(wanted))


@lru_cache(maxsize=4096)  # the answers of a group repeat each other
def _equal(answer: str, gold: str) -> bool:
    wanted = _parse(gold)
    if not wanted:
        raise ValueError(f"nothing to compare in the gold answer {gold!r}")
    return bool(math_verify.verify(wanted, _parse(answer), timeout_seconds=None))


@lru_cache(maxsize=4096)
def _parse(text: str) -> list[Any]:
    found: list[Any] = math_verify.parse(text, parsing_timeout=None)
    return found


def _depth(content: str) -> int:
    """The deepest brackets of any kind."""
    deepest = depth = 0
    for character in content:
        if character in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in ")]}":
            depth = max(0, depth - 1)
    return deepest


def _boxed(content: str) -> str:
    return f"\\boxed{{{content}}}" if content else ""


for _answer in (r"\frac12", "x+1", r"2\sqrt{3}", "(1,2)", r"\{1,2\}"):  # its first uses of each kind take a second
    _equal(_boxed(_answer), _boxed(_answer))
_equal("The answer is 1/2", _boxed("7"))
