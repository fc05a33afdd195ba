r"""Problems of reasoning-gym (https://github.com/open-thought/reasoning-gym), an optional library of about a hundred
generators with verifiers: --dataset reasoning_gym:NAME or reasoning_gym:NAME:size=500,seed=1,max_digits=3.

size (default 500) and seed (default 0) say which problems; other settings are the generator's own. A problem's gold
answer names the place it was generated at, and the verifier, in a worker, generates it again: what is right is decided
by the library alone, on the last \boxed{...} of an answer, or the whole of an answer without one. Full marks are 1,
everything else is 0. The library is imported when it is asked for.
"""

from __future__ import annotations

import ast
import hashlib
import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __package__:
    from llm.tasks.final_answer import last_box
else:  # in a worker, which imports this file alone
    from final_answer import last_box

if TYPE_CHECKING:
    from llm.tasks.base import Problem

PREFIX = "reasoning_gym:"
SIZE = 500
EXTRA = "pip install reasoning-gym"


@lru_cache(maxsize=4)
def _generator(name: str, settings: str) -> Any:
    """The library's data set. settings: JSON of its keywords."""
    import reasoning_gym

    return reasoning_gym.create_dataset(name, **json.loads(settings))


def check(answer: str, gold: str) -> bool:
    """Whether the library gives the answer full marks. Raises ValueError where it generates another problem now."""
    name, settings, index, mark = json.loads(gold)
    generator = _generator(name, settings)
    entry = generator[index]
    if _mark(entry["question"]) != mark:
        raise ValueError(f"{name} generates another problem at {index} than before: it is another version")
    box = last_box(answer)
    said = answer.strip() if box is None else box
    return bool(said) and float(generator.score_answer(said, entry)) >= 1.0


def load(source: str, instruction: str) -> list[Problem]:
    """The problems of "reasoning_gym:NAME:setting=value,...", each prompt once, with the instruction at its end.

    Raises InputError without the library, for unknown names, and for settings that it refuses.
    """
    from ebpo_sim.errors import InputError, unknown_name
    from llm.tasks.base import Cell, Problem

    name, _, given = source.removeprefix(PREFIX).partition(":")
    try:
        from reasoning_gym.factory import DATASETS
    except ImportError as error:
        raise InputError(f"data set {source!r} needs the library reasoning-gym: {EXTRA} ({error})") from error
    if name not in DATASETS:
        raise unknown_name("generator of reasoning-gym", name, DATASETS)
    settings: dict[str, Any] = {"size": SIZE, "seed": 0}
    for part in filter(None, given.split(",")):
        key, _, value = part.partition("=")
        try:
            settings[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            settings[key] = value
    text = json.dumps(settings, sort_keys=True)
    ending = f"\n{instruction}" if instruction else ""
    kept: dict[str, Problem] = {}
    try:
        for index, entry in enumerate(_generator(name, text)):
            question = entry["question"]
            gold = json.dumps([name, text, index, _mark(question)])
            prompt = question.strip() + ending
            kept.setdefault(prompt, Problem(prompt, gold, Cell(name, 0), f"{PREFIX}{name}:{index}"))
    except (AssertionError, AttributeError, IndexError, TypeError, ValueError) as error:
        raise InputError(f"reasoning-gym refuses {source!r} ({error}): change its settings") from error
    if not kept:
        raise InputError(f"data set {source!r} has no problem: raise its size")
    return list(kept.values())


def _mark(question: str) -> str:
    return hashlib.sha256(question.encode(errors="surrogatepass")).hexdigest()[:16]
