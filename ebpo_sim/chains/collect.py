"""The rollouts of one training step, as its method asks for them: planned, drawn, selected, scored."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ebpo_sim.chains.answers import groups_of
from ebpo_sim.chains.policy import Ints, Prompts
from ebpo_sim.chains.update import Rollouts, sample
from ebpo_sim.estimators import Info
from ebpo_sim.groups import Groups, over
from ebpo_sim.methods.method import Method
from ebpo_sim.methods.step import State, decide, plan
from ebpo_sim.numbers import Array
from ebpo_sim.sampling import Allocation, Ask, Order, Plan, Pool, weights_of


class Collected(NamedTuple):
    """What is trained on: rolled, None where nothing was kept, and an advantage a rollout, in the shape of its rewards.
    info: the estimator's. groups: all that were drawn; silent: the share of them without any advantage but 0.
    planned_P: prompts of the first generation batch. state: of the next step."""

    rolled: Rollouts | None
    advantage_PG: Array
    info: Info | None
    groups: Groups
    silent: float
    planned_P: Ints
    state: State

    @property
    def drawn(self) -> float:
        """Rollouts that were drawn, dropped ones too."""
        return float(self.groups.size_P.sum())


def collect(
    theta_SK: Array, prompts: Prompts, pool: Pool, method: Method, state: State, ask: Ask, seed: int,
    rng: np.random.Generator, mismatch: float = 0.0, placebo: bool = False,
) -> Collected:  # fmt: skip
    """Plan, draw, decide; again with other prompts while the selection asks for more. mismatch: see `update.sample`.
    placebo: the rewards of what was drawn in a random order, so that they know nothing of prompts and answers."""
    allocation: Allocation = method.allocation or Order()
    needs, rolled, plans = method.needs(), None, list[Plan]()
    for attempt in range(method.selection.batches):
        plans.append(plan(allocation, state, pool, ask._replace(attempt=attempt), seed))
        fresh = draw(theta_SK, prompts, plans[-1], rng, mismatch)
        if placebo:
            fresh = fresh._replace(reward_PG=rng.permutation(fresh.reward_PG.ravel()).reshape(fresh.reward_PG.shape))
        rolled = fresh if rolled is None else join(rolled, fresh)
        groups = groups_of(rolled, needs)
        decision = decide(method, state, groups, ask, seed, weights_of(plans))
        if decision.groups >= ask.prompts:
            break
    assert rolled is not None
    planned_P = plans[0].prompt_P
    silent_P = ~over(np.logical_or, decision.advantage_PG != 0)
    silent = np.count_nonzero(silent_P) / len(silent_P)
    keep_PG, advantage_PG = decision.keep_PG, decision.advantage_PG
    if rolled.group_P is not None:
        assert groups.flat_index is not None
        keep_PG = keep_PG.reshape(-1)[groups.flat_index][:, None]
        advantage_PG = advantage_PG.reshape(-1)[groups.flat_index][:, None]
    if keep_PG.all():
        return Collected(rolled, advantage_PG, decision.info, groups, silent, planned_P, decision.state)
    if not (keep_PG.all(axis=1) | ~keep_PG.any(axis=1)).all():  # parts of groups
        rolled, keep_PG, advantage_PG = flat(rolled), keep_PG.reshape(-1, 1), advantage_PG.reshape(-1, 1)
    rows = np.flatnonzero(keep_PG[:, 0])
    kept = rolled.rows(rows) if len(rows) else None
    return Collected(kept, advantage_PG[rows], decision.info, groups, silent, planned_P, decision.state)


def draw(theta_SK: Array, prompts: Prompts, planned: Plan, rng: np.random.Generator, mismatch: float = 0.0) -> Rollouts:
    """The rollouts of a plan; flat where its groups are of unequal size."""
    if (planned.size_P == planned.size_P[0]).all():
        rolled = sample(theta_SK, prompts.take(planned.prompt_P), int(planned.size_P[0]), rng, mismatch)
        return rolled._replace(number_P=planned.prompt_P)
    group_N = np.repeat(np.arange(len(planned.size_P)), planned.size_P)
    number_N = planned.prompt_P[group_N]
    return sample(theta_SK, prompts.take(number_N), 1, rng, mismatch)._replace(number_P=number_N, group_P=group_N)


def flat(rolled: Rollouts) -> Rollouts:
    """The same rollouts, a row each."""
    if rolled.group_P is not None:
        return rolled
    count, size = rolled.reward_PG.shape
    group_N = np.repeat(np.arange(count), size)
    return rolled.rows(group_N)._replace(
        actions_PGL=rolled.actions_PGL.reshape(count * size, 1, -1), reward_PG=rolled.reward_PG.reshape(-1, 1),
        group_P=group_N,
    )  # fmt: skip


def join(first: Rollouts, second: Rollouts) -> Rollouts:
    """Both batches as one, the second's groups after the first's."""
    if first.reward_PG.shape[1] != second.reward_PG.shape[1] or first.group_P is not None or second.group_P is not None:
        first, second = flat(first), flat(second)
        assert first.group_P is not None and second.group_P is not None
        second = second._replace(group_P=second.group_P + first.group_P[-1] + 1)
    prompts = Prompts._make(np.concatenate(pair) for pair in zip(first.prompts, second.prompts, strict=True))
    pairs = zip(first[1:], second[1:], strict=True)
    return Rollouts._make((prompts, *(None if a is None else np.concatenate([a, b]) for a, b in pairs)))
