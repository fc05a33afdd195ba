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
PROVIDES: frozenset[Need] = frozenset(
    {"binary_rewards", "lengths", "prompt_ids", "clusters", "log_probs", "reference", "entropy", "behaviour"}
)


class Rollouts(NamedTuple):
    """G answers to each prompt of a batch: actions_PGL, reward_PG, the distributions pi_PLK they were drawn from, and
    log pi of every action, nats (0 on padding)."""

    prompts: Prompts
    actions_PGL: Ints
    reward_PG: Array
    pi_PLK: Array
    log_prob_PGL: Array

    def part(self, low: int, high: int) -> Rollouts:
        """The answers to prompts low .. high - 1."""
        return Rollouts(Prompts(*(x[low:high] for x in self.prompts)), *(x[low:high] for x in self[1:]))


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

    count: int
    norm: float
    clipped: int


def sample(theta_SK: Array, prompts: Prompts, group_size: int, rng: np.random.Generator) -> Rollouts:
    """`group_size` answers to each prompt, by inversion of uniform numbers."""
    width = prompts.skills_PL.shape[1]
    shape = (len(prompts.length_P), group_size)
    pi_PLK = policy(theta_SK, prompts)
    actions, reward_PG = np.zeros((*shape, width), dtype=np.int64), np.empty(shape)
    rollout(pi_PLK, prompts.length_P, prompts.right_PL, rng.random((*shape, width)), actions, reward_PG)
    return Rollouts(prompts, actions, reward_PG, pi_PLK, _log_probs(pi_PLK, prompts, actions))


def policy(theta_SK: Array, prompts: Prompts) -> Array:
    """Every step's distribution (P, L, K); 1 on padding."""
    pi_PLK = np.ones((*prompts.skills_PL.shape, theta_SK.shape[1]))
    distributions(theta_SK, prompts.skills_PL, prompts.length_P, np.exp(prompts.offset_PL), prompts.right_PL, pi_PLK)
    return pi_PLK


def _log_probs(pi_PLK: Array, prompts: Prompts, actions_PGL: Ints) -> Array:
    found_PGL = np.zeros(actions_PGL.shape)
    token_log_probs(pi_PLK, prompts.length_P, actions_PGL, found_PGL)
    return found_PGL


def groups_of(rolled: Rollouts, prompt_ids: Sequence[int] | None = None) -> Groups:
    """The batch as estimators take it: rewards with lengths, topics and the prompts' numbers."""
    lengths = np.broadcast_to(rolled.prompts.length_P[:, None], rolled.reward_PG.shape).astype(np.float64)
    ids = None if prompt_ids is None else [int(i) for i in prompt_ids]
    return group_rewards(rolled.reward_PG, lengths=lengths, clusters=rolled.prompts.topic_P, prompt_ids=ids)


def tokens_of(
    pi_PLK: Array, rolled: Rollouts, advantage_PG: Array, objectives: Sequence[Objective],
    reference_PLK: Array | None = None,
) -> Tokens:  # fmt: skip
    """The answers as rows under the policy pi_PLK, with what the objectives need."""
    prompts, actions = rolled.prompts, rolled.actions_PGL
    wanted = needs(objectives)
    live = np.broadcast_to(prompts.live_PL[:, None], actions.shape)
    log_prob = rolled.log_prob_PGL if pi_PLK is rolled.pi_PLK else _log_probs(pi_PLK, prompts, actions)
    reference = None
    if "reference" in wanted and reference_PLK is not None:
        reference = _log_probs(reference_PLK, prompts, actions)
    entropy = None
    if "entropy" in wanted:
        entropy = np.zeros(actions.shape)
        token_entropies(pi_PLK, prompts.length_P, entropy)
    rows = (len(actions) * actions.shape[1], actions.shape[2])
    group_N = np.repeat(np.arange(len(actions)), actions.shape[1])
    old, mask = rolled.log_prob_PGL.reshape(rows), live.reshape(rows)
    return Tokens(
        log_prob.reshape(rows), old, mask, advantage_PG.reshape(-1, 1), group_N,
        None if reference is None else reference.reshape(rows), None if entropy is None else entropy.reshape(rows), old,
    )  # fmt: skip


def gradient(
    theta_SK: Array, rolled: Rollouts, advantage_PG: Array, learner: Learner, reference_PLK: Array | None,
    gradient_SK: Array, on_policy: bool = False,
) -> int:  # fmt: skip
    """The objectives' gradient at theta, written to gradient_SK; returns how many tokens were held.

    on_policy: theta is what the answers were drawn from.
    """
    prompts, shape = rolled.prompts, rolled.actions_PGL.shape
    pi_PLK = rolled.pi_PLK if on_policy else policy(theta_SK, prompts)
    tokens = tokens_of(pi_PLK, rolled, advantage_PG, learner.objectives, reference_PLK)
    push = total_push(learner.objectives, [()] * len(learner.objectives), tokens)
    alpha_N1 = learner.aggregation.rows(np.repeat(prompts.length_P, shape[1]))[:, None]
    weighted = (push.log_prob_NT * alpha_N1).reshape(shape)
    scatter(pi_PLK, prompts.skills_PL, prompts.length_P, rolled.actions_PGL, weighted, gradient_SK)
    if push.entropy_NT is not None:
        weighted = (push.entropy_NT * alpha_N1).reshape(shape)
        scatter_entropy(pi_PLK, prompts.skills_PL, prompts.length_P, weighted, gradient_SK)
    return int(push.counts.get("clipped", 0))


def update(
    theta_SK: Array, first_SK: Array, second_SK: Array, count: int, rolled: Rollouts, advantage_PG: Array,
    learner: Learner, reference_PLK: Array | None = None,
) -> Update:  # fmt: skip
    """All updates of one batch, in place: `epochs` passes over `minibatches` contiguous parts."""
    prompts, norms, clipped = len(rolled.prompts.length_P), 0.0, 0
    gradient_SK = np.empty_like(theta_SK)
    for epoch in range(learner.epochs):
        for number in range(learner.minibatches):
            low, high = number * prompts // learner.minibatches, (number + 1) * prompts // learner.minibatches
            clipped += gradient(
                theta_SK, rolled.part(low, high), advantage_PG[low:high], learner,
                None if reference_PLK is None else reference_PLK[low:high], gradient_SK,
                on_policy=epoch == number == 0,
            )  # fmt: skip
            norms += float(np.sqrt(np.sum(gradient_SK * gradient_SK)))
            count += 1
            optimiser_step(theta_SK, first_SK, second_SK, count, gradient_SK, learner.adam, learner.learning_rate)
    return Update(count, norms / (learner.epochs * learner.minibatches), clipped)
