"""Answers of the chains as estimators take them: rewards by prompt, and what else a rule asks for."""

from __future__ import annotations

import numpy as np

from ebpo_sim.chains.policy import Ints
from ebpo_sim.chains.update import Rollouts
from ebpo_sim.groups import Groups, group_rewards
from ebpo_sim.numbers import Array
from ebpo_sim.part import Need


def groups_of(rolled: Rollouts, wanted: frozenset[Need]) -> Groups:
    """The batch as estimators take it, the one place of this rung that builds it: rewards, and of lengths, score norms,
    topics, the prompts' numbers, answers and greedy rewards what is `wanted`."""
    length_PG, norm_PG = None, score_norms(rolled) if "score_norms" in wanted else None
    if "lengths" in wanted:
        length_PG = np.repeat(rolled.prompts.length_P[:, None].astype(float), rolled.reward_PG.shape[1], axis=1)
    columns = [rolled.reward_PG, length_PG, norm_PG]
    if rolled.group_P is not None:
        columns = [None if x is None else x[:, 0] for x in columns]
    return group_rewards(
        columns[0], rolled.group_P, lengths=columns[1], score_norms=columns[2],
        clusters=rolled.prompts.topic_P if "clusters" in wanted else None,
        prompt_ids=rolled.number_P if "prompt_ids" in wanted else None,
        answers=_answers(rolled) if "answers" in wanted else None,
        greedy=_greedy(rolled) if "greedy_reward" in wanted else None,
    )  # fmt: skip


def _answers(rolled: Rollouts) -> Ints:
    """A number for every answer, equal where its actions are; shaped as the rewards."""
    actions_PGL = np.where(rolled.prompts.live_PL[:, None], rolled.actions_PGL, -1)
    _, code_N = np.unique(actions_PGL.reshape(-1, actions_PGL.shape[2]), axis=0, return_inverse=True)
    return np.asarray(code_N.reshape(-1 if rolled.group_P is not None else rolled.reward_PG.shape))


def _greedy(rolled: Rollouts) -> Array:
    """The reward of each prompt's most likely actions: 1 where all of them are right."""
    best_PL = np.argmax(rolled.pi_PLK, axis=2) == rolled.prompts.right_PL
    return np.asarray((best_PL | ~rolled.prompts.live_PL).all(axis=1), dtype=np.float64)


def score_norms(rolled: Rollouts) -> Array:
    """|d log pi(answer)/d logits|^2 = sum over its steps of 1 - 2 pi(a) + sum_v pi(v)^2, shape (P, G); the squared norm
    in the parameters where no chain needs a skill twice."""
    pi_PLK, live_PL = rolled.pi_PLK, rolled.prompts.live_PL
    chosen_PLG = np.take_along_axis(pi_PLK, rolled.actions_PGL.transpose(0, 2, 1), axis=2)
    norm_PLG = 1 - 2 * chosen_PLG + np.einsum("plk,plk->pl", pi_PLK, pi_PLK)[..., None]
    return np.asarray(np.where(live_PL[..., None], norm_PLG, 0.0).sum(axis=1))
