"""Rows of any table as groups: the rollouts of one prompt (at one step), reduced to their sufficient statistics.

Memory grows with the number of groups, not of rows. Results do not depend on where chunks begin.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ebpo_sim.diagnose.columns import Columns
from ebpo_sim.diagnose.values import LARGEST, norms, number, numbers, present
from ebpo_sim.errors import InputError
from ebpo_sim.numbers import Array
from ebpo_sim.tables import Chunk, Coded, Column, sound
from ebpo_sim.worlds.counts import MOST_PROMPTS, MOST_ROLLOUTS

Ints = NDArray[np.int64]
SHIFT = 24  # a group's key is prompt * 2^24 + stratum
PENDING = 2_000_000  # partial groups that may wait before they are merged


class Stratum(NamedTuple):
    """What distinguishes groups besides the prompt; empty text or None where the log has no such column. run: the file,
    until `runs.apart` has seen whether files repeat each other's groups."""

    model: str
    cluster: str
    step: float | None
    run: str = ""


class Partial(NamedTuple):
    """Groups, or parts of them: rollouts, mean, sum of squared deviations, least and greatest reward, multiplicity,
    sums of lengths, of squared score norms and of these times the reward, and each reward column's least and greatest
    (none where there is one column, which is the reward); `key` says whose part it is."""

    key: Ints
    n: Array
    mean: Array
    m2: Array
    low: Array
    high: Array
    weight: Array
    length: Array
    norm: Array
    norm_reward: Array
    least_R: Array
    most_R: Array


class Log(NamedTuple):
    """All groups of a log. left_out: rows without a reward."""

    groups: Partial
    strata: tuple[Stratum, ...]
    columns: Columns
    rows: int
    left_out: int

    @property
    def stratum(self) -> Ints:
        return self.groups.key & ((1 << SHIFT) - 1)

    @property
    def prompt(self) -> Ints:
        return self.groups.key >> SHIFT


@dataclass
class _Coder:
    """Values to consecutive codes in order of appearance; long texts are held as a digest."""

    table: dict[Any, int] = field(default_factory=dict)

    def codes(self, column: Column) -> Ints:
        if isinstance(column, Coded):
            return self._known(column.values)[column.codes]
        values = column.tolist() if isinstance(column, np.ndarray) else column
        try:
            distinct = dict.fromkeys(values)
        except TypeError:  # a conversation, given as a list of messages
            values = [json.dumps(v, sort_keys=True, default=str) for v in values]
            distinct = dict.fromkeys(values)
        local = dict(zip(distinct, self._known(list(distinct)).tolist(), strict=True))
        return np.fromiter(map(local.__getitem__, values), np.int64, len(values))

    def _known(self, values: list[Any]) -> Ints:
        table = self.table
        return np.array([table.setdefault(_short(v), len(table)) for v in values], dtype=np.int64)


def _short(value: Any) -> str | bytes:
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    return text if len(text) <= 48 else hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def gather(chunks: Iterator[Chunk], columns: Columns, pending: int = PENDING) -> Log:
    """All groups in the chunks. Raises InputError for impossible values, naming the row, and for no row at all."""
    prompts = _Coder()
    strata: dict[Stratum, int] = {}
    parts: list[Partial] = []
    rows = left_out = waiting = 0
    for chunk in chunks:
        with sound(chunk.path):
            stratum = _strata(chunk, columns, strata)
            partial, missing = _rollouts(chunk, columns, prompts, stratum)
            parts.append(partial if columns.kind == "rollouts" else _prompts(chunk, columns, prompts, stratum))
        rows, left_out, waiting = rows + chunk.size, left_out + missing, waiting + len(parts[-1].key)
        if columns.kind == "rollouts" and waiting > pending:
            parts = [merged(parts)]
            waiting = 0
    if not parts or not sum(len(p.key) for p in parts):
        raise InputError("the log holds no rollout with a reward: give one row a rollout or a prompt")
    whole = merged(parts) if columns.kind == "rollouts" else _joined(parts)
    if columns.kind == "prompts" and "prompt" in columns.role:
        _refuse_duplicates(whole.key, prompts, columns)
    return Log(whole, tuple(strata), columns, rows, left_out)


