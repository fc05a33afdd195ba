"""The world grammar of the command lines.

beta:A,B                     p ~ Beta(A, B), A and B from 0.01 to 1e6
points:P@W,P@W,...           p = P with weight W (weights are normalised; @W may be left out: equal weights)
logitnormal:M,S              logit p ~ Normal(M, S^2), M within 1000 of 0 and S at most 100
mix:W*WORLD+W*WORLD          a share W of each (shares sum to 1)
observed:NAME                shipped pass rates: MODEL, MODEL/BENCHMARK or MODEL/BENCHMARK/CLUSTER
recorded:NAME@VISIT          pass rates at a visit (default the first) of a recorded RL run: a shipped one, or FILE
counts:FILE.csv              your own: columns rollouts,successes; optional prompts, model, cluster, prompt_id
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from ebpo_sim import tables
from ebpo_sim.errors import InputError, unknown_name
from ebpo_sim.numbers.mixing import Prior
from ebpo_sim.worlds.base import Beta, LogitNormal, Mixture, Points, World
from ebpo_sim.worlds.counts import MOST_PROMPTS, Counts, deconvolve
from ebpo_sim.worlds.observed import observed_counts
from ebpo_sim.worlds.recorded import recorded_counts

KINDS = ("beta", "points", "logitnormal", "mix", "observed", "recorded", "counts")
_own: dict[str, Callable[[str], World]] = {}  # kinds that --load brought
DEEPEST = 8  # mixtures within mixtures
LEAST = 1e-100  # of E p(1-p), unless it is 0: the studies square it


def register_world(kind: str) -> Callable[[Callable[[str], World]], Callable[[str], World]]:
    """Decorator: "kind:BODY" is the world that the function makes of BODY, in every command; the world's name must be
    that text. A kind that there is already is refused."""

    def add(make: Callable[[str], World]) -> Callable[[str], World]:
        if kind in KINDS or _own.get(kind, make) is not make:
            raise InputError(f"world {kind!r} is already registered: choose another name")
        _own[kind] = make
        return make

    return add


def parse_world(text: str) -> World:
    """The world that `text` names. Raises InputError with the remedy for anything that is not one, and for a world
    whose prompts are almost certain: 0 < E p(1-p) < 1e-100."""
    if not text.isprintable():
        raise InputError(f"world {_shown(text)} holds characters that cannot be printed: it is a name in tables")
    world = _parse(text, DEEPEST)
    within = world.quadrature(2).within
    if 0 < within < LEAST:
        raise InputError(
            f"world {_shown(text)}: E p(1-p) is {within:g}, too small to compute with: "
            f"write probabilities as 0 or 1, or keep them above {LEAST:g}"
        )
    return world


def _parse(text: str, depth: int) -> World:
    kind, colon, body = text.partition(":")
    if kind in _own:
        return _own[kind](body)
    if not colon or kind not in KINDS:
        known = [f"{k}:" for k in (*KINDS, *_own)]
        raise unknown_name("world", kind, known) if kind not in KINDS else _malformed(text)
    if kind == "beta":
        return Beta(*_two_numbers(text, body))
    if kind == "logitnormal":
        return LogitNormal(*_two_numbers(text, body))
    if kind == "points":
        return _points(text, body)
    if kind == "mix":
        return _mixture(text, body, depth)
    counts = world_counts(text)
    assert counts is not None
    return Points(text, deconvolve(counts))


def world_counts(text: str) -> Counts | None:
    """The rollout counts behind an `observed:`, `recorded:` or `counts:` world; None for the others."""
    kind, _, body = text.partition(":")
    read = {"observed": observed_counts, "recorded": recorded_counts, "counts": read_counts}.get(kind)
    return None if read is None else read(body)


def ratio_world(text: str) -> World:
    """`parse_world`, but rollout counts keep their unbiased within and between variances instead of their mean: the
    world for error ratios, which is 3 % apart where few prompts are almost all solved or not at all."""
    counts, world = world_counts(text), parse_world(text)
    return world if counts is None else Points(world.name, deconvolve(counts, "within"))


def read_counts(path: str) -> Counts:
    """Counts from a table (see `tables.rows`) with columns rollouts and successes (integers), and optionally prompts.

    Rows with the same numbers are merged. Raises InputError for a missing or empty file, missing columns,
    numbers that are not integers, successes > rollouts and prompts with a single rollout.
    """
    merged: dict[tuple[int, int], int] = defaultdict(int)
    needed = ("rollouts", "successes")
    for where, row in tables.rows(tables.regular_file(path, "counts file"), needed):
        rollouts, successes = (_integer(where, c, row[c]) for c in needed)
        prompts = _integer(where, "prompts", row["prompts"]) if row.get("prompts") not in (None, "") else 1
        if not 0 <= successes <= rollouts:
            raise InputError(f"{where}: successes must lie between 0 and rollouts, got {successes} of {rollouts}")
        if prompts < 1:
            raise InputError(f"{where}: prompts must be at least 1, got {prompts}")
        merged[rollouts, successes] += prompts
    if not merged:
        raise InputError(f"counts file {path!r} holds no row: give one line a prompt, or a histogram")
    cells = sorted(merged)
    return Counts(tuple(n for n, _ in cells), tuple(s for _, s in cells), tuple(merged[c] for c in cells))


def _integer(where: str, column: str, text: Any) -> int:
    try:
        value = float(text)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not math.isfinite(value) or value != int(value):
        raise InputError(f"{where}: {column} must be a whole number, got {_shown(str(text))}")
    if abs(value) > MOST_PROMPTS:
        raise InputError(f"{where}: {column} must be at most {MOST_PROMPTS:,}, got {value:g}")
    return int(value)


def _shown(text: str) -> str:
    """The text in quotes, a long one shortened."""
    return repr(text if len(text) <= 80 else text[:77] + "...")


def _malformed(text: str) -> InputError:
    return InputError(f"world {_shown(text)} is not complete: {' '.join((__doc__ or '').split())}")


def _number(text: str, part: str) -> float:
    try:
        value = float(part)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"world {_shown(text)}: {_shown(part)} is not a finite number")
    return value


def _two_numbers(text: str, body: str) -> tuple[float, float]:
    parts = body.split(",")
    if len(parts) != 2:
        raise InputError(f"world {_shown(text)} needs two numbers, as in {text.partition(':')[0]}:2,3")
    return _number(text, parts[0]), _number(text, parts[1])


def _points(text: str, body: str) -> Points:
    nodes, weights = [], []
    for part in body.split(","):
        p, at, w = part.partition("@")
        nodes.append(_number(text, p))
        weights.append(_number(text, w) if at else 1.0)
    if not all(0 <= p <= 1 for p in nodes):
        raise InputError(f"world {_shown(text)}: every success probability must lie in [0, 1]")
    if min(weights) < 0 or not 0 < sum(weights) < math.inf:
        raise InputError(f"world {_shown(text)}: weights must be >= 0 with a finite sum above 0")
    total = sum(weights)
    return Points(text, Prior(tuple(nodes), tuple(w / total for w in weights)))


def _mixture(text: str, body: str, depth: int) -> Mixture:
    if depth < 1:
        raise InputError(f"mixtures stand more than {DEEPEST} deep in one another at {_shown(text)}: multiply them out")
    weights, parts = [], []
    for part in re.split(r"\+(?=[0-9.][0-9.eE-]*\*)", body):
        weight, star, world = part.partition("*")
        if not star:
            raise InputError(f"world {_shown(text)}: each part is WEIGHT*WORLD, got {_shown(part)}")
        weights.append(_number(text, weight))
        parts.append(_parse(world, depth - 1))
    return Mixture(tuple(weights), tuple(parts))
