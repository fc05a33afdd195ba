"""Cells of a chunk as numbers, with refusals that name row and value."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ebpo_sim.errors import InputError
from ebpo_sim.numbers import Array
from ebpo_sim.tables import Chunk, Coded, Column

LARGEST = 1e50  # of a number in a log: moments take its sixth power
REWARD = 1e9  # of a reward: large groups probe a rule well beyond it, and estimators refuse 1e12
WORDS = {"true": 1.0, "false": 0.0, "": math.nan, "nan": math.nan, "null": math.nan, "none": math.nan}


def numbers(chunk: Chunk, name: str, role: str) -> Array:
    """A column as float64, NaN where it is empty. Raises InputError, naming row and value, for text and for numbers
    beyond 1e50, rewards beyond 1e9."""
    column = chunk.columns[name]
    if isinstance(column, np.ndarray) and column.dtype.kind in "fiub":
        found = column.astype(np.float64)
    else:
        values = [column.values[i] for i in column.codes] if isinstance(column, Coded) else list(column)
        text_is_number = chunk.path.removesuffix(".gz").endswith((".csv", ".tsv"))
        try:
            if not text_is_number and any(isinstance(v, str) for v in values):
                raise ValueError
            found = np.fromiter(map(float, values), np.float64, len(values))
        except (TypeError, ValueError, OverflowError):
            found = np.empty(len(values))
            for i, value in enumerate(values):
                one = number(value) if text_is_number or not isinstance(value, str) else None
                if one is None:
                    raise InputError(
                        f"{chunk.path}, row {chunk.row + i}: {role} must be a number, "
                        f"got {repr(value)[:80]} in column {name!r}"
                    ) from None
                found[i] = one
    bound = REWARD if role == "reward" else LARGEST
    large = np.abs(found) > bound
    if np.any(large):
        i = int(np.argmax(large))
        raise InputError(
            f"{chunk.path}, row {chunk.row + i}: {role} must be finite and at most {bound:g}, got {found[i]:g}"
        )
    return found


def norms(chunk: Chunk, role: str, name: str) -> Array:
    """|s|^2 of each answer: the column itself; or from log-probabilities the sum over tokens of 1 - pi, whose mean over
    what could have been sampled is that of |e - pi|^2, the token's squared score in its logits; of a sum of
    log-probabilities its negative, which is no less. Raises InputError for what these cannot be."""
    column = chunk.columns[name]
    values = column.values if isinstance(column, Coded) else column
    if any(isinstance(v, list) for v in values):
        tokens = [
            list(column[i]) if not isinstance(column, Coded) else values[column.codes[i]] for i in range(chunk.size)
        ]
        try:
            found = np.array([np.sum(-np.expm1(np.asarray(t, dtype=np.float64))) for t in tokens])
        except (TypeError, ValueError):
            raise InputError(f"{chunk.path}: {role} in column {name!r} must be numbers or lists of them") from None
    else:
        found = numbers(chunk, name, role) * (-1 if role == "log_prob" else 1)
    if np.any(found < 0):
        i = int(np.argmax(found < 0))
        what = "a log-probability is at most 0" if role == "log_prob" else "a squared norm is at least 0"
        raise InputError(f"{chunk.path}, row {chunk.row + i}: {what}: check column {name!r}, or {role}= leaves it out")
    return found


def number(value: Any) -> float | None:
    """A cell as a float: NaN where it is empty, infinity beyond any float, None where it is no number."""
    if value is None:
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf
    except (TypeError, ValueError):
        return WORDS.get(str(value).strip().lower())


def present(chunk: Chunk, name: str) -> Column:
    """The column, refused where a cell is empty."""
    column = chunk.columns[name]
    values = column.values if isinstance(column, Coded) else column
    if isinstance(values, np.ndarray):
        missing = bool(np.any(np.isnan(values))) if values.dtype.kind == "f" else False
    else:
        missing = None in values or "" in values
    if missing:
        row = next(i for i, v in enumerate(column) if v is None or v == "" or v != v) if column is values else 0
        raise InputError(f"{chunk.path}, row {chunk.row + row}: the prompt id in column {name!r} is empty")
    return column
