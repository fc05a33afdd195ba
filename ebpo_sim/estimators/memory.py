"""What is remembered of every prompt, in columns: its successes, how many rollouts and visits, and how long ago.

A state is (before, last): all batches but the last, and the last one. Kept apart they merge by sums, commutative to the
last bit, although what is discounted at a visit is not a sum: `forget` joins them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ebpo_sim.errors import InputError
from ebpo_sim.groups import Groups
from ebpo_sim.numbers import Array
from ebpo_sim.part import Need

Table = dict[str, Array]  # "key" (K,) in rising order; the others (..., K)
State = tuple[Table, Table]
Clock = Literal["visits", "batches", "first"]  # what discounts: a visit of the prompt, any batch, nothing after one
MOST_PROMPTS = 1 << 20  # a state's bound: 40 bytes a prompt; the time of an update is linear in it
LEAST_WEIGHT = 1e-6  # rollouts; what is left of a prompt below this is no evidence
COLUMNS = ("n", "r", "visits", "age")


class Past(NamedTuple):
    """Of each group's prompt, (..., P): rollouts and their rewards' sum, discounted, and visits; 0 where it is new."""

    n_P: Array
    r_P: Array
    visits_P: Array


def keys(names: Iterable[Any]) -> Array:
    """53 bits of each name's text, which a float64 holds exactly: among a million prompts two share a key with
    probability 6e-5."""
    texts = (str(name).encode(errors="surrogatepass") for name in names)
    digests = b"".join(hashlib.blake2b(text, digest_size=8).digest() for text in texts)
    return (np.frombuffer(digests, dtype="<u8") >> np.uint64(11)).astype(np.float64)


def empty() -> Table:
    """The table of no prompt."""
    return {name: np.zeros(0) for name in ("key", *COLUMNS)}


def table(key_P: Array, n_P: Array, r_P: Array) -> Table:
    """One batch alone: n rollouts and the sum r of their rewards, (..., P), summed over equal keys; keys without a
    rollout leave no trace."""
    key, which_P = np.unique(key_P, return_inverse=True)
    n, r = (np.zeros((*x.shape[:-1], len(key))) for x in (n_P, r_P))
    for sums, terms in ((n, n_P), (r, r_P)):
        np.add.at(np.moveaxis(sums, -1, 0), which_P, np.moveaxis(terms, -1, 0))
    seen = n >= LEAST_WEIGHT
    return _kept({"key": key, "n": n, "r": r, "visits": seen.astype(np.float64), "age": np.zeros(n.shape)}, _any(seen))


def merged(a: Table, b: Table) -> Table:
    """Evidence of both: sums, the later of the last visits. Beyond MOST_PROMPTS those not visited for the longest time
    (ties: the larger keys) are dropped, and are new when they come again; up to the bound merging is associative."""
    large, small = (a, b) if len(a["key"]) >= len(b["key"]) else (b, a)
    return _bounded(_combined(large, small, lambda name, x, y: np.minimum(x, y) if name == "age" else x + y))


def joined(before: Table, last: Table, keep: float, clock: Clock) -> Table:
    """All batches, the last one too, as the next finds them: a batch older, and discounted by the clock."""
    aged = {**before, "age": before["age"] + 1.0}
    if clock == "batches" and keep != 1.0:
        aged |= {"n": keep * before["n"], "r": keep * before["r"]}
    again, gone = last["n"] > 0, keep if clock == "visits" else 1.0

    def rule(name: str, x: Array, y: Array) -> Array:
        if name in ("age", "visits"):
            return x + y if name == "visits" else np.ones_like(y)
        if clock == "first":
            return np.where(known, x, y)
        return np.where(again, gone, 1.0) * x + y

    known = at(before, last["key"]).n_P > 0
    return _bounded(_combined(aged, last, rule), least=LEAST_WEIGHT)


def _combined(base: Table, other: Table, rule: Callable[[str, Array, Array], Array]) -> Table:
    """Both tables' prompts; where `other` has a row, what the rule makes of the base's entry (0, age: infinite, where
    it has none) and the other's. The base itself where the other is empty."""
    if not len(other["key"]):
        return base
    after, new = np.searchsorted(base["key"], other["key"]), ~_places(base, other["key"])[1]
    key = np.insert(base["key"], after[new], other["key"][new]) if new.any() else base["key"]
    out, where = {"key": key}, np.searchsorted(key, other["key"])
    for name in COLUMNS:
        lead = np.broadcast_shapes(base[name].shape[:-1], other[name].shape[:-1])
        mine = np.broadcast_to(base[name], (*lead, base[name].shape[-1]))
        out[name] = np.insert(mine, after[new], np.inf if name == "age" else 0.0, axis=-1) if new.any() else mine.copy()
        out[name][..., where] = rule(name, out[name][..., where], other[name])
    return out


