"""A method's memories as JSON, in the estimators' codec: versioned, sealed, and refused where the settings differ."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

import numpy as np

from ebpo_sim.estimators import checkpoint
from ebpo_sim.methods.method import Method
from ebpo_sim.methods.step import State, following, start
from ebpo_sim.objectives import Tokens, learnt

_ROW = np.full((1, 1), -0.5)
TOKENS = Tokens(_ROW, _ROW, _ROW < 0, -_ROW, np.zeros(1, dtype=np.int64), _ROW, -_ROW, _ROW)  # what an objective sees


def fingerprint(method: Method) -> str:
    """A short hash of the text and of every setting of every part."""
    others = [p for p in (method.allocation, method.selection, *method.objectives, method.aggregation) if p is not None]
    settings = [[type(p).__name__, dataclasses.asdict(p)] for p in others]  # type: ignore[arg-type]
    text = json.dumps([method.name, checkpoint.fingerprint(method.estimator), settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def dump_state(method: Method, state: State) -> str:
    """The memories as JSON text. Raises InputError for replicate axes and numbers that are not finite."""
    return checkpoint.dump_tree("method", method.name, fingerprint(method), state)


def load_state(method: Method, text: str) -> State:
    """What `dump_state` wrote for the same method. Raises InputError for damaged text, another version or method."""
    begun = following(method, start(method), checkpoint.SAMPLE)
    sample = begun._replace(objectives=learnt(method.objectives, begun.objectives, [TOKENS]))
    state: Any = checkpoint.load_tree("method", method.name, fingerprint(method), sample, text)
    return State(*state)
