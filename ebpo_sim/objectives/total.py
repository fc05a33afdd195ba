"""Several objectives as one: pushes add, what happened to tokens is counted together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any

from ebpo_sim.objectives.base import Objective, Push, Tokens
from ebpo_sim.objectives.corrections import corrected
from ebpo_sim.part import Draw, Need


def total_push(
    objectives: Sequence[Objective], states: Sequence[Any], tokens: Tokens, draw: Draw | None = None
) -> Push:
    """The sum of all pushes at `tokens`, whose advantages the corrections among them weigh; at least one objective."""
    tokens = corrected(objectives, tokens)
    pushes = [o.push(s, tokens, draw) for o, s in zip(objectives, states, strict=True)]
    if len(pushes) == 1:
        return pushes[0]
    log_prob = reduce(add, [p.log_prob_NT for p in pushes])
    entropies = [p.entropy_NT for p in pushes if p.entropy_NT is not None]
    counts: dict[str, Any] = {}
    for push in pushes:
        for name, count in push.counts.items():
            counts[name] = counts.get(name, 0) + count
    return Push(log_prob, reduce(add, entropies) if entropies else None, counts)


def learnt(objectives: Sequence[Objective], states: Sequence[Any], parts: Sequence[Tokens]) -> tuple[Any, ...]:
    """The memories after a mini-batch, given in parts: what each part shows is merged, then forgotten into once."""
    following = []
    for objective, state in zip(objectives, states, strict=True):
        if state != ():
            seen = [objective.observe(tokens) for tokens in parts]
            state = reduce(objective.merge, seen, objective.forget(state))
        following.append(state)
    return tuple(following)


def remember(objectives: Sequence[Objective]) -> bool:
    """Whether one of them has a memory."""
    return any(o.init() != () for o in objectives)


def needs(objectives: Sequence[Objective]) -> frozenset[Need]:
    """All that the objectives need of a batch."""
    return frozenset().union(*(o.needs for o in objectives))


def zero_at_zero(objectives: Sequence[Objective]) -> bool:
    """Whether rows of advantage exactly 0 push nothing under all of them, and teach them nothing."""
    return all(o.zero_at_zero for o in objectives) and not remember(objectives)
