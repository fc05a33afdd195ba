"""Softmax policies over chains of steps: shared skill logits plus an offset of the prompt.

Step l of prompt P needs skill s = skills_PL[P, l]; its action is drawn from

    pi(a) = softmax(theta[s, :] + offset_PL[P, l] 1[a = right_PL[P, l]])_a,        a = 0 .. K-1.

The right action is 0 but for a share of exceptions, where it is 1: prompts that need the same skill then want
different things of it, and only their offsets tell them apart. Steps are independent given the prompt, and a rollout
always has all `length_P` steps. Steps beyond a prompt's length are padding: they take action 0, the right one, with
certainty, so products, entropies and divergences pass over them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from ebpo_sim.errors import InputError
from ebpo_sim.numbers import Array

Ints = NDArray[np.int64]


class Prompts(NamedTuple):
    """P prompts: topic_P, length_P >= 1; skills_PL, offset_PL and right_PL are padded with 0. See above."""

    topic_P: Ints
    length_P: Ints
    skills_PL: Ints
    offset_PL: Array
    right_PL: Ints

    def take(self, index: Ints) -> Prompts:
        """The prompts at `index`, in that order."""
        return Prompts(
            self.topic_P.take(index), self.length_P.take(index), self.skills_PL.take(index, 0),
            self.offset_PL.take(index, 0), self.right_PL.take(index, 0),
        )  # fmt: skip

    @property
    def live_PL(self) -> NDArray[np.bool_]:
        """True where a step exists."""
        return np.asarray(np.arange(self.skills_PL.shape[1]) < self.length_P[:, None])


def check_prompts(prompts: Prompts, skills: int, actions: int) -> None:
    """Raises InputError unless shapes agree, lengths fit and skills and right actions exist."""
    count, width = prompts.skills_PL.shape
    shapes = tuple(column.shape for column in prompts)
    if shapes != ((count,), (count,), *((count, width),) * 3) or count == 0:
        raise InputError(
            f"prompts need a topic and length each, and (P, L) skills, offsets, right actions: got {shapes}"
        )
    if prompts.length_P.min() < 1 or prompts.length_P.max() > width:
        raise InputError(
            f"chain lengths must lie in 1..{width}, got {prompts.length_P.min()}..{prompts.length_P.max()}"
        )
    if prompts.skills_PL.min() < 0 or prompts.skills_PL.max() >= skills:
        raise InputError(f"skills must lie in 0..{skills - 1}, got {prompts.skills_PL.max()}: theta has {skills} rows")
    if prompts.right_PL.min() < 0 or prompts.right_PL.max() >= actions or np.any(prompts.right_PL[~prompts.live_PL]):
        raise InputError(f"right actions must lie in 0..{actions - 1}, 0 on padding, got {prompts.right_PL.max()}")
    if not np.all(np.isfinite(prompts.offset_PL)):
        raise InputError("offsets must be finite: a softmax policy has no certain action")


def step_log_probabilities(theta_SK: Array, prompts: Prompts) -> Array:
    """log pi(a) of every step, shape (P, L, K); padding has 0 for action 0 and -inf for the others."""
    action_K = np.arange(theta_SK.shape[1])
    logits_PLK = theta_SK[prompts.skills_PL] + prompts.offset_PL[..., None] * (action_K == prompts.right_PL[..., None])
    certain_K = np.where(action_K == 0, 0.0, -np.inf)
    return np.asarray(np.where(prompts.live_PL[..., None], log_softmax(logits_PLK, axis=-1), certain_K))


def step_distributions(theta_SK: Array, prompts: Prompts) -> Array:
    """pi(a) of every step, shape (P, L, K)."""
    return np.exp(step_log_probabilities(theta_SK, prompts))


def right_probabilities(theta_SK: Array, prompts: Prompts) -> Array:
    """pi(right action) of every step, shape (P, L); 1 on padding."""
    pi = step_distributions(theta_SK, prompts)
    return np.asarray(np.take_along_axis(pi, prompts.right_PL[..., None], axis=-1)[..., 0])
