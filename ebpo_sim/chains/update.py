"""From advantages to parameters: a batch's tokens, the objectives' push on them, its gradient, optimiser steps.

Compiled code draws, gathers log-probabilities, scatters pushes and steps the optimiser; what pushes is decided by
`ebpo_sim.objectives`, the same array functions that train language models.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from ebpo_sim.chains.policy import Ints, Prompts
from ebpo_sim.groups import over
from ebpo_sim.numbers import Array
from ebpo_sim.objectives import Aggregation, Objective, Tokens, learnt, needs, total_push, zero_at_zero
from ebpo_sim.objectives.base import LogRatio

ON_POLICY = LogRatio(np.zeros((1, 1)), 0.0)


@cache
def kernels() -> Any:
    """The compiled loops, imported when first used: numba takes a second."""
    from ebpo_sim.chains import kernels

    return kernels


class Rollouts(NamedTuple):
    """G answers to each prompt of a batch: actions_PGL, reward_PG and the policy's distributions pi_PLK, which they
    were drawn from unless a sampler with its own, sampler_PLK, differs. boost_PL = exp(offset_PL). number_P: the
    prompts' numbers in the pool.

    Groups of unequal sizes are flat: G is 1, a row a rollout with its own copy of the prompt, rows of a group together;
    group_P says which group each belongs to, None where every prompt is one.
    """

    prompts: Prompts
    boost_PL: Array
    actions_PGL: Ints
    reward_PG: Array
    pi_PLK: Array
    number_P: Ints | None = None
    group_P: Ints | None = None
    sampler_PLK: Array | None = None

    def rows(self, index: Ints) -> Rollouts:
        """The answers to the prompts at `index`."""
        rest = (None if x is None else x[index] for x in self[1:])
        return Rollouts._make((self.prompts.take(index), *rest))


class Layout(NamedTuple):
    """Where tokens stand in the arrays of `Tokens`: of the R prompts index_R, one after another, that of rollout g and
    step l of the i-th, counted along the rows, at first_R[i] + g by_rollout + l by_step. first_R has an end, R + 1
    entries; width: columns."""

    index_R: Ints
    first_R: Ints
    by_rollout: int
    by_step: int
    width: int

    def part(self, low: int, high: int) -> Layout:
        """That of index_R[low:high]."""
        return Layout(self.index_R[low:high], self.first_R[low : high + 1], *self[2:])

    @property
    def rows(self) -> slice:
        """The rows of its tokens."""
        return slice(int(self.first_R[0]) // self.width, int(self.first_R[-1]) // self.width)


class Learner(NamedTuple):
    """How a batch is learnt from: objectives whose pushes add, the aggregation of their tokens, optimiser steps."""

    objectives: tuple[Objective, ...]
    aggregation: Aggregation
    adam: bool
    learning_rate: float
    minibatches: int = 1
    epochs: int = 1


class Batch(NamedTuple):
    """What is learnt from: answers, where their tokens stand, the tokens under the policy that drew them, and alpha_P,
    the weight of every token of a prompt's answers in its mini-batch. parts: the mini-batches."""

    rolled: Rollouts
    layout: Layout
    tokens: Tokens
    alpha_P: Array
    parts: tuple[Layout, ...]


class Update(NamedTuple):
    """Updates so far, the mean gradient norm of this batch's updates, how many tokens the objectives held, and the
    objectives' memories."""

    updates: int
    norm: float
    clipped: int
    states: tuple[Any, ...]


def sample(
    theta_SK: Array, prompts: Prompts, group_size: int, rng: np.random.Generator, mismatch: float = 0.0
) -> Rollouts:
    """`group_size` answers to each prompt, by inversion of uniform numbers; the sampler's logits are the policy's plus
    `mismatch` times standard normal noise, drawn anew for every step of every prompt."""
    width, boost_PL = prompts.skills_PL.shape[1], np.exp(prompts.offset_PL)
    shape = (len(prompts.length_P), group_size)
    pi_PLK, sampler_PLK = _policy(theta_SK, prompts, boost_PL), None
    if mismatch:
        sampler_PLK = pi_PLK * np.exp(mismatch * rng.standard_normal(pi_PLK.shape))
        sampler_PLK /= sampler_PLK.sum(axis=-1, keepdims=True)
    actions, reward_PG = np.zeros((*shape, width), dtype=np.int64), np.empty(shape)
    drawn_PLK = pi_PLK if sampler_PLK is None else sampler_PLK
    kernels().rollout(drawn_PLK, prompts.length_P, prompts.right_PL, rng.random((*shape, width)), actions, reward_PG)
    return Rollouts(prompts, boost_PL, actions, reward_PG, pi_PLK, sampler_PLK=sampler_PLK)


