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
from ebpo_sim.moments import Moments

VERSION = 1
_TUPLES: dict[str, type] = {"Moments": Moments, "Components": Components}


def fingerprint(estimator: Estimator) -> str:
    """A short hash of the estimator's name and every setting."""
    settings = {
        "name": estimator.name,
        "order": estimator.order,
        "baseline": [type(estimator.baseline).__name__, asdict(estimator.baseline)],  # type: ignore[call-overload]
        "normalise": asdict(estimator.normalise),
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
        raise InputError(f"estimator state is damaged ({error!r}): restore an intact checkpoint") from error
    if written != ("ebpo_sim estimator state", VERSION):
        raise InputError(f"estimator state has format and version {written}, this code reads version {VERSION}")
    if (name, mark) != (estimator.name, fingerprint(estimator)):
        raise InputError(
            f"estimator state belongs to {name!r} ({mark}), not to {estimator.name!r} ({fingerprint(estimator)}): "
            "resume with the settings it was saved with"
        )
    state = _decode(body)
    if type(state) is not type(estimator.init()):
        raise InputError(f"estimator state holds {type(state).__name__}: restore an intact checkpoint")
    return state


def _encode(x: Any) -> Any:
    if isinstance(x, tuple) and hasattr(x, "_fields"):
        return {"tuple": type(x).__name__, "fields": [_encode(v) for v in x]}
    if isinstance(x, tuple):
        return {"tuple": "", "fields": [_encode(v) for v in x]}
    if isinstance(x, dict):
        return {"dict": {k: _encode(v) for k, v in x.items()}}
    array = np.asarray(x, dtype=np.float64)
    if not np.all(np.isfinite(array)):
        raise InputError("estimator state holds a number that is not finite: it cannot be saved")
    if array.ndim > 1:
        raise InputError(f"estimator state has replicate axes {array.shape}: only a single stream can be saved")
    return array.tolist()


def _decode(x: Any) -> Any:
    try:
        if isinstance(x, dict) and "tuple" in x:
            fields = [_decode(v) for v in x["fields"]]
            return tuple(fields) if x["tuple"] == "" else _TUPLES[x["tuple"]](*fields)
        if isinstance(x, dict):
            return {k: _decode(v) for k, v in x["dict"].items()}
        return np.asarray(x, dtype=np.float64) if isinstance(x, list) else float(x)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"estimator state is damaged ({error!r}): restore an intact checkpoint") from error
