"""Policy updates simulated with the real, stateful estimators: the check on `policy_gradient`, and long runs.

One step: batches of M prompts from a world, their first-order change of reward and entropy. Long runs: tabular
softmax policies that learn, all replicates in step, every estimator on the same prompts and common seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import log_softmax

from ebpo_sim.counts.streams import Design, generators, stream_seed
from ebpo_sim.counts.updates import advantages_by_count, entropy, entropy_gradient, policies, success_gradient
from ebpo_sim.errors import InputError
from ebpo_sim.estimators import Estimator
from ebpo_sim.groups import count_groups, group_rewards
from ebpo_sim.numbers import Array, adam
from ebpo_sim.worlds import World


def one_step_changes(
    world: World, group_size: int, estimators: Sequence[Estimator], arms: int, design: Design
) -> dict[str, Array]:
    """Mean first-order (reward, entropy) change per group, shape (estimators, 2, replicates), by optimiser.

    Each scored batch is drawn, scored by the estimator in its own order, and its sampled update projected:
    natural gradient dH_i = -A_i (log pi(a_i) + H), vanilla dH_i = A_i grad H . (e_a - pi), likewise for p.
    All estimators see the same batches.
    """
    from ebpo_sim.counts.kernels import count_successes

    design.check()
    found = {name: np.zeros((len(estimators), 2, design.replicates)) for name in ("natural", "vanilla")}
    scored = design.steps - design.burn_in
    for replicate, seed in enumerate(stream_seed(design.seed, world.name, group_size).spawn(design.replicates)):
        rng, words = generators(seed)
        states = [estimator.init() for estimator in estimators]
        for step in range(design.steps):
            p_P = world.sample(rng, design.prompts)
            k_P = np.empty(len(p_P), dtype=np.int64)
            count_successes(p_P, group_size, words, k_P)
            batch = count_groups(group_size, np.bincount(k_P, minlength=group_size + 1))
            score_now = step >= design.burn_in
            moves = _sampled_moves(p_P, arms) if score_now else None
            for i, estimator in enumerate(estimators):
                scoring, states[i] = estimator.turn(states[i], batch)
                if moves is not None:
                    table = advantages_by_count(estimator, scoring, batch, group_size)
                    failed_P = (group_size - k_P) / group_size * table[k_P, 0]
                    rewarded_P = k_P / group_size * table[k_P, 1]
                    for name, (right_2P, wrong_2P) in moves.items():
                        change = np.mean(rewarded_P * right_2P + failed_P * wrong_2P, axis=-1)
                        found[name][i, :, replicate] += change / scored
    return found


def _sampled_moves(p_P: Array, arms: int) -> dict[str, tuple[Array, Array]]:
    """(reward, entropy) change per unit of advantage of drawing the right arm, and a wrong one: two (2, P) arrays."""
    pi = policies(p_P, arms)
    log_pi = np.log(np.maximum(pi, 1e-300))
    surprise = -(log_pi + entropy(pi)[:, None])
    natural = np.stack([np.broadcast_to(np.eye(1, arms), pi.shape) - pi[:, :1], surprise])
    slopes = np.stack([success_gradient(pi), entropy_gradient(pi)])
    vanilla = slopes - np.sum(slopes * pi, axis=-1, keepdims=True)
    return {name: (m[..., 0], m[..., 1]) for name, m in (("natural", natural), ("vanilla", vanilla))}


class Path(NamedTuple):
    """A long run: mean reward (true p) and mean policy entropy before each step, shape (replicates, steps + 1)."""

    reward: Array
    entropy: Array


def train(
    estimator: Estimator,
    start_p: Array,
    *,
    group_size: int,
    arms: int,
    steps: int,
    learning_rate: float,
    optimiser: str,
    replicates: int,
    seed: int,
) -> Path:
    """Train one tabular softmax policy per prompt for `steps` steps, every prompt in every batch.

    start_p (P,) success probabilities in (0, 1); optimiser "sgd" (on the group's mean policy gradient) or "adam"
    (betas 0.9 and 0.999, eps 1e-8). Rollouts come from common random numbers, so runs of different
    estimators with the same seed are paired.
    """
    if optimiser not in ("sgd", "adam"):
        raise InputError(f"optimiser must be 'sgd' or 'adam', got {optimiser!r}")
    if not np.all((start_p > 0) & (start_p < 1)):
        raise InputError("start_p must lie strictly between 0 and 1: a softmax policy has no certain arm")
    rng = np.random.default_rng([seed, group_size, arms])
    learner = adam.Adam(learning_rate)
    logits = adam.init(np.broadcast_to(np.log(policies(start_p, arms)), (replicates, len(start_p), arms)))
    state = estimator.init()
    reward, spread = [], []
    for step in range(steps + 1):
        pi = np.exp(log_softmax(logits.theta, axis=-1))
        reward.append(pi[..., 0].mean(axis=-1))
        spread.append(entropy(pi).mean(axis=-1))
        if step == steps:
            break
        uniform = rng.random((replicates, len(start_p), group_size))
        actions = np.sum(uniform[..., None] > np.cumsum(pi, axis=-1)[:, :, None, :-1], axis=-1)
        batch = group_rewards((actions == 0).astype(np.float64), lengths=np.ones(actions.shape))
        advantages, _, state = estimator.step(state, batch)
        pulled = np.stack([np.sum(advantages * (actions == a), axis=-1) for a in range(arms)], axis=-1)
        gradient = (pulled - pi * advantages.sum(axis=-1, keepdims=True)) / group_size
        if optimiser == "adam":
            logits = adam.update(learner, logits, gradient)
        else:
            logits = logits._replace(theta=logits.theta + learning_rate * gradient)
    return Path(np.stack(reward, axis=-1), np.stack(spread, axis=-1))


def entropy_at_reward(path: Path, reward: float) -> Array:
    """Each replicate's entropy when its mean reward first reaches `reward` (linear between steps); NaN if never."""
    found = np.full(len(path.reward), np.nan)
    for i, (r, h) in enumerate(zip(path.reward, path.entropy, strict=True)):
        above = np.flatnonzero(r >= reward)
        if len(above) == 0 or (above[0] == 0 and r[0] > reward):
            continue
        j = above[0]
        if r[j] == reward:
            found[i] = h[j]
            continue
        share = (reward - r[j - 1]) / (r[j] - r[j - 1])
        found[i] = h[j - 1] + share * (h[j] - h[j - 1])
    return found
