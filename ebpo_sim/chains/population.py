"""A population of prompts as chains of shared skills, with everything about its policy known exactly.

The reward of a rollout is 1 iff all its steps are right, so p = prod_l pi_l(right): sparse and product-shaped.
Skills are shared between prompts (learning one moves all prompts that need it); a chain starts with its topic's
entry skill, so prompts of a topic share prefixes. Difficulty is chain length, offset, and whether a step is one of
the exceptions, where what the skill usually does is wrong: without them a policy of rising certainty in one action
would solve everything. Source: our own design.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import xlogy

from ebpo_sim.chains.policy import Ints, Prompts, check_prompts, right_probabilities, step_distributions
from ebpo_sim.errors import InputError, unknown_name
from ebpo_sim.numbers import Array
from ebpo_sim.worlds.base import quantiles
from ebpo_sim.worlds.grammar import parse_world

EDGE = 1e-3  # starting success probabilities are kept this far from 0 and 1, where no softmax policy can be


@dataclass(frozen=True, eq=False)
class SkillChain:
    """Training prompts, held-out prompts built from the same skills, and the starting parameters start_SK."""

    name: str
    prompts: Prompts
    validation: Prompts
    start_SK: Array

    def __post_init__(self) -> None:
        if self.start_SK.ndim != 2 or self.start_SK.shape[1] < 2:
            raise InputError(f"start_SK must be (skills, K) with K at least 2, got shape {self.start_SK.shape}")
        for part in (self.prompts, self.validation):
            check_prompts(part, *self.start_SK.shape)

    @property
    def actions(self) -> int:
        """K, the number of actions of a step."""
        return int(self.start_SK.shape[1])

    @property
    def skills(self) -> int:
        """S, the number of skills."""
        return len(self.start_SK)


def success(theta_SK: Array, prompts: Prompts) -> Array:
    """p_P = prod_l pi_l(right), the exact success probability of every prompt."""
    return np.asarray(np.prod(right_probabilities(theta_SK, prompts), axis=-1))


def token_entropy(theta_SK: Array, prompts: Prompts) -> Array:
    """H of every step's distribution in nats, shape (P, L), 0 on padding; a rollout's entropy is the sum over L."""
    pi = step_distributions(theta_SK, prompts)
    return np.asarray(-np.sum(xlogy(pi, pi), axis=-1))


def per_token(values_PL: Array, prompts: Prompts) -> float:
    """Mean over all tokens of all prompts."""
    return float(values_PL.sum() / prompts.length_P.sum())


def success_gradient(theta_SK: Array, prompts: Prompts, weight_P: ArrayLike | None = None) -> Array:
    """d/dtheta of sum_P weight_P p_P, shape (S, K); weights default to 1/P, the mean success.

    dp/dtheta[s, a] = p sum over the prompt's steps that need s of (1[a right] - pi_l(a)).
    """
    pi = step_distributions(theta_SK, prompts)
    p_P = success(theta_SK, prompts)
    share_P = p_P * (np.full(len(p_P), 1 / len(p_P)) if weight_P is None else np.asarray(weight_P))
    right_PLK = np.arange(theta_SK.shape[1]) == prompts.right_PL[..., None]
    score_PLK = np.where(prompts.live_PL[..., None], right_PLK - pi, 0.0) * share_P[:, None, None]
    gradient = np.zeros_like(theta_SK)
    np.add.at(gradient, prompts.skills_PL, score_PLK)
    return gradient


def entropy_gradient(theta_SK: Array, prompts: Prompts) -> Array:
    """d/dtheta of the mean entropy of a token over all tokens of the prompts, shape (S, K).

    dH/dtheta[s, a] = - pi(a) (log pi(a) + H) for a step that needs s.
    """
    pi, live_PL = step_distributions(theta_SK, prompts), prompts.live_PL
    slope_PLK = -(xlogy(pi, pi) + pi * token_entropy(theta_SK, prompts)[..., None]) / live_PL.sum()
    gradient = np.zeros_like(theta_SK)
    np.add.at(gradient, prompts.skills_PL, np.where(live_PL[..., None], slope_PLK, 0.0))
    return gradient


def skill_chain(
    topics: int = 4, skills_per_topic: int = 6, prompts: int = 512, lengths: Sequence[int] = (1, 2, 3, 4),
    seed: int = 0, *, shared_skills: int = 4, actions: int = 8, validation: int = 256, spread: float = 1.0,
    easy: float = 2.5, exceptions: float = 0.25,
) -> SkillChain:  # fmt: skip
    """A random population: topic k's mean offset runs from easy + 1 to easy - 1, prompts scatter by `spread`.

    A chain is its topic's entry skill followed by skills drawn from the topic's and `shared_skills` common ones; each
    step is an exception with probability `exceptions`. Starting logits are Normal(0, 1/4).
    Raises InputError for sizes below 1, K below 2, a share outside [0, 1] or an empty list of lengths.
    """
    for name, value in (("topics", topics), ("skills_per_topic", skills_per_topic), ("prompts", prompts),
                        ("validation", validation), ("actions", actions - 1)):  # fmt: skip
        if value < 1:
            raise InputError(f"{name} must be at least {1 + (name == 'actions')}, got {value + (name == 'actions')}")
    rng = np.random.default_rng([seed, 1])
    start = rng.normal(0.0, 0.5, (topics * skills_per_topic + shared_skills, actions))
    centre_K = easy + np.linspace(1.0, -1.0, topics) if topics > 1 else np.array([easy])

    def draw(count: int) -> Prompts:
        chains = _chains(rng, count, topics, skills_per_topic, shared_skills, lengths, exceptions)
        offset_P = centre_K[chains.topic_P] + spread * rng.standard_normal(count)
        return chains._replace(offset_PL=np.where(chains.live_PL, offset_P[:, None], 0.0))

    return SkillChain("chain", draw(prompts), draw(validation), start)


def bandit(p: ArrayLike, actions: int = 8, name: str = "bandit") -> SkillChain:
    """The multi-armed softmax bandit: chains of one step, a skill for each prompt, starting at success p (P,).

    Wrong arms share 1 - p equally. Prompts share nothing, so the validation prompts are the training prompts.
    Raises InputError unless every p lies strictly between 0 and 1.
    """
    p = np.atleast_1d(np.asarray(p, dtype=np.float64))
    if p.ndim != 1 or not np.all((p > 0) & (p < 1)):
        raise InputError(f"p must lie strictly between 0 and 1, got {p!r}: a softmax policy has no certain arm")
    count = len(p)
    one = np.ones(count, dtype=np.int64)
    prompts = Prompts(0 * one, one, np.arange(count)[:, None], np.zeros((count, 1)), 0 * one[:, None])
    start = np.zeros((count, actions))
    start[:, 0] = _offset(p, one, actions)
    return SkillChain(name, prompts, prompts, start)


def from_observed(
    name: str, prompts: int = 512, seed: int = 0, *, topics: int = 4, skills_per_topic: int = 6, shared_skills: int = 4,
    lengths: Sequence[int] = (1, 2, 3, 4), actions: int = 8, validation: int = 256,
    exceptions: float = 0.25,
) -> SkillChain:  # fmt: skip
    """Chains whose starting success probabilities are the quantiles of the world `observed:NAME` (or any world).

    Prompt i starts at the ((i + 1/2)/P)-quantile of the deconvolved pass rates, kept within [EDGE, 1 - EDGE]: its
    steps share the offset that makes each right with probability p^(1/L). Lengths, topics and skills are random.
    """
    world = parse_world(name if ":" in name else f"observed:{name}")
    rng = np.random.default_rng([seed, 2])

    def draw(count: int) -> Prompts:
        chains = _chains(rng, count, topics, skills_per_topic, shared_skills, lengths, exceptions)
        offset_P = _offset(quantiles(world, count, EDGE), chains.length_P, actions)
        return chains._replace(offset_PL=np.where(chains.live_PL, offset_P[:, None], 0.0))

    start = np.zeros((topics * skills_per_topic + shared_skills, actions))
    return SkillChain(world.name, draw(prompts), draw(validation), start)


def parse_population(
    text: str, prompts: int, seed: int, validation: int = 256, topics: int = 4, skills_per_topic: int = 6
) -> SkillChain:
    """ "chain": `skill_chain`; "bandit:WORLD": `bandit` at WORLD's quantiles; else a world: `from_observed`.

    topics, skills_per_topic: how far skills are shared, so how noisy gradients are; a bandit shares none.
    """
    kind, _, body = text.partition(":")
    if prompts < 1:
        raise InputError(f"prompts must be at least 1, got {prompts}")
    if text == "chain":
        return skill_chain(topics, skills_per_topic, prompts, seed=seed, validation=validation)
    if kind == "bandit":
        return bandit(quantiles(parse_world(body), prompts, EDGE), name=text)
    if ":" not in text:
        raise unknown_name("training world", text, ("chain", "bandit:WORLD", "observed:MODEL"))
    return from_observed(text, prompts, seed, topics=topics, skills_per_topic=skills_per_topic, validation=validation)


def _offset(p_P: Array, length_P: Ints, actions: int) -> Array:
    """The offset on uniform logits with which all of L equal steps are right with probability p."""
    log_s = np.log(p_P) / length_P
    return np.asarray(log_s + np.log(actions - 1.0) - np.log(-np.expm1(log_s)))


def _chains(
    rng: np.random.Generator, count: int, topics: int, own: int, shared: int, lengths: Sequence[int], exceptions: float
) -> Prompts:
    """Random chains without offsets: topic k owns skills k own .. (k + 1) own - 1, the last `shared` are common."""
    if len(lengths) == 0 or min(lengths) < 1:
        raise InputError(f"lengths must be at least 1, got {tuple(lengths)!r}")
    if not 0 <= exceptions <= 1:
        raise InputError(f"exceptions must lie in [0, 1], got {exceptions!r}: it is a share of the steps")
    topic_P = rng.integers(topics, size=count)
    length_P = rng.choice(np.asarray(lengths, dtype=np.int64), size=count)
    drawn_PL = rng.integers(own + shared, size=(count, max(lengths)))
    skills_PL = np.where(drawn_PL < own, topic_P[:, None] * own + drawn_PL, topics * own + drawn_PL - own)
    skills_PL[:, 0] = topic_P * own
    live_PL = np.arange(max(lengths)) < length_P[:, None]
    right_PL = np.where(live_PL & (rng.random(live_PL.shape) < exceptions), 1, 0)
    return Prompts(topic_P, length_P, np.where(live_PL, skills_PL, 0), np.zeros(live_PL.shape), right_PL)
