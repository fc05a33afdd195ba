"""From advantages to parameters: a batch's tokens, the objectives' push on them, its gradient, optimiser steps.

Compiled code draws, gathers log-probabilities, scatters pushes and steps the optimiser; what pushes is decided by
`ebpo_sim.objectives`, the same array functions that train language models.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ebpo_sim.chains.kernels import (
    distributions,
    optimiser_step,
    rollout,
    scatter,
    scatter_entropy,
    token_entropies,
    token_log_probs,
)
from ebpo_sim.chains.policy import Ints, Prompts
from ebpo_sim.groups import Groups, group_rewards
from ebpo_sim.objectives import Aggregation, Objective, Tokens, needs, total_push
from ebpo_sim.objectives.base import LogRatio
from ebpo_sim.part import Need

Array = NDArray[np.float64]


class Rollouts(NamedTuple):
    """G answers to each prompt of a batch: actions_PGL, reward_PG and the distributions pi_PLK they were drawn from.
    boost_PL = exp(offset_PL)."""

    prompts: Prompts
    boost_PL: Array
    actions_PGL: Ints
    reward_PG: Array
    pi_PLK: Array

    def part(self, low: int, high: int) -> Rollouts:
        """The answers to prompts low .. high - 1."""
        s, p = slice(low, high), self.prompts
        prompts = Prompts(p.topic_P[s], p.length_P[s], p.skills_PL[s], p.offset_PL[s], p.right_PL[s])
        return Rollouts(prompts, self.boost_PL[s], self.actions_PGL[s], self.reward_PG[s], self.pi_PLK[s])


class Layout(NamedTuple):
    """Where tokens stand in the arrays of `Tokens`: that of rollout g and step l of a prompt, counted along the rows,
    at first_P + g by_rollout + l by_step. first_P has an end, P + 1 entries; width: columns."""

    first_P: Ints
    by_rollout: int
    by_step: int
    width: int

    def rows(self, low: int, high: int) -> slice:
        """The rows of prompts low .. high - 1."""
        return slice(int(self.first_P[low]) // self.width, int(self.first_P[high]) // self.width)

    def part(self, low: int, high: int) -> Layout:
        """Of prompts low .. high - 1 alone."""
        return self._replace(first_P=self.first_P[low : high + 1] - self.first_P[low])


def layout_of(rolled: Rollouts, objectives: Sequence[Objective], rollouts: bool = False) -> Layout:
    """Rollouts as rows, padded; but for objectives that look at one token at a time steps as rows and rollouts as
    columns, which needs no padding. rollouts: as rows for all."""
    count, group_size, width = rolled.actions_PGL.shape
    if rollouts or any(o.scope != "token" for o in objectives):
        return Layout(np.arange(count + 1) * (group_size * width), width, 1, width)
    return Layout(np.concatenate(([0], np.cumsum(rolled.prompts.length_P))) * group_size, 1, group_size, group_size)


class Learner(NamedTuple):
    """How a batch is learnt from: objectives whose pushes add, the aggregation of their tokens, optimiser steps."""

    objectives: tuple[Objective, ...]
    aggregation: Aggregation
    adam: bool
    learning_rate: float
    minibatches: int = 1
    epochs: int = 1


class Update(NamedTuple):
    """Updates so far, the mean gradient norm of this batch's updates, and how many tokens the objectives held."""

    updates: int
    norm: float
    clipped: int


def sample(theta_SK: Array, prompts: Prompts, group_size: int, rng: np.random.Generator) -> Rollouts:
    """`group_size` answers to each prompt, by inversion of uniform numbers."""
    width, boost_PL = prompts.skills_PL.shape[1], np.exp(prompts.offset_PL)
    shape = (len(prompts.length_P), group_size)
    pi_PLK = _policy(theta_SK, prompts, boost_PL)
    actions, reward_PG = np.zeros((*shape, width), dtype=np.int64), np.empty(shape)
    rollout(pi_PLK, prompts.length_P, prompts.right_PL, rng.random((*shape, width)), actions, reward_PG)
    return Rollouts(prompts, boost_PL, actions, reward_PG, pi_PLK)


