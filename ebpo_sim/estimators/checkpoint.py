"""States as JSON, with a version and the settings' fingerprint, refused loudly when they do not fit.

A state is made of NamedTuples, dicts with text keys, float64 arrays and floats; floats travel as their
shortest exact decimal, so what is read back is the same to the last bit.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

import numpy as np

from ebpo_sim.errors import InputError
from ebpo_sim.estimators.base import Estimator
from ebpo_sim.estimators.components import Components
from ebpo_sim.groups import group_rewards
from ebpo_sim.moments import Moments

VERSION = 1
_TUPLES: dict[str, type] = {"Moments": Moments, "Components": Components}


def fingerprint(estimator: Estimator) -> str:
    """A short hash of the estimator's name and every setting."""
    settings = {
        "name": estimator.name,
        "order": estimator.order,
        "chain": [[type(t).__name__, asdict(t)] for t in estimator.chain],  # type: ignore[call-overload]
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def dump_state(estimator: Estimator, state: Any) -> str:
    """The state as JSON text. Raises InputError for a state with replicate axes or non-finite numbers."""
    content = {
        "format": "ebpo_sim estimator state",
        "version": VERSION,
        "estimator": estimator.name,
        "fingerprint": fingerprint(estimator),
        "state": _encode(state),
    }
    return json.dumps(content, allow_nan=False)


def load_state(estimator: Estimator, text: str) -> Any:
    """The state that `dump_state` wrote for the same estimator and settings.

    Raises InputError for damaged text, another format or version, and another estimator or other settings.
    """
    try:
        content = json.loads(text)
        written = content["format"], content["version"]
        name, mark, body = content["estimator"], content["fingerprint"], content["state"]
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(repr(error)) from error
    if written != ("ebpo_sim estimator state", VERSION):
        raise InputError(f"estimator state has format and version {written}, this code reads version {VERSION}")
    if (name, mark) != (estimator.name, fingerprint(estimator)):
        raise InputError(
            f"estimator state belongs to {name!r} ({mark}), not to {estimator.name!r} ({fingerprint(estimator)}): "
            "resume with the settings it was saved with"
        )
    state = _decode(body)
    sample = estimator.update(estimator.init(), group_rewards([[1.0, 0.0]], clusters=["sample"]))
    if not _same_kind(state, sample):
        raise _damaged(f"the state is not one of {estimator.name}")
    return state


def _damaged(why: object) -> InputError:
    return InputError(f"estimator state is damaged ({why}): restore an intact checkpoint")


def _same_kind(state: Any, sample: Any) -> bool:
    """Same nesting of types; a dict may have any keys, its values must all be like the sample's."""
    if type(state) is not type(sample):
        return False
    if isinstance(sample, dict):
        if not sample:
            return not state
        inner = next(iter(sample.values()))
        return all(_same_kind(value, inner) for value in state.values())
    if isinstance(sample, tuple):
        return len(state) == len(sample) and all(map(_same_kind, state, map(_as_stored, sample)))
    return True


def _as_stored(x: Any) -> Any:
    return x if isinstance(x, (tuple, dict)) else float(x)


def _encode(x: Any) -> Any:
    if isinstance(x, tuple) and hasattr(x, "_fields"):
        return {"tuple": type(x).__name__, "fields": [_encode(v) if isinstance(v, tuple) else _number(v) for v in x]}
    if isinstance(x, tuple):
        return {"tuple": "", "fields": [_encode(v) for v in x]}
    if isinstance(x, dict):
        return {"dict": {k: _encode(v) for k, v in x.items()}}
    array = np.asarray(x, dtype=np.float64)
    if array.ndim != 1:
        raise InputError(f"estimator state has replicate axes {array.shape}: only a single stream can be saved")
    return [_number(v) for v in array]


def _number(x: Any) -> float:
    array = np.asarray(x, dtype=np.float64)
    if array.ndim > 0:
        raise InputError(f"estimator state has replicate axes {array.shape}: only a single stream can be saved")
    if not np.isfinite(array):
        raise InputError("estimator state holds a number that is not finite: it cannot be saved")
    return float(array)


def _decode(x: Any) -> Any:
    if isinstance(x, (int, float)) and not isinstance(x, bool) and np.isfinite(x):
        return float(x)
    if isinstance(x, list):
        return np.array([_decode(v) for v in x], dtype=np.float64)
    if isinstance(x, dict) and set(x) == {"tuple", "fields"} and x["tuple"] in (*_TUPLES, ""):
        fields = [_decode(v) for v in x["fields"]]
        kind = _TUPLES.get(x["tuple"])
        if kind is None:
            return tuple(fields)
        if len(fields) != len(kind._fields):  # type: ignore[attr-defined]
            raise _damaged(f"{x['tuple']} has {len(fields)} fields")
        return kind(*fields)
    if isinstance(x, dict) and set(x) == {"dict"} and isinstance(x["dict"], dict):
        return {k: _decode(v) for k, v in x["dict"].items()}
    raise _damaged(f"unexpected {x!r}")
