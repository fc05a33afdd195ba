"""States as JSON, with a version, the settings' fingerprint and a checksum, refused loudly when they do not fit.

A state is made of NamedTuples, dicts with text keys, float64 arrays and floats; floats travel as their
shortest exact decimal, so what is read back is the same to the last bit. The SHA-256 at the end is that of the text
before it, so that no changed byte is read.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict
from typing import Any

import numpy as np

from ebpo_sim.errors import InputError
from ebpo_sim.estimators.base import Estimator
from ebpo_sim.estimators.components import Components
from ebpo_sim.estimators.history import Seen
from ebpo_sim.groups import group_rewards
from ebpo_sim.numbers.moments import Moments

VERSION = 2  # 1 had no checksum
LARGEST, LARGEST_MEAN = 1e250, 1e100  # in a state; rewards beyond 1e100 are refused, and sums of their squares fit
COUNTED = (Moments, Components, Seen)
SAMPLE = group_rewards(
    [[1.0, 0.0]],
    clusters=["sample"],
    prompt_ids=["sample"],
    lengths=[[1.0, 1.0]],
    score_norms=[[1.0, 1.0]],
    answers=[["a", "b"]],
    components=[[[1.0], [0.0]]],
    greedy=[1.0],
)
_SEAL = ', "sha256": "'


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
    return dump_tree("estimator", estimator.name, fingerprint(estimator), state)


def dump_tree(owner: str, name: str, mark: str, state: Any) -> str:
    """A state as JSON text: whose it is ("estimator", "method"), its name and its settings' fingerprint."""
    body = {owner: name, "fingerprint": mark, "state": _encode(state)}
    return seal(json.dumps({"format": f"ebpo_sim {owner} state", "version": VERSION, **body}, allow_nan=False))


def seal(text: str) -> str:
    """The JSON object `text` with the checksum of everything before it as its last entry."""
    body = text.removesuffix("}")
    return f'{body}{_SEAL}{hashlib.sha256(body.encode(errors="surrogatepass")).hexdigest()}"}}'


def load_state(estimator: Estimator, text: str) -> Any:
    """The state that `dump_state` wrote for the same estimator and settings.

    Raises InputError for damaged text (a checksum that does not fit, numbers that no rewards can have led to), another
    format or version, and another estimator or other settings.
    """
    sample = estimator.update(estimator.init(), SAMPLE)
    return load_tree("estimator", estimator.name, fingerprint(estimator), sample, text)


def load_tree(owner: str, own: str, fingerprint: str, sample: Any, text: str) -> Any:
    """What `dump_tree` wrote for the same owner, name and settings; `sample` is a state of the same make."""
    try:
        content = json.loads(text)
        written = content["format"], content["version"]
        name, mark, body = content[owner], content["fingerprint"], content["state"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged(type(error).__name__) from error
    if written != (f"ebpo_sim {owner} state", VERSION):
        raise InputError(f"{owner} state has format and version {written}, this code reads version {VERSION}")
    if (name, mark) != (own, fingerprint):
        raise InputError(
            f"{owner} state belongs to {name!r} ({mark}), not to {own!r} ({fingerprint}): "
            "resume with the settings it was saved with"
        )
    if seal(text.rpartition(_SEAL)[0] + "}") != text:
        raise _damaged("its checksum is another")
    return _decode(body, _kind(sample))


def _damaged(why: object) -> InputError:
    return InputError(f"estimator state is damaged ({why}): restore an intact checkpoint")


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
    if not np.abs(array) <= LARGEST:
        raise InputError("estimator state holds a number that is not finite, or beyond 1e250: it cannot be saved")
    return float(array)


def _kind(sample: Any) -> Any:
    """What a state like `sample` is made of: a NamedTuple's type with the kinds of its fields, {kind}, [] or 0.0."""
    if isinstance(sample, tuple):
        return (type(sample), tuple(map(_kind, sample)))
    if isinstance(sample, dict):
        sized = all(key.isdigit() for key in sample)  # histograms, by group size
        return {"any": _kind(next(iter(sample.values()))), "sized": sized} if sample else {}
    return [] if np.ndim(sample) else 0.0


def _decode(x: Any, kind: Any, signed: bool = True, length: int | None = None) -> Any:
    """The part of a state that `x` says, if it is of this kind. COUNTED tuples hold counts and sums of squares but for
    their means.

    The kind, never the text, decides how deep to go. Arrays are those of `length` entries. Raises InputError.
    """
    if isinstance(kind, float):
        low, high = (-LARGEST_MEAN, LARGEST_MEAN) if signed else (0, LARGEST)
        if type(x) not in (int, float) or not low <= x <= high:
            raise _damaged("a number is missing, or not one that rewards lead to")
        return float(x)
    if isinstance(kind, list):
        if not isinstance(x, list) or length not in (None, len(x)):
            raise _damaged("an array has another length than its key says")
        return np.array([_decode(v, 0.0, signed=length is None) for v in x], dtype=np.float64)
    if isinstance(kind, dict):
        if not isinstance(x, dict) or set(x) != {"dict"} or not isinstance(x["dict"], dict) or (x["dict"] and not kind):
            raise _damaged("a table is missing")
        return {key: _decode(v, kind["any"], length=_entries(key, kind)) for key, v in x["dict"].items()}
    of, fields = kind
    names = getattr(of, "_fields", ())
    if not isinstance(x, dict) or set(x) != {"tuple", "fields"} or x["tuple"] != (of.__name__ if names else ""):
        raise _damaged(f"no {of.__name__} where one belongs")
    if not isinstance(x["fields"], list) or len(x["fields"]) != len(fields):
        raise _damaged(f"{of.__name__} has other fields")
    free = of not in COUNTED
    parts = zip(x["fields"], fields, names or fields, strict=True)
    values = [_decode(v, k, signed=free or n == "mean") for v, k, n in parts]
    return of(*values) if names else tuple(values)


def _entries(key: str, kind: Any) -> int | None:
    """Entries of the array under a group size: success counts from 0 to it; None for tables that are no histograms."""
    if not isinstance(kind["any"], list) or not kind["sized"]:
        return None
    if not re.fullmatch("[1-9][0-9]{0,6}", key):
        raise _damaged("a group size is no whole number below 10^7")
    return int(key) + 1
