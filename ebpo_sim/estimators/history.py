"""What is remembered of every prompt: its rewards before the last batch and, apart from them, those of that batch.

Kept apart, a state can learn what a prompt's past says of its next rewards, although the statistics of a batch know
nothing of the state: `forget` reads it off, then joins the two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import add
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ebpo_sim.estimators import components
from ebpo_sim.estimators.components import EVERY, LEAST_WEIGHT, Memory, merge_keys
from ebpo_sim.estimators.group_mean import others_mean
from ebpo_sim.groups import Groups, Weights, rollout_weights
from ebpo_sim.numbers.moments import Real
from ebpo_sim.part import OF_WEIGHTS, Need

Array = NDArray[np.float64]
MOST_PROMPTS = 65536  # a state's bound: memory and the time of a step are linear in it
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
State = tuple[Bank, Bank, dict[str, Array]]  # prompts, clusters, and what was learnt from all batches but the last


class HistoryMemory:
    """The memory half of a baseline that knows prompts again; the dataclass that inherits has these settings.

    memory: of the clusters' means and of what is learnt, history: of a prompt's own rewards; retentions a batch. Of
    more than MOST_PROMPTS prompts those with the least evidence (ties: the last names) are dropped, and are new when
    they come again. Prompts and clusters are told apart by their text.
    """

    weights: Weights
    memory: Memory
    history: Memory
    per_cluster: bool

    @property
    def needs(self) -> frozenset[Need]:
        own: set[Need] = {"prompt_ids", "clusters"} if self.per_cluster else {"prompt_ids"}
        return OF_WEIGHTS[self.weights] | own

    def learn(self, seen: Seen, mean_K: Array) -> dict[str, Array]:
        """What the last batch's prompts (..., K) teach; mean_K: their clusters' means before it, NaN where unknown."""
        raise NotImplementedError

    def init(self) -> State:
        return {}, {}, {}

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
        return _joined(keys, entries), _joined(clusters, counts), {}

    def forget(self, state: State) -> State:
        prompts, clusters, _ = state
        learnt = self._learnt(state)
        return (
            _aged(prompts, components.retention(self.history)),
            _aged(clusters, components.retention(self.memory)),
            learnt,
        )

    def merge(self, a: State, b: State) -> State:
        prompts, clusters = (merge_keys(x, y, _add) for x, y in zip(a[:2], b[:2], strict=True))
        if len(prompts) > MOST_PROMPTS:
            kept = sorted(prompts, key=lambda k: (-_evidence(prompts[k]), k))[:MOST_PROMPTS]
            prompts = {k: prompts[k] for k in sorted(kept)}
        together: Callable[[Array, Array], Array] = add
        return prompts, components.bounded(clusters, _add, _evidence), merge_keys(a[2], b[2], together)

    def known(self, state: State, groups: Groups) -> tuple[Seen, Array, dict[str, Array]]:
        """Each group's prompt before this batch (fields (..., P)), its cluster's mean, and what was learnt."""
        prompts, clusters, _ = state
        names, keep = self._clusters(groups), components.retention(self.history)
        assert groups.prompt_P is not None
        own = [prompts.get(f"{c}{BETWEEN}{p}", Seen()) for c, p in zip(names, groups.prompt_P, strict=True)]
        now = _aged(clusters, components.retention(self.memory))
        return columns([_joined_past(seen, keep) for seen in own]), means(names, now), self._learnt(state)

    def _learnt(self, state: State) -> dict[str, Array]:
        """What was learnt from all batches, the last one too."""
        prompts, clusters, learnt = state
        keep = components.retention(self.memory)
        new = [key for key, seen in prompts.items() if _some(seen.new_n)]
        fresh = self.learn(columns([prompts[k] for k in new]), means([k.partition(BETWEEN)[0] for k in new], clusters))
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