def merged(parts: Sequence[Partial]) -> Partial:
    """Parts of the same group put together: Chan's merge, in order of keys.

    n = sum n_i, mean = sum n_i mean_i / n, m2 = sum m2_i + sum n_i (mean_i - mean)^2.
    """
    whole = parts[0] if len(parts) == 1 else _joined(parts)
    if np.any(whole.key[1:] < whole.key[:-1]):
        order = np.argsort(whole.key, kind="stable")
        whole = Partial(whole.key[order], *(x[order] for x in whole[1:]))
    key, n, mean, m2, low, high, _, *sums, least_R, most_R = whole
    start = np.flatnonzero(np.diff(key, prepend=-1))
    each = np.diff(start, append=len(key))
    total = np.add.reduceat(n, start)
    low, high = np.minimum.reduceat(low, start), np.maximum.reduceat(high, start)
    centre = np.where(low == high, low, np.add.reduceat(n * mean, start) / total)
    spread = np.add.reduceat(m2 + n * (mean - np.repeat(centre, each)) ** 2, start)
    spread = np.where(low == high, 0.0, spread)  # equal rewards have no spread, whatever rounding says
    length, norm, norm_reward = (np.add.reduceat(x, start) for x in sums)
    return Partial(
        key[start], total, centre, spread, low, high, np.ones(len(start)), length, norm, norm_reward,
        np.minimum.reduceat(least_R, start), np.maximum.reduceat(most_R, start),
    )  # fmt: skip


def _joined(parts: Sequence[Partial]) -> Partial:
    key = np.concatenate([part.key for part in parts])
    return Partial(key, *(np.concatenate(fields) for fields in zip(*(part[1:] for part in parts), strict=True)))


def _strata(chunk: Chunk, columns: Columns, strata: dict[Stratum, int]) -> Ints:
    """The stratum of each row, strata numbered in order of appearance."""
    role = columns.role
    local = [(_Coder(), name) for r in ("model", "benchmark", "cluster", "step") if (name := role.get(r))]
    if not local:
        place = strata.setdefault(Stratum("", "", None, chunk.path), len(strata))
        return np.full(chunk.size, place, dtype=np.int64)
    coded = np.stack([coder.codes(chunk.columns[name]) for coder, name in local])
    combined = np.zeros(chunk.size, dtype=np.int64)
    for codes in coded:
        combined = combined * (int(codes.max()) + 1) + codes
    _, first, inverse = np.unique(combined, return_index=True, return_inverse=True)
    place_of = np.empty(len(first), dtype=np.int64)
    for place in np.argsort(first):  # order of appearance, so that a file's order is the report's
        row = int(first[place])

        def value(name: str, row: int = row) -> Any:
            column = chunk.columns[role[name]]
            return column.values[column.codes[row]] if isinstance(column, Coded) else column[row]

        model = "/".join(str(value(r)) for r in ("model", "benchmark") if r in role)
        step = None
        if "step" in role:
            step = number(value("step"))
            if step is None or not abs(step) <= LARGEST:
                said = repr(value("step"))[:80]
                raise InputError(f"{chunk.path}, row {chunk.row + row}: step must be a number, got {said}")
        stratum = Stratum(model, str(value("cluster")) if "cluster" in role else "", step, chunk.path)
        place_of[place] = strata.setdefault(stratum, len(strata))
    if len(strata) >= 1 << SHIFT:
        raise InputError(f"{len(strata)} combinations of model, cluster and step: --columns cluster= leaves one out")
    return place_of[inverse.reshape(-1)]


