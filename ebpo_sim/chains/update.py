"""From advantages to parameters: a batch's tokens, the objectives' push on them, its gradient, optimiser steps.

Compiled code draws, gathers log-probabilities, scatters pushes and steps the optimiser; what pushes is decided by
`ebpo_sim.objectives`, the same array functions that train language models.
"""

from __future__ import annotations

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
from ebpo_sim.part import Need

Array = NDArray[np.float64]


class Rollouts(NamedTuple):
    """G answers to each prompt of a batch: actions_PGL, reward_PG, the distributions pi_PLK they were drawn from, and
    log pi of every action, nats (0 on padding). boost_PL = exp(offset_PL)."""

    prompts: Prompts
    boost_PL: Array
    actions_PGL: Ints
    reward_PG: Array
    pi_PLK: Array
    log_prob_PGL: Array

    def part(self, low: int, high: int) -> Rollouts:
        """The answers to prompts low .. high - 1."""
        s, p = slice(low, high), self.prompts
        prompts = Prompts(p.topic_P[s], p.length_P[s], p.skills_PL[s], p.offset_PL[s], p.right_PL[s])
        return Rollouts(
            prompts, self.boost_PL[s], self.actions_PGL[s], self.reward_PG[s], self.pi_PLK[s], self.log_prob_PGL[s]
        )


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
    return Rollouts(prompts, boost_PL, actions, reward_PG, pi_PLK, _log_probs(pi_PLK, prompts, actions))


def _policy(theta_SK: Array, prompts: Prompts, boost_PL: Array) -> Array:
    """Every step's distribution (P, L, K); 1 on padding."""
    pi_PLK = np.empty((*prompts.skills_PL.shape, theta_SK.shape[1]))
    distributions(theta_SK, prompts.skills_PL, prompts.length_P, boost_PL, prompts.right_PL, pi_PLK)
    return pi_PLK


def _log_probs(pi_PLK: Array, prompts: Prompts, actions_PGL: Ints) -> Array:
    found_PGL = np.empty(actions_PGL.shape)
    token_log_probs(pi_PLK, prompts.length_P, actions_PGL, found_PGL)
    return found_PGL


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
    rolled: Rollouts, advantage_PG: Array, objectives: Sequence[Objective], reference_PLK: Array | None = None
) -> Tokens:
    """The answers as rows under the policy that drew them, with what the objectives need: the one place of this rung
    that builds `Tokens`."""
    prompts, actions = rolled.prompts, rolled.actions_PGL
    rows = (actions.shape[0] * actions.shape[1], actions.shape[2])
    mask_NT = np.repeat(prompts.live_PL, actions.shape[1], axis=0)
    group_N = np.repeat(np.arange(len(actions)), actions.shape[1])
    old_NT = rolled.log_prob_PGL.reshape(rows)
    reference_NT = None
    if reference_PLK is not None:
        reference_NT = _log_probs(reference_PLK, prompts, actions).reshape(rows)
    advantage_NT = np.repeat(advantage_PG.reshape(-1, 1), rows[1], axis=1)  # NumPy multiplies rows of one length faster
    tokens = Tokens(old_NT, old_NT, mask_NT, advantage_NT, group_N, reference_NT, None, old_NT)
    return _with_entropy(tokens, rolled.pi_PLK, rolled, objectives)


def _with_entropy(tokens: Tokens, pi_PLK: Array, rolled: Rollouts, objectives: Sequence[Objective]) -> Tokens:
    if "entropy" not in needs(objectives):
        return tokens
    entropy_PGL = np.zeros(rolled.actions_PGL.shape)
    token_entropies(pi_PLK, rolled.prompts.length_P, entropy_PGL)
    return tokens._replace(entropy_NT=entropy_PGL.reshape(tokens.old_NT.shape))


def push_gradient(pi_PLK: Array, rolled: Rollouts, tokens: Tokens, learner: Learner, gradient_SK: Array) -> int:
    """The gradient of the objectives at `tokens`, whose policy is pi_PLK, written to gradient_SK; returns how many
    tokens were held."""
    prompts, shape = rolled.prompts, rolled.actions_PGL.shape
    push = total_push(learner.objectives, [()] * len(learner.objectives), tokens)
    alpha_PG = learner.aggregation.rows(np.repeat(prompts.length_P, shape[1])).reshape(shape[:2])
    push_PGL = push.log_prob_NT.reshape(shape)
    scatter(pi_PLK, prompts.skills_PL, prompts.length_P, rolled.actions_PGL, push_PGL, alpha_PG, gradient_SK)
    if push.entropy_NT is not None:
        push_PGL = push.entropy_NT.reshape(shape)
        scatter_entropy(pi_PLK, prompts.skills_PL, prompts.length_P, push_PGL, alpha_PG, gradient_SK)
    return int(push.counts.get("clipped", 0))


def gradient(
    theta_SK: Array, rolled: Rollouts, advantage_PG: Array, learner: Learner, reference_PLK: Array | None = None
) -> tuple[Array, int]:
    """(the objectives' gradient at theta, how many tokens were held), for the whole batch."""
    tokens = tokens_of(rolled, advantage_PG, learner.objectives, reference_PLK)
    pi_PLK, tokens = _moved(theta_SK, rolled, tokens, learner)
    gradient_SK = np.empty_like(theta_SK)
    return gradient_SK, push_gradient(pi_PLK, rolled, tokens, learner, gradient_SK)


def _moved(theta_SK: Array, rolled: Rollouts, tokens: Tokens, learner: Learner) -> tuple[Array, Tokens]:
    """(the distributions at theta, the same rows there)."""
    pi_PLK = _policy(theta_SK, rolled.prompts, rolled.boost_PL)
    log_prob = _log_probs(pi_PLK, rolled.prompts, rolled.actions_PGL).reshape(tokens.old_NT.shape)
    return pi_PLK, _with_entropy(tokens._replace(log_prob_NT=log_prob), pi_PLK, rolled, learner.objectives)


def update(
    theta_SK: Array, first_SK: Array, second_SK: Array, count: int, rolled: Rollouts, advantage_PG: Array,
    learner: Learner, reference_PLK: Array | None = None,
) -> Update:  # fmt: skip
    """All updates of one batch, in place: `epochs` passes over `minibatches` contiguous parts.

    theta is what the answers were drawn from.
    """
    prompts, group_size = rolled.reward_PG.shape
    whole = tokens_of(rolled, advantage_PG, learner.objectives, reference_PLK)
    gradient_SK, norms, clipped, moved = np.empty_like(theta_SK), 0.0, 0, False
    for _ in range(learner.epochs):
        for number in range(learner.minibatches):
            low, high = number * prompts // learner.minibatches, (number + 1) * prompts // learner.minibatches
            here = rolled.part(low, high)
            rows = slice(low * group_size, high * group_size)
            tokens, pi_PLK = Tokens(*(x if x is None else x[rows] for x in whole)), here.pi_PLK
            if moved:
                pi_PLK, tokens = _moved(theta_SK, here, tokens, learner)
            else:
                tokens = tokens._replace(log_prob_NT=tokens.old_NT)  # the same array: objectives see that nothing moved
            clipped += push_gradient(pi_PLK, here, tokens, learner, gradient_SK)
            norms += float(np.sqrt(np.sum(gradient_SK * gradient_SK)))
            count, moved = count + 1, True
            optimiser_step(theta_SK, first_SK, second_SK, count, gradient_SK, learner.adam, learner.learning_rate)
    return Update(count, norms / (learner.epochs * learner.minibatches), clipped)