def _policy(theta_SK: Array, prompts: Prompts, boost_PL: Array) -> Array:
    """Every step's distribution (P, L, K); 1 on padding."""
    pi_PLK = np.empty((*prompts.skills_PL.shape, theta_SK.shape[1]))
    distributions(theta_SK, prompts.skills_PL, prompts.length_P, boost_PL, prompts.right_PL, pi_PLK)
    return pi_PLK


def _log_probs(pi_PLK: Array, rolled: Rollouts, layout: Layout, old_NT: Array | None = None) -> tuple[Array, LogRatio]:
    """(log pi of every token in its place, nats, 0 on padding; its difference to old_NT)."""
    log_prob_M, ratio_M = np.zeros((2, int(layout.first_P[-1])))
    old_M = ratio_M if old_NT is None else old_NT.reshape(-1)
    chain = (pi_PLK, rolled.prompts.length_P, rolled.actions_PGL)
    largest = token_log_probs(*chain, *layout[:3], old_M, log_prob_M, ratio_M)
    return log_prob_M.reshape(-1, layout.width), LogRatio(ratio_M.reshape(-1, layout.width), largest)


def groups_of(rolled: Rollouts, wanted: frozenset[Need], prompt_ids: Ints | None = None) -> Groups:
    """The batch as estimators take it, the one place of this rung that builds it: rewards, and of lengths, topics and
    the prompts' numbers what is `wanted`."""
    lengths = None
    if "lengths" in wanted:
        lengths = np.repeat(rolled.prompts.length_P[:, None], rolled.reward_PG.shape[1], axis=1)
    return group_rewards(
        rolled.reward_PG, lengths=lengths,
        clusters=rolled.prompts.topic_P if "clusters" in wanted else None,
        prompt_ids=prompt_ids if "prompt_ids" in wanted else None,
    )  # fmt: skip


def tokens_of(
    rolled: Rollouts, layout: Layout, advantage_PG: Array, objectives: Sequence[Objective],
    reference_PLK: Array | None = None,
) -> Tokens:  # fmt: skip
    """The answers under the policy that drew them, with what the objectives need: the one place of this rung that
    builds `Tokens`."""
    prompts, (count, group_size, width) = rolled.prompts, rolled.actions_PGL.shape
    if layout.by_rollout == 1:
        advantage_NT, group_N = (np.repeat(x, prompts.length_P, axis=0) for x in (advantage_PG, np.arange(count)))
        mask_NT = np.ones(advantage_NT.shape, dtype=bool)
    else:
        advantage_NT, group_N = (
            np.repeat(advantage_PG, width).reshape(-1, width),
            np.repeat(np.arange(count), group_size),
        )
        mask_NT = np.repeat(prompts.live_PL, group_size, axis=0)
    old_NT, _ = _log_probs(rolled.pi_PLK, rolled, layout)
    reference_NT = None if reference_PLK is None else _log_probs(reference_PLK, rolled, layout)[0]
    tokens = Tokens(old_NT, old_NT, mask_NT, advantage_NT, group_N, reference_NT, None, old_NT)
    return _with_entropy(tokens, rolled.pi_PLK, rolled, layout, objectives)


def _with_entropy(
    tokens: Tokens, pi_PLK: Array, rolled: Rollouts, layout: Layout, objectives: Sequence[Objective]
) -> Tokens:
    if "entropy" not in needs(objectives):
        return tokens
    entropy_M = np.zeros(tokens.old_NT.size)
    token_entropies(pi_PLK, rolled.prompts.length_P, rolled.actions_PGL.shape[1], *layout[:3], entropy_M)
    return tokens._replace(entropy_NT=entropy_M.reshape(tokens.old_NT.shape))


