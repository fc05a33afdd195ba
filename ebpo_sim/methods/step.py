"""The part of a training step that no host decides: what of a batch is kept, its advantages, and the next state."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ebpo_sim.estimators import Info
from ebpo_sim.groups import Groups, masked
from ebpo_sim.host import Host
from ebpo_sim.methods.method import Method
from ebpo_sim.numbers import Array
from ebpo_sim.part import Draw
from ebpo_sim.sampling import Allocation, Ask, Everything, Plan, Pool, check_plan

FLOAT64 = Host(None, np.dtype(np.float64))


class State(NamedTuple):
    """The memories of a method's parts; () where a part has none."""

    estimator: Any = ()
    allocation: Any = ()
    selection: Any = ()
    objectives: tuple[Any, ...] = ()


class Decision(NamedTuple):
    """keep_PG, advantage_PG: in the padded layout of the groups, advantages 0 where nothing is kept and times the
    allocation's and the selection's weights. groups: how many have a kept rollout. info: the estimator's, None where
    nothing was kept. state: of the next step."""

    keep_PG: NDArray[np.bool_]
    advantage_PG: Array
    groups: int
    info: Info | None
    state: State


def start(method: Method) -> State:
    """The state before any batch."""
    chosen = () if method.allocation is None else method.allocation.init()
    return State(method.estimator.init(), chosen, method.selection.init(), tuple(o.init() for o in method.objectives))


def plan(allocation: Allocation, state: State, pool: Pool, ask: Ask, seed: int) -> Plan:
    """The groups of one generation batch. Raises InputError for a plan that cannot be carried out."""
    draw = Draw(seed, "allocation", ask.step)
    return check_plan(allocation.plan(state.allocation, pool, ask, draw), pool, type(allocation).__name__)


def decide(
    method: Method, state: State, groups: Groups, ask: Ask, seed: int, weight_P: Array | None = None
) -> Decision:
    """Select, score and learn from all groups drawn for this step so far; weight_P: their plans', None for 1.

    A selection that draws more keeps the first Ask.prompts of the groups it would keep. Memories of allocation and
    selection learn from every group, the estimator's from the groups it is shown.
    """
    selection, draw = method.selection, Draw(seed, "selection", ask.step)
    if groups.flat_index is not None or groups.host != FLOAT64:
        groups = replace(groups, flat_index=None, host=FLOAT64)  # scores stay in this layout
    if isinstance(selection, Everything):
        advantage_PG, known, learnt = method.estimator.step(state.estimator, groups)
        advantage_PG = advantage_PG if weight_P is None else advantage_PG * weight_P[:, None]
        after = state._replace(estimator=learnt, allocation=_next(method.allocation, state.allocation, groups))
        return Decision(groups.mask_PG, advantage_PG, int(np.count_nonzero(groups.size_P)), known, after)
    scores, info, learnt = np.zeros(groups.rewards_PG.shape), None, state.estimator
    if selection.after:
        scores, info, learnt = method.estimator.step(state.estimator, groups)
    kept = selection.weigh(state.selection, groups, scores if selection.after else None, draw)
    keep_PG = groups.mask_PG & kept.keep_PG
    if selection.batches > 1:
        keep_PG = keep_PG & (np.cumsum(keep_PG.any(axis=-1)) <= ask.prompts)[:, None]
    if not selection.after and keep_PG.any():
        shown = groups if (keep_PG == groups.mask_PG).all() else masked(groups, keep_PG)
        scores, info, learnt = method.estimator.step(state.estimator, shown)
    for weight_PG in (kept.weight_PG, None if weight_P is None else weight_P[:, None]):
        scores = scores if weight_PG is None else scores * weight_PG
    chosen = _next(method.allocation, state.allocation, groups)
    selected = _next(selection, state.selection, groups)
    groups_kept = int(keep_PG.any(axis=-1).sum())
    after = State(learnt, chosen, selected, state.objectives)
    return Decision(keep_PG, np.where(keep_PG, scores, 0.0), groups_kept, info, after)


def following(method: Method, state: State, groups: Groups) -> State:
    """The memories after a batch of which everything was kept."""
    learnt = method.estimator.update(state.estimator, groups)
    chosen = _next(method.allocation, state.allocation, groups)
    return State(learnt, chosen, _next(method.selection, state.selection, groups), state.objectives)


def _next(part: Any, state: Any, groups: Groups) -> Any:
    return state if part is None or state == () else part.merge(part.forget(state), part.observe(groups))
