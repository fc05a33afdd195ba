"""One checked prediction."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple


class Prediction(NamedTuple):
    """A closed-form statement beside an independent computation of the same number."""

    id: str
    statement: str
    predicted: float
    computed: float
    tolerance: float  # absolute
    condition: str  # what the statement needs
    counterexample: str = ""  # the smallest set-up where what the statement denies fails; empty when it denies nothing

    @property
    def holds(self) -> bool:
        """|computed - predicted| <= tolerance."""
        return bool(abs(self.computed - self.predicted) <= self.tolerance)


Cases = Iterator[tuple[Any, ...]]  # the fields of predictions in their order, as the checks list them


def prediction(id: str, statement: str, predicted: float, computed: float, tolerance: float, *words: str) -> Prediction:
    """The record of a case, its numbers as Python's."""
    return Prediction(id, statement, float(predicted), float(computed), float(tolerance), *words)