def _policy(theta_SK: Array, prompts: Prompts, boost_PL: Array) -> Array:
    """Every step's distribution (P, L, K); 1 on padding."""
    pi_PLK = np.empty((*prompts.skills_PL.shape, theta_SK.shape[1]))
    chain = (prompts.skills_PL, prompts.length_P, boost_PL, prompts.right_PL)
    kernels().distributions(theta_SK, *chain, np.arange(len(pi_PLK)), pi_PLK)
    return pi_PLK


def layout_of(
    rolled: Rollouts, objectives: Sequence[Objective], rollouts: bool = False, index_R: Ints | None = None
) -> Layout:
    """Rollouts as rows, padded; but for objectives that look at one token at a time steps as rows and rollouts as
    columns, which needs no padding. rollouts: as rows for all. index_R: the prompts with tokens, None for all."""
    count, group_size, width = rolled.actions_PGL.shape
    index_R = np.arange(count) if index_R is None else index_R
    if rollouts or any(o.scope != "token" for o in objectives):
        return Layout(index_R, np.arange(len(index_R) + 1) * (group_size * width), width, 1, width)
    first_R = np.zeros(len(index_R) + 1, dtype=np.int64)
    np.cumsum(rolled.prompts.length_P.take(index_R) * group_size, out=first_R[1:])
    return Layout(index_R, first_R, 1, group_size, group_size)


def _log_probs(pi_PLK: Array, rolled: Rollouts, layout: Layout) -> Array:
    """log pi of every token in its place, nats; 0 on padding."""
    log_prob_M = np.zeros(int(layout.first_R[-1]))
    kernels().token_log_probs(pi_PLK, rolled.prompts.length_P, rolled.actions_PGL, *layout[:4], log_prob_M)
    return log_prob_M.reshape(-1, layout.width)


def tokens_of(
    rolled: Rollouts, layout: Layout, advantage_PG: Array, objectives: Sequence[Objective],
    reference_PLK: Array | None = None,
) -> Tokens:  # fmt: skip
    """The answers under the policy that drew them, with what the objectives need: the one place of this rung that
    builds `Tokens`."""
    prompts, group_size, span = rolled.prompts, rolled.reward_PG.shape[1], layout[:4]
    old_NT = _log_probs(rolled.pi_PLK, rolled, layout)
    advantage_NT = np.zeros(old_NT.shape)
    kernels().place(advantage_PG, prompts.length_P, *span, advantage_NT.reshape(-1))
    mask_NT, group_N = np.ones(old_NT.shape, dtype=bool), None
    if layout.by_rollout != 1:
        mask_NT = np.repeat(prompts.live_PL[layout.index_R], group_size, axis=0)
        number_R = layout.index_R if rolled.group_P is None else rolled.group_P[layout.index_R]
        group_N = np.repeat(number_R, group_size)
    reference_NT = None if reference_PLK is None else _log_probs(reference_PLK, rolled, layout)
    entropy_NT = np.zeros_like(old_NT) if "entropy" in needs(objectives) else None
    if entropy_NT is not None:
        kernels().token_entropies(rolled.pi_PLK, prompts.length_P, group_size, *span, entropy_NT.reshape(-1))
    behaviour_NT = old_NT if rolled.sampler_PLK is None else _log_probs(rolled.sampler_PLK, rolled, layout)
    return Tokens(old_NT, old_NT, mask_NT, advantage_NT, group_N, reference_NT, entropy_NT, behaviour_NT)


