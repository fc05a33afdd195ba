"""The verifier of the generated tasks: exact text before the end token, or nothing."""

from __future__ import annotations

from ebpo_sim.errors import InputError
from llm.tasks.generated import MAX_ANSWER


def score(answer: str | None, gold: str) -> float:
    """1.0 if `answer` is exactly `gold`, else 0.0; None stands for an answer that never ended.

    Missing, empty and over-long answers (more than MAX_ANSWER characters) score 0 whatever the gold is.
    Raises InputError for an empty or over-long gold answer, which nothing could match.
    """
    if not 0 < len(gold) <= MAX_ANSWER:
        raise InputError(
            f"gold answer {gold!r} must have 1 to {MAX_ANSWER} characters: leave it out or use another verifier"
        )
    return float(answer is not None and 0 < len(answer) <= MAX_ANSWER and answer == gold)
