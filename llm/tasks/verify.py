"""The verifier of the generated tasks: exact text before the end token, or nothing."""

from __future__ import annotations

from ebpo_sim.errors import InputError


def score(answer: str | None, gold: str) -> float:
    """1.0 if `answer` is exactly `gold`, else 0.0; None stands for an answer that never ended.

    Missing, empty and over-long answers score 0 whatever the gold is. Raises InputError for an empty gold answer,
    which nothing could match.
    """
    if not gold:
        raise InputError("gold answer must have at least 1 character, got '': leave the problem out")
    return float(answer == gold)
