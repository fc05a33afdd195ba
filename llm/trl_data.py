"""The problems and the verifier as TRL takes them: rows of a data set, and a reward function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llm.run import curriculum_of, rates_from
from llm.settings import Settings
from llm.tasks import Cell, Problem, Verifier


class Reward:
    """The verifier as TRL's reward function: completions without an end token score 0, as in `llm.rollouts`."""

    __name__ = "verifier"  # TRL names its metrics by it

    def __init__(self, verifier: Verifier, eos_ids: Sequence[int]) -> None:
        self.verifier, self.eos_ids = verifier, frozenset(eos_ids)

    def __call__(
        self, completions: list[Any], completion_ids: list[list[int]], answer: list[str], id: list[str],
        topic: list[str], **_: Any
    ) -> list[float]:  # fmt: skip
        texts = [c if isinstance(c, str) else c[0]["content"] for c in completions]
        ended = [bool(ids) and ids[-1] in self.eos_ids for ids in completion_ids]
        problems = [Problem("", a, Cell(t, 0), i) for a, t, i in zip(answer, topic, id, strict=True)]
        said = [text if end else None for text, end in zip(texts, ended, strict=True)]
        return self.verifier.scores(said, problems)


def rows_of(settings: Settings, problems: Sequence[Problem], chat: bool) -> list[dict[str, Any]]:
    """One row a prompt and step, in the curriculum's order."""
    curriculum = curriculum_of(settings, problems, rates_from(settings, problems))
    return [row_of(p, chat) for step in range(settings.steps) for p in curriculum.batch(step)]


def row_of(problem: Problem, chat: bool) -> dict[str, Any]:
    return {
        "prompt": _prompt(problem, chat), "answer": problem.answer, "topic": problem.cell.topic, "id": problem.id
    }  # fmt: skip


def _prompt(problem: Problem, chat: bool) -> Any:
    if not chat:
        return problem.prompt
    messages = problem.messages or (("user", problem.prompt),)
    return [{"role": role, "content": content} for role, content in messages]
