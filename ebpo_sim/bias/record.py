"""One checked prediction."""

from __future__ import annotations

from typing import NamedTuple


class Prediction(NamedTuple):
    """A closed-form statement beside an independent computation of the same number."""

    id: str
    statement: str
    predicted: float
    computed: float
    tolerance: float  # absolute
    holds: bool
    condition: str  # what the statement needs
    counterexample: str  # the smallest set-up where what the statement denies fails; empty when it denies nothing


def prediction(
    id: str,
    statement: str,
    predicted: float,
    computed: float,
    tolerance: float,
    condition: str,
    counterexample: str = "",
) -> Prediction:
    """The record with holds = |computed - predicted| <= tolerance."""
    predicted, computed = float(predicted), float(computed)
    holds = abs(computed - predicted) <= tolerance
    return Prediction(id, statement, predicted, computed, float(tolerance), holds, condition, counterexample)
