"""What an advantage estimator is: a chain of transforms, from rewards to advantages, with one order of learning.

    rewards -> subtract a baseline -> centre, scale, whiten, rank, re-weigh -> advantages

A new estimator is a frozen dataclass with the methods of `Baseline` (or `StatelessBaseline` and one), or any other
`Transform`, in a chain registered under a name; the contract battery, the exact risk, the simulations and the
trainers then take it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ebpo_sim import typed
from ebpo_sim.errors import InputError
from ebpo_sim.estimators.transforms import Advantages, Baseline, Evaluation, Subtract, Transform
from ebpo_sim.estimators.transforms.base import Domain
from ebpo_sim.groups import Groups, count_groups
from ebpo_sim.part import REMEDIES, Need

Array = NDArray[np.float64]
Order = Literal["update_then_score", "score_then_update"]
CARRIED: tuple[Need, ...] = ("clusters", "prompt_ids", "score_norms", "answers", "components", "greedy_reward")
BY_ROLLOUT: frozenset[Need] = frozenset({*CARRIED, "rollout_order"})  # what counts of rewards do not say
State = tuple[Any, ...]  # one entry a transform, or () where none has a memory


class Info(NamedTuple):
    """What one plots and nothing the next step needs. Shapes as in `Evaluation`, None where no baseline is subtracted;
    scale_PG, all that was divided by, broadcasts to (..., P, G)."""

    baseline_PG: Array | None
    shrinkage_P: Array | None
    prior_mean_P: Array | None
    scale_PG: Array
    degenerate_P: NDArray[np.bool_]


@dataclass(frozen=True)
class Estimator:
    """A named chain of transforms and the order of learning and scoring; see `ebpo_sim.estimators.make`.

    order: "update_then_score" lets a batch into its own prior (EBPO's Algorithm 1), "score_then_update" keeps
    it out; `turn` is the only place that applies it. State: a tuple, one entry a transform.
    """

    name: str
    chain: tuple[Transform, ...]
    order: Order = "score_then_update"

    def __post_init__(self) -> None:
        typed.check("name", str, self.name)
        typed.check("order", Order, self.order)
        if not isinstance(self.chain, tuple) or not self.chain:
            raise InputError(f"chain of {self.name} must be a tuple of transforms, at least one, got {self.chain!r}")

    @property
    def baseline(self) -> Baseline | None:
        """The baseline at the head of the chain; None for a rule that subtracts none."""
        return self.chain[0].baseline if isinstance(self.chain[0], Subtract) else None

    @property
    def learns(self) -> tuple[Hashable, ...]:
        """What decides the baseline on a given stream: rules that share it share their error."""
        return (self.baseline, self.order)  # type: ignore[return-value]  # frozen, but a protocol cannot say so

    @cached_property
    def needs(self) -> frozenset[Need]:
        """What a batch must carry beside rewards."""
        return frozenset[Need]().union(*(t.needs for t in self.chain))

    @cached_property
    def domain(self) -> Domain:
        """The rewards it is defined for: the narrowest of its chain."""
        domains = {t.domain for t in self.chain}
        return "binary" if "binary" in domains else "unit" if "unit" in domains else "real"

    @property
    def exchangeable(self) -> bool:
        """Whether prompts and rollouts count only by their rewards, so that groups may be given as counts."""
        return not self.needs & BY_ROLLOUT

    def with_baseline(self, **settings: Any) -> Estimator:
        """The same chain with other settings of its baseline. Raises InputError where it has none."""
        if self.baseline is None:
            raise InputError(f"{self.name} subtracts no baseline: its settings cannot be changed")
        changed: Any = replace(self.baseline, **settings)  # type: ignore[type-var]
        return replace(self, chain=(Subtract(changed), *self.chain[1:]))

    def init(self) -> State:
        """The state before any batch; () where no transform has a memory."""
        return self._state(t.init() for t in self.chain)

    def score(self, state: State, groups: Groups) -> tuple[Any, Info]:
        """Advantages in the layout and dtype of the rewards (0 for masked rollouts), and what one plots."""
        parts = self._check(state, groups)
        start = Advantages(groups.rewards_PG, np.ones(()))  # 0 where masked
        made = reduce(lambda a, ts: ts[0].apply(ts[1], a, groups), parts, start)
        known = made.evaluation or Evaluation(None)  # type: ignore[arg-type]
        scale_PG = np.broadcast_to(made.divisor_PG, made.values_PG.shape)
        info = Info(known.baseline_PG, known.shrinkage_P, known.prior_mean_P, scale_PG, groups.degenerate_P)
        return groups.restore(made.values_PG), info

    def update(self, state: State, groups: Groups) -> State:
        """merge(forget(state), the batch's statistics); never scores."""
        parts = self._check(state, groups)
        if self._forgetful:
            return ()
        return self._state(t.merge(t.forget(s), t.observe(groups)) for t, s in parts)

    def turn(self, state: State, groups: Groups) -> tuple[State, State]:
        """(the state to score this batch with, the state for the next): the order of learning and scoring."""
        learnt = self.update(state, groups)
        return (learnt if self.order == "update_then_score" else state), learnt

    def step(self, state: State, groups: Groups) -> tuple[Any, Info, State]:
        """(advantages, info, next state) of one batch, in this estimator's order."""
        scoring, learnt = self.turn(state, groups)
        return (*self.score(scoring, groups), learnt)

    def merge(self, a: State, b: State) -> State:
        """Evidence of two workers that started from `init()`; see `Transform.merge`."""
        return self._state(t.merge(x, y) for (t, x), (_, y) in zip(self._parts(a), self._parts(b), strict=True))

    def forget(self, state: State) -> State:
        """The state as the next batch finds it."""
        return self._state(t.forget(s) for t, s in self._parts(state))

    def baseline_of(self, state: State, groups: Groups) -> Evaluation | None:
        """The baseline of every rollout; None for a rule that subtracts none."""
        return None if self.baseline is None else self.baseline.evaluate(self._parts(state)[0][1], groups)

    @cached_property
    def _forgetful(self) -> bool:
        """Whether no transform has a memory."""
        return self.init() == ()

    def _state(self, parts: Iterable[Any]) -> State:
        found = tuple(parts)
        return found if any(type(part) is not tuple or part for part in found) else ()

    def _parts(self, state: State) -> list[tuple[Transform, Any]]:
        """Each transform with its own state."""
        if type(state) is tuple and not state and self._forgetful:
            return [(t, ()) for t in self.chain]
        if not isinstance(state, tuple) or len(state) != len(self.chain):
            found = "None" if state is None else type(state).__name__
            raise InputError(f"state of {self.name} is {found}: start with init() and pass on what step() returns")
        return list(zip(self.chain, state, strict=True))

    def _check(self, state: State, groups: Groups) -> list[tuple[Transform, Any]]:
        """`_parts`, of a state and a batch that fit the chain."""
        if not isinstance(groups, Groups):
            raise InputError(f"groups must be what group_rewards() returns, got {type(groups).__name__}")
        parts = self._parts(state)
        carried = (groups.cluster_P, groups.prompt_P, groups.score_norm_PG, *groups.sides)
        for need, present in zip(CARRIED, carried, strict=True):
            if need in self.needs and present is None:
                raise InputError(f"{self.name} needs {need}: {REMEDIES[need]}")
        domain, r = self.domain, groups.rewards_PG
        if domain == "binary" and not np.all((r == 0) | (r == 1)):
            bad = r[(r != 0) & (r != 1)][0]
            raise InputError(f"{self.name} needs rewards in {{0, 1}}, got {bad!r}: threshold them or use ebpo_debiased")
        if domain == "unit" and not np.all((r >= 0) & (r <= 1)):
            bad = r[(r < 0) | (r > 1)][0]
            raise InputError(f"{self.name} needs rewards in [0, 1], got {bad!r}: rescale them or use ebpo_debiased")
        return parts


def baseline_table(estimator: Estimator, state: State, group_size: int) -> Array:
    """The baseline of a binary group as a table, shape (..., G+1, 2): [k, r] = k of G rewarded, own reward r.

    Both columns agree unless the rule leaves the scored rollout out. Cells that cannot occur ([0, 1], [G, 0])
    repeat their neighbour. Exact risk, Monte Carlo and figures all read this table. Raises InputError for a rule that
    subtracts no baseline.
    """
    evaluation = estimator.baseline_of(state, count_groups(group_size))
    if evaluation is None:
        raise InputError(f"{estimator.name} subtracts no baseline: ask for its advantages instead")
    table = evaluation.baseline_PG
    table = np.broadcast_to(table, (*table.shape[:-2], group_size + 1, group_size))
    failed, rewarded = table[..., -1], table[..., 0]  # failures are a group's last columns, successes its first
    return np.stack([failed, rewarded], axis=-1)