def push_gradient(
    pi_PLK: Array, rolled: Rollouts, layout: Layout, tokens: Tokens, learner: Learner, gradient_SK: Array
) -> int:
    """The gradient of the objectives at `tokens`, whose policy is pi_PLK, written to gradient_SK; returns how many
    tokens were held."""
    prompts, shape = rolled.prompts, rolled.reward_PG.shape
    push = total_push(learner.objectives, [()] * len(learner.objectives), tokens)
    alpha_PG = learner.aggregation.rows(np.repeat(prompts.length_P, shape[1])).reshape(shape)
    chain = (pi_PLK, prompts.skills_PL, prompts.length_P)
    scatter(*chain, rolled.actions_PGL, *layout[:3], _flat(push.log_prob_NT, tokens), alpha_PG, gradient_SK)
    if push.entropy_NT is not None:
        scatter_entropy(*chain, *layout[:3], _flat(push.entropy_NT, tokens), alpha_PG, gradient_SK)
    return int(push.counts.get("clipped", 0))


def _flat(push_NT: Array, tokens: Tokens) -> Array:
    return np.ascontiguousarray(push_NT, dtype=np.float64).reshape(tokens.old_NT.size)


def gradient(
    theta_SK: Array, rolled: Rollouts, advantage_PG: Array, learner: Learner, reference_PLK: Array | None = None
) -> tuple[Array, int]:
    """(the objectives' gradient at theta, how many tokens were held), for the whole batch."""
    layout = layout_of(rolled, learner.objectives)
    tokens = tokens_of(rolled, layout, advantage_PG, learner.objectives, reference_PLK)
    pi_PLK, tokens = _moved(theta_SK, rolled, layout, tokens, learner)
    gradient_SK = np.empty_like(theta_SK)
    return gradient_SK, push_gradient(pi_PLK, rolled, layout, tokens, learner, gradient_SK)


def _moved(theta_SK: Array, rolled: Rollouts, layout: Layout, tokens: Tokens, learner: Learner) -> tuple[Array, Tokens]:
    """(the distributions at theta, the same tokens there)."""
    pi_PLK = _policy(theta_SK, rolled.prompts, rolled.boost_PL)
    log_prob_NT, ratio = _log_probs(pi_PLK, rolled, layout, tokens.old_NT)
    tokens = tokens._replace(log_prob_NT=log_prob_NT, log_ratio=ratio)
    return pi_PLK, _with_entropy(tokens, pi_PLK, rolled, layout, learner.objectives)


def update(
    theta_SK: Array, first_SK: Array, second_SK: Array, count: int, rolled: Rollouts, advantage_PG: Array,
    learner: Learner, reference_PLK: Array | None = None,
) -> Update:  # fmt: skip
    """All updates of one batch, in place: `epochs` passes over `minibatches` contiguous parts.

    theta is what the answers were drawn from.
    """
    prompts, whole = len(rolled.reward_PG), layout_of(rolled, learner.objectives)
    before = tokens_of(rolled, whole, advantage_PG, learner.objectives, reference_PLK)
    gradient_SK, norms, clipped, moved = np.empty_like(theta_SK), 0.0, 0, False
    for _ in range(learner.epochs):
        for number in range(learner.minibatches):
            low, high = number * prompts // learner.minibatches, (number + 1) * prompts // learner.minibatches
            here, layout, rows = rolled.part(low, high), whole.part(low, high), whole.rows(low, high)
            tokens, pi_PLK = Tokens(*(x if x is None else x[rows] for x in before)), here.pi_PLK
            if moved:
                pi_PLK, tokens = _moved(theta_SK, here, layout, tokens, learner)
            else:
                tokens = tokens._replace(log_ratio=LogRatio(np.zeros((1, 1)), 0.0))
            clipped += push_gradient(pi_PLK, here, layout, tokens, learner, gradient_SK)
            norms += math.sqrt((gradient_SK * gradient_SK).sum())
            count, moved = count + 1, True
            optimiser_step(theta_SK, first_SK, second_SK, count, gradient_SK, learner.adam, learner.learning_rate)
    return Update(count, norms / (learner.epochs * learner.minibatches), clipped)
