"""What a prompt's past says of its next rewards: the memory of every prompt, and of the last batch what that teaches.

The last batch is kept apart, as in `memory`: its statistics know nothing of the state, so `forget` reads off what they
teach, then joins the two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import add
from typing import NamedTuple

import numpy as np

from ebpo_sim import typed
from ebpo_sim.estimators import components, memory
from ebpo_sim.estimators.components import EVERY, Memory, merge_keys
from ebpo_sim.estimators.group_mean import others_mean
from ebpo_sim.estimators.memory import LEAST_WEIGHT, Table
from ebpo_sim.groups import Groups, Weights, rollout_weights
from ebpo_sim.numbers import Array
from ebpo_sim.numbers.moments import Real
from ebpo_sim.part import OF_WEIGHTS, Need

BETWEEN = "\0"  # a prompt's key is its cluster, this, its id


class Seen(NamedTuple):
    """Of one prompt, or all of a cluster. n, r: rollouts and their rewards' sum before the last batch, discounted.

    new_n, new_r: those of the last batch; w, wr: sums of its W and W r; wg, wgr, wl, wll, wrl: of its rollouts that
    have others, sums of W, W r, W m, W m^2, W r m, m the mean of the others.
    """

    n: Real = 0.0
    r: Real = 0.0
    new_n: Real = 0.0
    new_r: Real = 0.0
    w: Real = 0.0
    wr: Real = 0.0
    wg: Real = 0.0
    wgr: Real = 0.0
    wl: Real = 0.0
    wll: Real = 0.0
    wrl: Real = 0.0


Bank = dict[str, Seen]
# the prompts before the last batch, those of it, clusters, and what was learnt from all batches but the last
State = tuple[Table, Bank, Bank, dict[str, Array]]


@dataclass(frozen=True)
class HistoryMemory(typed.Settings):
    """The memory half of a baseline that knows prompts again; prior_weight: rollouts that a prior counts for.

    memory: of the clusters' means and of what is learnt, history: of a prompt's own rewards; retentions a batch. The
    number of prompts is bounded as in `memory`. Prompts and clusters are told apart by their text.
    """

    weights: Weights = "none"
    memory: Memory = "cumulative"
    history: Memory = "cumulative"
    per_cluster: bool = False
    prior_weight: float = 2.0

    def check_settings(self) -> None:
        components.retention(self.memory)
        components.retention(self.history)

    @property
    def needs(self) -> frozenset[Need]:
        own: set[Need] = {"prompt_ids", "clusters"} if self.per_cluster else {"prompt_ids"}
        return OF_WEIGHTS[self.weights] | own

    def learn(self, seen: Seen, mean_K: Array) -> dict[str, Array]:
        """What the last batch's prompts (..., K) teach; mean_K: their clusters' means before it, NaN where unknown."""
        raise NotImplementedError

    def init(self) -> State:
        return memory.empty(), {}, {}, {}

    def observe(self, groups: Groups) -> State:
        assert groups.prompt_P is not None  # since `needs`
        others_PG, weight_PG = others_mean(groups), rollout_weights(groups, self.weights)
        has_PG = weight_PG * (groups.size_P > 1)[..., None]
        r, terms = groups.rewards_PG, [groups.weight_PG]
        terms += [terms[0] * r, weight_PG, weight_PG * r, has_PG, has_PG * r]
        terms += [has_PG * others_PG, has_PG * others_PG**2, has_PG * r * others_PG]
        sums = np.broadcast_arrays(*(term.sum(axis=-1) for term in terms))
        entries = _entries(Seen(0 * sums[0], 0 * sums[0], *sums))
        clusters = self._clusters(groups)
        keys = [f"{c}{BETWEEN}{p}" for c, p in zip(clusters, groups.prompt_P, strict=True)]
        counts = [Seen(new_n=e.new_n, new_r=e.new_r) for e in entries]  # of clusters no more is asked
        return memory.empty(), _joined(keys, entries), _joined(clusters, counts), {}

    def forget(self, state: State) -> State:
        prompts, last, clusters, _ = state
        seen = columns(list(last.values()))
        batch = memory.table(memory.keys(last), np.asarray(seen.new_n), np.asarray(seen.new_r))
        return (
            memory.joined(prompts, batch, components.retention(self.history), "batches"),
            {},
            _aged(clusters, components.retention(self.memory)),
            self._learnt(state),
        )

    def merge(self, a: State, b: State) -> State:
        last, clusters = (merge_keys(x, y, _add) for x, y in zip(a[1:3], b[1:3], strict=True))
        together: Callable[[Array, Array], Array] = add
        learnt = merge_keys(a[3], b[3], together)
        return memory.merged(a[0], b[0]), last, components.bounded(clusters, _add, _evidence), learnt

    def known(self, state: State, groups: Groups) -> tuple[Seen, Array, dict[str, Array]]:
        """Each group's prompt before this batch (fields (..., P)), its cluster's mean, and what was learnt."""
        prompts, last, clusters, _ = state
        names, keep = self._clusters(groups), components.retention(self.history)
        assert groups.prompt_P is not None
        own = [f"{c}{BETWEEN}{p}" for c, p in zip(names, groups.prompt_P, strict=True)]
        before, new = memory.at(prompts, memory.keys(own)), columns([last.get(key, Seen()) for key in own])
        seen = Seen(keep * before.n_P + new.new_n, keep * before.r_P + new.new_r)
        now = _aged(clusters, components.retention(self.memory))
        return seen, means(names, now), self._learnt(state)

    def _learnt(self, state: State) -> dict[str, Array]:
        """What was learnt from all batches, the last one too."""
        prompts, last, clusters, learnt = state
        keep = components.retention(self.memory)
        before, seen = memory.at(prompts, memory.keys(last)), columns(list(last.values()))
        shape = np.broadcast_shapes(before.n_P.shape, np.shape(seen.new_n))
        seen = seen._replace(n=np.broadcast_to(before.n_P, shape), r=np.broadcast_to(before.r_P, shape))
        fresh = self.learn(seen, means([k.partition(BETWEEN)[0] for k in last], clusters))
        return {name: keep * learnt.get(name, np.zeros(())) + fresh[name] for name in sorted(fresh)}

    def _clusters(self, groups: Groups) -> Sequence[str]:
        return components.required_clusters(groups) if self.per_cluster else [EVERY] * groups.size_P.shape[-1]


def columns(entries: Sequence[Seen]) -> Seen:
    """Fields (..., K) of K entries, an entry's leading axes first."""
    lead = max((np.shape(x) for e in entries for x in (e.n, e.new_n)), key=len, default=())
    table = np.zeros((len(entries), len(Seen._fields), *lead))
    if lead:
        for row, entry in zip(table, entries, strict=True):
            for field, x in zip(row, entry, strict=True):
                field[...] = x
    elif entries:
        table[...] = entries
    return Seen(*np.moveaxis(table, 0, -1))