def _bounded(table: Table, least: float = 0.0) -> Table:
    """At most MOST_PROMPTS rows, each with more evidence than `least` in some replicate."""
    if least and not np.all(table["n"] >= least):
        table = _kept(table, _any(table["n"] >= least))
    if len(table["key"]) <= MOST_PROMPTS:
        return table
    age_K = table["age"].reshape(-1, len(table["key"])).min(axis=0)
    return _kept(table, np.sort(np.lexsort((table["key"], age_K))[:MOST_PROMPTS]))


def past(state: State, key_P: Array, keep: float, clock: Clock) -> Past:
    """What `joined` would hold of these keys."""
    before, last = (at(part, key_P) for part in state)
    again = last.n_P > 0
    if clock == "first":
        known = before.n_P > 0
        n, r = (np.where(known, x, y) for x, y in zip(before[:2], last[:2], strict=True))
    else:
        gone = keep if clock == "batches" else np.where(again, keep, 1.0)
        n, r = (gone * x + y for x, y in zip(before[:2], last[:2], strict=True))
    return Past(n, r, before.visits_P + last.visits_P)


def _places(table: Table, key: Array) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Where each key stands, and whether it is there."""
    place = np.minimum(np.searchsorted(table["key"], key), max(len(table["key"]) - 1, 0))
    return place, (table["key"][place] == key if len(table["key"]) else np.zeros(len(key), dtype=bool))


def at(table: Table, key_P: Array) -> Past:
    """What the table alone holds of these keys."""
    place, found = _places(table, key_P)
    if not found.any():
        return Past(*np.zeros((3, len(key_P))))
    return Past(*(np.where(found, table[name][..., place], 0.0) for name in COLUMNS[:3]))


def _kept(table: Table, which: NDArray[Any]) -> Table:
    return {name: column[..., which] for name, column in table.items()}


def _any(column: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """In any replicate."""
    return np.asarray(column.reshape(-1, column.shape[-1]).any(axis=0) if column.ndim > 1 else column)


class PromptMemory:
    """The memory half of a baseline that knows prompts again, told apart by their text. The dataclass that inherits
    says with `retention` what a prompt's past keeps when `clock` ticks."""

    retention: float = 1.0
    clock: ClassVar[Clock] = "visits"

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({"prompt_ids"})

    def init(self) -> State:
        return empty(), empty()

    def observe(self, groups: Groups) -> State:
        assert groups.prompt_P is not None  # since `needs`
        weight_PG = groups.weight_PG
        n_P, r_P = weight_PG.sum(axis=-1), (weight_PG * groups.rewards_PG).sum(axis=-1)
        return empty(), table(keys(groups.prompt_P), n_P, r_P)

    def forget(self, state: State) -> State:
        return joined(*state, self.retention, self.clock), empty()

    def merge(self, a: State, b: State) -> State:
        return merged(a[0], b[0]), merged(a[1], b[1])

    def past(self, state: State, groups: Groups) -> Past:
        """What the state holds of each group's prompt, the last batch included."""
        assert groups.prompt_P is not None
        return past(state, keys(groups.prompt_P), self.retention, self.clock)


def check_retention(value: float) -> None:
    """Raises InputError unless 0 < value <= 1."""
    if not 0 < value <= 1:
        raise InputError(f"retention must be above 0 and at most 1, got {value!r}: 1 never forgets")
