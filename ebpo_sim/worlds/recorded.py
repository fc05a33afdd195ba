"""Recorded RL runs: success counts of every prompt at every visit, in order.

A table with columns prompt, visit, successes, rollouts, a row a visit; or prompt, rollouts, successes, where successes
is a digit a visit. Each prompt's visits are 0, 1, 2, ... in this order; all have the same number of rollouts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ebpo_sim import tables
from ebpo_sim.errors import InputError, unknown_name
from ebpo_sim.worlds.counts import Counts

SHIPPED = Path(__file__).with_name("recorded_runs")
COLUMNS = ("prompt", "visit", "successes", "rollouts")
MOST_ROLLOUTS = 10**6


@dataclass(frozen=True, eq=False)
class Recorded:
    """successes_PV: of `rollouts` at each visit that all prompts have; longest: the most visits of any prompt."""

    name: str
    prompts: tuple[str, ...]
    rollouts: int
    successes_PV: NDArray[np.int64]
    longest: int

    def counts(self, visit: int) -> Counts:
        """The histogram of one visit. Raises InputError for a visit that is not there."""
        if not 0 <= visit < self.successes_PV.shape[1]:
            last = self.successes_PV.shape[1] - 1
            raise InputError(f"recorded:{self.name} has no visit {visit} of all its prompts: name 0 to {last}")
        value, prompts = np.unique(self.successes_PV[:, visit], return_counts=True)
        return Counts((self.rollouts,) * len(value), tuple(value.tolist()), tuple(prompts.tolist()))


def recorded_names() -> tuple[str, ...]:
    """Every shipped run."""
    return tuple(sorted(path.stem for path in SHIPPED.glob("*.csv")))


def recorded_source(name: str) -> str:
    """What the head of a shipped run says of it; of a user's own, the file."""
    path = SHIPPED / f"{name.lower()}.csv"
    if not path.exists():
        return name
    lines = path.read_text(encoding="utf-8").splitlines()
    return " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))


def recorded_counts(body: str) -> Counts:
    """The counts of NAME@VISIT, or of NAME's first visit."""
    name, at, visit = body.rpartition("@")
    named = bool(at) and visit.isdecimal()
    return recorded(name if named else body).counts(int(visit[:9]) if named else 0)


def recorded(name: str) -> Recorded:
    """The shipped run of this name, or the one in a file. Raises InputError for unknown names, a file that cannot be
    read, unknown columns, a prompt's visit that comes twice or out of order, prompts with fewer than half of the visits
    of another, successes above the rollouts, and rollouts that differ."""
    path = Path(name)
    if tables.format_of(path):
        stamp = tables.regular_file(name, "recorded run").stat()
        return _read(name, str(path), stamp.st_mtime_ns, stamp.st_size)
    if name.lower() not in recorded_names():
        raise unknown_name("recorded world", name, recorded_names(), "; your own: recorded:FILE.csv")
    return _read(name, str(SHIPPED / f"{name.lower()}.csv"), 0, 0)


@lru_cache(maxsize=8)
def _read(name: str, path: str, *stamp: int) -> Recorded:
    """stamp: of the file, so that a changed one is read again."""
    visits: dict[str, list[int]] = {}
    rollouts = 0
    for where, prompt, visit, successes, size in _entries(Path(path)):
        seen = visits.setdefault(prompt, [])
        if visit != len(seen):
            due = f"visit {visit} twice" if 0 <= visit < len(seen) else f"visit {visit} where {len(seen)} is due"
            raise InputError(f"{where}: prompt {prompt!r} has {due}: give a prompt's visits once, in order, from 0")
        if rollouts not in (0, size):
            raise InputError(f"{where}: {size} rollouts where others have {rollouts}: give every visit the same number")
        if not 0 <= successes <= size:
            raise InputError(f"{where}: successes must lie between 0 and rollouts, got {successes} of {size}")
        rollouts = size
        seen.append(successes)
    if not visits:
        raise InputError(f"recorded run {name!r} holds no row: give a row a visit, columns {', '.join(COLUMNS)}")
    longest, (prompt, least) = (f(visits.items(), key=lambda item: len(item[1])) for f in (max, min))
    most, common = len(longest[1]), len(least)
    if 2 * common < most:
        raise InputError(
            f"recorded run {name!r}: prompt {prompt!r} vanishes after {common} of {most} visits: leave out prompts "
            "with fewer than half of the visits"
        )
    table = np.array([seen[:common] for seen in visits.values()], dtype=np.int64)
    table.flags.writeable = False
    return Recorded(name, tuple(visits), rollouts, table, most)


def _entries(path: Path) -> Iterator[tuple[str, str, int, int, int]]:
    """(where, prompt, visit, successes, rollouts) of every visit."""
    digits: set[str] = set()
    for where, row in tables.rows(path, ("prompt", "successes", "rollouts")):
        unknown = [column for column in row if column not in COLUMNS]
        if unknown:
            raise InputError(f"{where}: column {unknown[0]!r} is not known: name them {', '.join(COLUMNS)}")
        prompt, size = str(row["prompt"]), _whole(where, "rollouts", row["rollouts"])
        if not 1 < size <= MOST_ROLLOUTS:
            raise InputError(f"{where}: rollouts must be 2 to {MOST_ROLLOUTS:,}, got {size}")
        if "visit" in row:
            successes = _whole(where, "successes", row["successes"])
            yield where, prompt, _whole(where, "visit", row["visit"]), successes, size
            continue
        text = str(row["successes"])
        if prompt in digits:
            raise InputError(f"{where}: prompt {prompt!r} has a second row: give it one, with a digit a visit")
        if not (text.isascii() and text.isdecimal()):
            raise InputError(f"{where}: successes must be digits, one a visit, got {text[:40]!r}: or add column visit")
        digits.add(prompt)
        yield from ((where, prompt, visit, int(digit), size) for visit, digit in enumerate(text))


def _whole(where: str, column: str, value: Any) -> int:
    text = str(value).strip()
    if not (text.isascii() and text.removeprefix("-").isdecimal() and len(text) < 18):
        raise InputError(f"{where}: {column} must be a whole number, got {text[:40]!r}")
    return int(text)
