"""What a method decides beside the update: which prompts get how many rollouts, and which rollouts are learnt from.

    pool -> allocation: Plan -> rollouts -> selection: Kept -> estimator -> objectives

Both are frozen dataclasses of settings with pure functions and a mergeable memory (`()` where there is none):
state -> merge(forget(state), observe(groups)), with all groups that were drawn, dropped ones too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ebpo_sim.errors import InputError
from ebpo_sim.groups import Groups
from ebpo_sim.numbers import Array
from ebpo_sim.part import Draw, Need

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Pool:
    """The prompts there are, numbered 0 .. count - 1. cluster_P: the number of each prompt's topic, or None for one
    topic. rate_P: its pass rate before training, in [0, 1], or None where nobody measured it. ids: what batches call
    each prompt (`Groups.prompt_P`), or None for its number."""

    count: int
    cluster_P: Ints | None = None
    rate_P: Array | None = None
    ids: tuple[Any, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("cluster_P", "rate_P"):
            values = getattr(self, name)
            if values is not None and values.shape != (self.count,):
                raise InputError(f"{name} must have one entry for each of {self.count} prompts, got {values.shape}")
        if self.ids is not None and len(self.ids) != self.count:
            raise InputError(f"ids must have one entry for each of {self.count} prompts, got {len(self.ids)}")


class Ask(NamedTuple):
    """What is to be planned: `prompts` prompts of `group_size` rollouts on average, for step `step` of `steps`; attempt
    counts the generation batches of the step from 0, for selections that ask for more."""

    step: int
    steps: int
    prompts: int
    group_size: int
    attempt: int = 0


class Plan(NamedTuple):
    """prompt_P: numbers of the pool's prompts, size_P: rollouts of each, at least 1. A prompt may come twice, as two
    groups. weight_P: what the advantages of each group are multiplied by, finite and at least 0; None for 1."""

    prompt_P: Ints
    size_P: Ints
    weight_P: Array | None = None


class Kept(NamedTuple):
    """keep_PG: rollouts that stay in the batch; the others are as if never drawn and count in no mean and no divisor.
    weight_PG: what the advantages of the kept are multiplied by; None for 1. A kept rollout of weight 0 still counts
    in the objective's divisor."""

    keep_PG: NDArray[np.bool_]
    weight_PG: Array | None = None


class Remembering(Protocol):
    """What allocations and selections share: needs, and a mergeable memory of all groups that were drawn."""

    @property
    def needs(self) -> frozenset[Need]: ...

    def init(self) -> Any: ...
    def observe(self, seen: Groups) -> Any: ...
    def forget(self, state: Any) -> Any: ...
    def merge(self, a: Any, b: Any) -> Any: ...


class Allocation(Remembering, Protocol):
    """Before the rollouts: which prompts, how many rollouts each."""

    def plan(self, state: Any, pool: Pool, ask: Ask, draw: Draw) -> Plan:
        """The groups of one generation batch; a pure function, so that a resumed run plans the same."""


class Selection(Remembering, Protocol):
    """After the rollouts: which stay in the batch, with which weight, and whether more are drawn.

    after: False selects before the estimator sees the batch (advantage_PG is None, and the prior learns from what is
    kept); True after it has scored all of it. batches: the most generation batches of a step; above 1 the host draws
    again until Ask.prompts groups are kept, and leaves the surplus out.
    """

    @property
    def after(self) -> bool: ...

    @property
    def batches(self) -> int: ...

    def weigh(self, state: Any, groups: Groups, advantage_PG: Array | None, draw: Draw) -> Kept:
        """What is kept of the groups; `after` decides whether advantages are given."""


def check_plan(plan: Plan, pool: Pool, who: str) -> Plan:
    """The plan itself. Raises InputError for no group, unknown prompts, sizes below 1, weights that are negative or not
    finite, and shapes that differ."""
    prompt_P, size_P = np.asarray(plan.prompt_P), np.asarray(plan.size_P)
    if prompt_P.ndim != 1 or prompt_P.shape != size_P.shape or not len(prompt_P):
        raise InputError(
            f"{who} must plan prompt_P and size_P of one length above 0, got {prompt_P.shape}, {size_P.shape}"
        )
    if not (prompt_P.min() >= 0 and prompt_P.max() < pool.count and size_P.min() >= 1):
        raise InputError(f"{who} must plan prompts 0 .. {pool.count - 1} with at least 1 rollout each, got {plan!r}")
    weight_P = plan.weight_P
    if weight_P is not None and not (weight_P.shape == size_P.shape and np.all((weight_P >= 0) & (weight_P < np.inf))):
        raise InputError(f"{who} must plan weight_P finite and at least 0, one a group, got {weight_P!r}")
    return Plan(prompt_P.astype(np.int64, copy=False), size_P.astype(np.int64, copy=False), weight_P)


def weights_of(plans: Sequence[Plan]) -> Array | None:
    """weight_P of all groups of a step's generation batches; None where no plan weighs."""
    if all(plan.weight_P is None for plan in plans):
        return None
    return np.concatenate([np.ones(len(p.size_P)) if p.weight_P is None else p.weight_P for p in plans])