def batch_of(
    rolled: Rollouts, advantage_PG: Array, learner: Learner, reference_PLK: Array | None = None, minibatches: int = 1
) -> Batch:
    """The answers with their advantages, cut into contiguous `minibatches` of whole groups. Prompts that push nothing
    have no tokens, but for the first of a mini-batch, so that none is empty; they count in every mean."""
    (count, group_size), length_P = rolled.reward_PG.shape, rolled.prompts.length_P
    starts = None if rolled.group_P is None else np.flatnonzero(np.diff(rolled.group_P, prepend=-1, append=-2)).tolist()
    groups = count if starts is None else len(starts) - 1
    cuts = list(dict.fromkeys(number * groups // minibatches for number in range(minibatches + 1)))  # none is empty
    cuts = cuts if starts is None else [starts[cut] for cut in cuts]
    if starts is None and count % minibatches == 0:
        alpha_P = learner.aggregation.rows(length_P.reshape(minibatches, -1), group_size).reshape(count)
    else:
        lengths = (length_P[low:high] for low, high in pairwise(cuts))
        alpha_P = np.concatenate([learner.aggregation.rows(part_P, group_size) for part_P in lengths])
    index_R = None
    if zero_at_zero(learner.objectives):
        pushing_P = over(np.logical_or, advantage_PG != 0)
        for cut in cuts[:-1]:
            pushing_P[cut] = True
        index_R = np.flatnonzero(pushing_P)
        cuts = np.searchsorted(index_R, cuts).tolist()
    layout = layout_of(rolled, learner.objectives, index_R=index_R)
    tokens = tokens_of(rolled, layout, advantage_PG, learner.objectives, reference_PLK)
    return Batch(rolled, layout, tokens, alpha_P, tuple(layout.part(*cut) for cut in pairwise(cuts)))


def push_gradient(
    pi_PLK: Array, batch: Batch, part: Layout, tokens: Tokens, learner: Learner, gradient_SK: Array,
    states: Sequence[Any] | None = None,
) -> int:  # fmt: skip
    """The gradient of the objectives at `tokens`, those of `part`, whose policy is pi_PLK, written to gradient_SK;
    returns how many tokens were held."""
    prompts, actions_PGL = batch.rolled.prompts, batch.rolled.actions_PGL
    push = total_push(learner.objectives, states or [()] * len(learner.objectives), tokens)
    chain, pushed_M = (pi_PLK, prompts.skills_PL, prompts.length_P), _flat(push.log_prob_NT, tokens)
    kernels().scatter(*chain, actions_PGL, *part[:4], pushed_M, batch.alpha_P, gradient_SK)
    if push.entropy_NT is not None:
        pushed_M = _flat(push.entropy_NT, tokens)
        kernels().scatter_entropy(*chain, actions_PGL.shape[1], *part[:4], pushed_M, batch.alpha_P, gradient_SK)
    return int(push.counts.get("clipped", 0))


def _flat(push_NT: Array, tokens: Tokens) -> Array:
    return np.ascontiguousarray(push_NT, dtype=np.float64).reshape(tokens.old_NT.size)


def gradient(
    theta_SK: Array, rolled: Rollouts, advantage_PG: Array, learner: Learner, reference_PLK: Array | None = None
) -> tuple[Array, int]:
    """(the objectives' gradient at theta, how many tokens were held), for the whole batch."""
    batch = batch_of(rolled, advantage_PG, learner, reference_PLK)
    pi_PLK, gradient_SK = np.empty_like(rolled.pi_PLK), np.empty_like(theta_SK)
    tokens = _moved(theta_SK, batch, batch.layout, pi_PLK)
    return gradient_SK, push_gradient(pi_PLK, batch, batch.layout, tokens, learner, gradient_SK)


def _part(batch: Batch, part: Layout) -> Tokens:
    """The tokens of a part under the policy that drew them."""
    rows = part.rows
    return Tokens._make([*(x if x is None else x[rows] for x in batch.tokens[:-1]), ON_POLICY])


def _moved(theta_SK: Array, batch: Batch, part: Layout, pi_PLK: Array) -> Tokens:
    """The tokens of a part at theta, whose distributions are written to pi_PLK."""
    rolled, prompts, tokens = batch.rolled, batch.rolled.prompts, _part(batch, part)
    log_prob_NT, ratio_NT = np.zeros((2, *tokens.old_NT.shape))
    chain = (prompts.skills_PL, prompts.length_P, rolled.boost_PL, prompts.right_PL, rolled.actions_PGL)
    flat = (x.reshape(-1) for x in (log_prob_NT, ratio_NT))
    largest = kernels().move(theta_SK, *chain, *part[:4], tokens.old_NT.reshape(-1), pi_PLK, *flat)
    entropy_NT = None
    if tokens.entropy_NT is not None:
        entropy_NT = np.zeros_like(log_prob_NT)
        kernels().token_entropies(
            pi_PLK, prompts.length_P, rolled.actions_PGL.shape[1], *part[:4], entropy_NT.reshape(-1)
        )
    ratio = LogRatio(ratio_NT, largest)
    return tokens._replace(log_prob_NT=log_prob_NT, entropy_NT=entropy_NT, log_ratio=ratio)


def update(
    theta_SK: Array, first_SK: Array, second_SK: Array, count: int, rolled: Rollouts, advantage_PG: Array,
    learner: Learner, reference_PLK: Array | None = None, states: tuple[Any, ...] = (),
) -> Update:  # fmt: skip
    """All updates of one batch, in place: `epochs` passes over `minibatches` contiguous parts.

    theta is what the answers were drawn from. states: the objectives' memories, () for objectives without.
    """
    batch = batch_of(rolled, advantage_PG, learner, reference_PLK, learner.minibatches)
    gradient_SK, norms, clipped, moved_PLK = np.empty_like(theta_SK), 0.0, 0, np.empty_like(rolled.pi_PLK)
    pi_PLK, rate = rolled.pi_PLK, learner.learning_rate
    for part in batch.parts * learner.epochs:
        tokens = _moved(theta_SK, batch, part, pi_PLK) if pi_PLK is moved_PLK else _part(batch, part)
        clipped += push_gradient(pi_PLK, batch, part, tokens, learner, gradient_SK, states)
        states = learnt(learner.objectives, states, [tokens]) if states else states
        count, pi_PLK = count + 1, moved_PLK
        norms += kernels().optimiser_step(theta_SK, first_SK, second_SK, count, gradient_SK, learner.adam, rate)
    return Update(count, norms / (learner.epochs * len(batch.parts)), clipped, states)
