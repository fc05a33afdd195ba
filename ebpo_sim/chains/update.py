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
    log pi of every action, nats (0 on padding). boost_PL = exp(offset_PL). number_P: the prompts' numbers in the pool.

    Groups of unequal sizes are flat: G is 1, a row a rollout with its own copy of the prompt, rows of a group together;
    group_P says which group each belongs to, None where every prompt is one.
    """

    prompts: Prompts
    boost_PL: Array
    actions_PGL: Ints
    reward_PG: Array
    pi_PLK: Array
    log_prob_PGL: Array
    number_P: Ints | None = None
    group_P: Ints | None = None

    def rows(self, index: slice | Ints) -> Rollouts:
        """The answers to the prompts at `index`."""
        prompts = Prompts._make(x[index] for x in self.prompts)
        return Rollouts._make((prompts, *(None if x is None else x[index] for x in self[1:])))


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
    pi_PLK = np.ones((*prompts.skills_PL.shape, theta_SK.shape[1]))
    distributions(theta_SK, prompts.skills_PL, prompts.length_P, boost_PL, prompts.right_PL, pi_PLK)
    return pi_PLK


def _log_probs(pi_PLK: Array, prompts: Prompts, actions_PGL: Ints) -> Array:
    found_PGL = np.zeros(actions_PGL.shape)
    token_log_probs(pi_PLK, prompts.length_P, actions_PGL, found_PGL)
    return found_PGL


def groups_of(rolled: Rollouts, wanted: frozenset[Need]) -> Groups:
    """The batch as estimators take it, the one place of this rung that builds it: rewards, and of lengths, topics and
    the prompts' numbers what is `wanted`."""
    flat, lengths = rolled.group_P is not None, None
    if "lengths" in wanted:
        lengths = np.repeat(rolled.prompts.length_P[:, None], rolled.reward_PG.shape[1], axis=1)
    return group_rewards(
        rolled.reward_PG[:, 0] if flat else rolled.reward_PG, rolled.group_P,
        lengths=lengths[:, 0] if flat and lengths is not None else lengths,
        clusters=rolled.prompts.topic_P if "clusters" in wanted else None,
        prompt_ids=rolled.number_P if "prompt_ids" in wanted else None,
    )  # fmt: skip


def tokens_of(
    rolled: Rollouts, advantage_PG: Array, objectives: Sequence[Objective], reference_PLK: Array | None = None
) -> Tokens:
    """The answers as rows under the policy that drew them, with what the objectives need: the one place of this rung
    that builds `Tokens`."""
    prompts, actions = rolled.prompts, rolled.actions_PGL
    rows = (actions.shape[0] * actions.shape[1], actions.shape[2])
    mask_NT = np.repeat(prompts.live_PL, actions.shape[1], axis=0)
    group_N = np.repeat(np.arange(len(actions)), actions.shape[1]) if rolled.group_P is None else rolled.group_P
    old_NT = rolled.log_prob_PGL.reshape(rows)
    reference_NT = None
    if reference_PLK is not None:
        reference_NT = _log_probs(reference_PLK, prompts, actions).reshape(rows)
    tokens = Tokens(old_NT, old_NT, mask_NT, advantage_PG.reshape(-1, 1), group_N, reference_NT, None, old_NT)
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
    alpha_N1 = learner.aggregation.rows(np.repeat(prompts.length_P, shape[1]))[:, None]
    weighted = (push.log_prob_NT * alpha_N1).reshape(shape)
    scatter(pi_PLK, prompts.skills_PL, prompts.length_P, rolled.actions_PGL, weighted, gradient_SK)
    if push.entropy_NT is not None:
        weighted = (push.entropy_NT * alpha_N1).reshape(shape)
        scatter_entropy(pi_PLK, prompts.skills_PL, prompts.length_P, weighted, gradient_SK)
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


def starts(rolled: Rollouts) -> Ints:
    """Where each group's rows begin, and at the end how many rows there are."""
    if rolled.group_P is None:
        return np.arange(len(rolled.reward_PG) + 1)
    return np.flatnonzero(np.diff(rolled.group_P, prepend=-1, append=-2))


def update(
    theta_SK: Array, first_SK: Array, second_SK: Array, count: int, rolled: Rollouts, advantage_PG: Array,
    learner: Learner, reference_PLK: Array | None = None,
) -> Update:  # fmt: skip
    """All updates of one batch, in place: `epochs` passes over `minibatches` contiguous parts of whole groups.

    theta is what the answers were drawn from.
    """
    group_size, start_P = rolled.reward_PG.shape[1], starts(rolled)
    whole = tokens_of(rolled, advantage_PG, learner.objectives, reference_PLK)
    gradient_SK, norms, clipped, moved = np.empty_like(theta_SK), 0.0, 0, False
    for _ in range(learner.epochs):
        for number in range(learner.minibatches):
            first, last = (n * (len(start_P) - 1) // learner.minibatches for n in (number, number + 1))
            low, high = int(start_P[first]), int(start_P[last])
            if low == high:  # fewer groups than mini-batches
                continue
            here = rolled.rows(slice(low, high))
            rows = slice(low * group_size, high * group_size)
            tokens, pi_PLK = Tokens(*(x if x is None else x[rows] for x in whole)), here.pi_PLK
            if moved:
                pi_PLK, tokens = _moved(theta_SK, here, tokens, learner)
            clipped += push_gradient(pi_PLK, here, tokens, learner, gradient_SK)
            norms += float(np.sqrt(np.sum(gradient_SK * gradient_SK)))
            count, moved = count + 1, True
            optimiser_step(theta_SK, first_SK, second_SK, count, gradient_SK, learner.adam, learner.learning_rate)
    return Update(count, norms / (learner.epochs * learner.minibatches), clipped)
