"""The world grammar of the command lines.

beta:A,B                     p ~ Beta(A, B)
points:P@W,P@W,...           p = P with weight W (weights are normalised; @W may be left out: equal weights)
logitnormal:M,S              logit p ~ Normal(M, S^2)
mix:W*WORLD+W*WORLD          a share W of each (shares sum to 1)
observed:NAME                shipped pass rates: MODEL, MODEL/BENCHMARK or MODEL/BENCHMARK/CLUSTER
counts:FILE.csv              your own: columns rollouts,successes; optional prompts, model, cluster, prompt_id
"""

from __future__ import annotations

import csv
import math
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from ebpo_sim.errors import InputError, unknown_name
from ebpo_sim.mixing import Prior
from ebpo_sim.worlds.base import Beta, LogitNormal, Mixture, Points, World
from ebpo_sim.worlds.counts import Counts, deconvolve
from ebpo_sim.worlds.observed import observed_counts, observed_world

KINDS = ("beta", "points", "logitnormal", "mix", "observed", "counts")


def parse_world(text: str) -> World:
    """The world that `text` names. Raises InputError with the remedy for anything that is not one."""
    kind, colon, body = text.partition(":")
    if not colon or kind not in KINDS:
        raise unknown_name("world", kind, (f"{k}:" for k in KINDS)) if kind not in KINDS else _malformed(text)
    if kind == "beta":
        return Beta(*_two_numbers(text, body))
    if kind == "logitnormal":
        return LogitNormal(*_two_numbers(text, body))
    if kind == "points":
        return _points(text, body)
    if kind == "mix":
        return _mixture(text, body)
    if kind == "observed":
        return observed_world(body)
    return Points(text, deconvolve(read_counts(body)))


def world_counts(text: str) -> Counts | None:
    """The rollout counts behind an `observed:` or `counts:` world; None for the others."""
    kind, _, body = text.partition(":")
    if kind == "observed":
        return observed_counts(body)
    return read_counts(body) if kind == "counts" else None


def read_counts(path: str) -> Counts:
    """Counts from a CSV file with columns rollouts and successes (integers), and optionally prompts.

    Rows with the same numbers are merged. Raises InputError for a missing or empty file, missing columns,
    numbers that are not integers, successes > rollouts and prompts with a single rollout.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"counts file {path!r} cannot be read: {error}") from error
    reader = csv.DictReader(text.splitlines())
    for column in ("rollouts", "successes"):
        if column not in (reader.fieldnames or ()):
            raise InputError(f"counts file {path!r} has no column {column!r}: it needs rollouts,successes")
    merged: dict[tuple[int, int], int] = defaultdict(int)
    for line, row in enumerate(_rows(path, reader), start=2):
        where = f"{path}, line {line}"
        rollouts, successes = (_integer(where, c, row[c]) for c in ("rollouts", "successes"))
        prompts = _integer(where, "prompts", row["prompts"]) if row.get("prompts") else 1
        if not 0 <= successes <= rollouts:
            raise InputError(f"{where}: successes must lie between 0 and rollouts, got {successes} of {rollouts}")
        if prompts < 1:
            raise InputError(f"{where}: prompts must be at least 1, got {prompts}")
        merged[rollouts, successes] += prompts
    if not merged:
        raise InputError(f"counts file {path!r} holds no row: give one line a prompt, or a histogram")
    cells = sorted(merged)
    return Counts(tuple(n for n, _ in cells), tuple(s for _, s in cells), tuple(merged[c] for c in cells))


def _rows(path: str, reader: csv.DictReader[str]) -> Iterator[dict[str, str]]:
    try:
        yield from reader
    except csv.Error as error:
        raise InputError(f"counts file {path!r} is not a table of comma-separated values: {error}") from error


def _integer(where: str, column: str, text: str | None) -> int:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value != int(value):
        raise InputError(f"{where}: {column} must be a whole number, got {text!r}")
    return int(value)


def _malformed(text: str) -> InputError:
    return InputError(f"world {text!r} is not complete: {' '.join((__doc__ or '').split())}")


def _number(text: str, part: str) -> float:
    try:
        value = float(part)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"world {text!r}: {part!r} is not a finite number")
    return value


def _two_numbers(text: str, body: str) -> tuple[float, float]:
    parts = body.split(",")
    if len(parts) != 2:
        raise InputError(f"world {text!r} needs two numbers, as in {text.partition(':')[0]}:2,3")
    return _number(text, parts[0]), _number(text, parts[1])


def _points(text: str, body: str) -> Points:
    nodes, weights = [], []
    for part in body.split(","):
        p, at, w = part.partition("@")
        nodes.append(_number(text, p))
        weights.append(_number(text, w) if at else 1.0)
    if not all(0 <= p <= 1 for p in nodes):
        raise InputError(f"world {text!r}: every success probability must lie in [0, 1]")
    if min(weights) < 0 or sum(weights) <= 0:
        raise InputError(f"world {text!r}: weights must be >= 0 with a sum above 0")
    total = sum(weights)
    return Points(text, Prior(tuple(nodes), tuple(w / total for w in weights)))


def _mixture(text: str, body: str) -> Mixture:
    weights, parts = [], []
    for part in re.split(r"\+(?=[0-9.][0-9.eE-]*\*)", body):
        weight, star, world = part.partition("*")
        if not star:
            raise InputError(f"world {text!r}: each part is WEIGHT*WORLD, got {part!r}")
        weights.append(_number(text, weight))
        parts.append(parse_world(world))
    return Mixture(tuple(weights), tuple(parts))