def means(names: Sequence[str], clusters: Bank) -> Array:
    """The mean before the last batch of each of these clusters, or of all together where it is new, (..., K); NaN
    where nothing was seen."""
    whole = Seen()
    for seen in clusters.values():
        whole = _add(whole, seen)
    known = columns([clusters.get(name, whole) for name in names])
    pooled = columns([whole])
    n, r = (np.where(np.asarray(known.n) > 0, x, y) for x, y in ((known.n, pooled.n), (known.r, pooled.r)))
    return np.where(n > 0, r / np.where(n > 0, n, 1.0), np.nan)


def _entries(seen: Seen) -> list[Seen]:
    table = np.moveaxis(np.stack([np.asarray(x) for x in seen]), -1, 0)
    return [Seen(*row) for row in (table.tolist() if table.ndim == 2 else table)]


def _joined(names: Sequence[str], entries: Iterable[Seen]) -> Bank:
    """One entry a name, those without a rollout left out."""
    found: Bank = {}
    for name, seen in zip(names, entries, strict=True):
        if _some(seen.new_n):
            found[name] = _add(found[name], seen) if name in found else seen
    return {name: found[name] for name in sorted(found)}


def _aged(bank: Bank, keep: float) -> Bank:
    """The last batch joined to what was before it, times `keep`; what is left below LEAST_WEIGHT is dropped."""
    aged = {k: _joined_past(s, keep) for k, s in bank.items()}
    return {k: s for k, s in aged.items() if _some(s.n)}


def _joined_past(seen: Seen, keep: float) -> Seen:
    if keep == 1.0 and not _some(seen.new_n):
        return seen
    return Seen(keep * seen.n + seen.new_n, keep * seen.r + seen.new_r)


def _some(x: Real) -> bool:
    """Whether it is evidence, in any replicate."""
    return x >= LEAST_WEIGHT if isinstance(x, float) else bool(np.any(x >= LEAST_WEIGHT))


def _add(a: Seen, b: Seen) -> Seen:
    return Seen(*map(add, a, b))


def _evidence(seen: Seen) -> float:
    return float(np.max(np.asarray(seen.n) + seen.new_n))