def _rollouts(chunk: Chunk, columns: Columns, prompts: _Coder, stratum: Ints) -> tuple[Partial, int]:
    """The chunk's groups, and how many of its rows have no reward."""
    if columns.kind != "rollouts":
        return _nothing(columns), 0
    found_R = np.stack([numbers(chunk, name, "reward") for name in columns.rewards], axis=1)
    known = ~np.isnan(found_R).all(axis=1)  # TRL: a function that does not apply to a row leaves it empty
    found_R = np.where(np.isnan(found_R), 0.0, found_R)
    total = found_R.sum(axis=1)
    key = (prompts.codes(present(chunk, columns.role["prompt"])) << SHIFT) | stratum
    length = numbers(chunk, columns.role["length"], "length") if "length" in columns.role else np.zeros(chunk.size)
    weighs = next((role for role in ("score_norm", "log_prob") if role in columns.role), "")
    norm = norms(chunk, weighs, columns.role[weighs]) if weighs else np.zeros(chunk.size)
    key, x, length, norm = key[known], total[known], length[known], norm[known]
    if not len(key):
        return _nothing(columns), chunk.size
    one = np.ones(len(key))
    parts_R = found_R[known][:, len(columns.rewards) == 1 :]
    return merged([Partial(key, one, x, 0 * one, x, x, one, length, norm, norm * x, parts_R, parts_R)]), int(
        chunk.size - known.sum()
    )


def _prompts(chunk: Chunk, columns: Columns, prompts: _Coder, stratum: Ints) -> Partial:
    """Rows of counts as groups; without ids every row is a prompt of its own."""
    n, s = (numbers(chunk, columns.role[r], r) for r in ("rollouts", "successes"))
    weight = numbers(chunk, columns.role["prompts"], "prompts") if "prompts" in columns.role else np.ones(chunk.size)
    whole = (n == np.rint(n)) & (s == np.rint(s)) & (weight == np.rint(weight))
    bad = ~(whole & (n >= 1) & (s >= 0) & (s <= n) & (weight >= 1))
    if np.any(bad):
        i = int(np.argmax(bad))
        raise InputError(
            f"{chunk.path}, row {chunk.row + i}: needs whole numbers 0 <= successes <= rollouts and prompts >= 1, "
            f"got {s[i]:g} of {n[i]:g} for {weight[i]:g}"
        )
    many = (n > MOST_ROLLOUTS) | (weight > MOST_PROMPTS)
    if np.any(many):
        i = int(np.argmax(many))
        raise InputError(
            f"{chunk.path}, row {chunk.row + i}: at most {MOST_ROLLOUTS:,} rollouts a prompt and "
            f"{MOST_PROMPTS:,} prompts, got {n[i]:g} and {weight[i]:g}"
        )
    if "prompt" in columns.role:
        code = prompts.codes(present(chunk, columns.role["prompt"]))
    else:
        code = len(prompts.table) + np.arange(chunk.size)
        prompts.table.update({("row", int(c)): int(c) for c in code})
    mean = s / n
    low, high = (s == n).astype(np.float64), (s > 0).astype(np.float64)
    none_R = np.zeros((chunk.size, 0))
    key = (code << SHIFT) | stratum
    zero = np.zeros(chunk.size)
    return Partial(key, n, mean, s * (n - s) / n, low, high, weight, zero, zero, zero, none_R, none_R)


def _refuse_duplicates(key: Ints, prompts: _Coder, columns: Columns) -> None:
    ordered = np.sort(key)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(twice):
        code = int(twice[0]) >> SHIFT
        name = next(str(k) for k, v in prompts.table.items() if v == code)
        raise InputError(
            f"{len(twice)} rows repeat a prompt id, first {name!r}: one row a prompt is expected (a column model, "
            "benchmark, cluster or step may tell them apart), or leave the id out with --columns prompt="
        )


def _nothing(columns: Columns) -> Partial:
    parts_R = np.zeros((0, len(columns.rewards) if len(columns.rewards) > 1 else 0))
    x = np.zeros(0)
    return Partial(x.astype(np.int64), x, x, x, x, x, x, x, x, x, parts_R, parts_R)
