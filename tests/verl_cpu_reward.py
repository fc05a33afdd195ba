"""A rule that verl's reward loop loads by path: an answer is right if it begins with a byte below 128."""

from typing import Any


def compute_score(data_source: str, solution_str: str, ground_truth: str, **_: Any) -> float:
    """1 or 0."""
    return float(solution_str[:1].isascii())
