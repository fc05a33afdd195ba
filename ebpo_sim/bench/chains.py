"""What training costs: one run of the compiled engine, and one step of it against plain NumPy on the same work.

Both sides draw the same number of rollouts, use the same real estimator and make the same updates; the engine's loops
are compiled, NumPy's are either one prompt after another ("per prompt", as one writes it first) or whole arrays at
once ("vectorised", as one writes it with care). Rounds alternate; ratios are taken within a round. All on one thread,
in CPU seconds, which other programs on the machine disturb less than wall-clock time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ebpo_sim.chains.policy import Ints, Prompts, step_distributions
from ebpo_sim.chains.population import SkillChain, skill_chain
from ebpo_sim.chains.rung import TrainingConfig, advance, build_method, learner_of, start, stream
from ebpo_sim.groups import group_rewards
from ebpo_sim.numbers import Array, adam
from ebpo_sim.numbers.softmax import softmax
from ebpo_sim.objectives import Tokens
from ebpo_sim.timing import race, ratio, spread

Gradient = Callable[[Array, Prompts, Ints, Array, Array, TrainingConfig], Array]
RUN = TrainingConfig("ebpo", group_size=4, prompts=512, steps=1000, record_every=1000, gradient_redraws=0)


def vectorised_rollout(pi_PLK: Array, prompts: Prompts, group_size: int, rng: np.random.Generator) -> Ints:
    """Actions (P, G, L) by inversion, all at once."""
    uniform = rng.random((len(pi_PLK), group_size, pi_PLK.shape[1], 1))
    return np.asarray(np.sum(uniform >= np.cumsum(pi_PLK, axis=-1)[:, None, :, :-1], axis=-1))


def per_prompt_rollout(pi_PLK: Array, prompts: Prompts, group_size: int, rng: np.random.Generator) -> Ints:
    """Actions (P, G, L), a prompt and a step at a time."""
    actions = np.zeros((len(pi_PLK), group_size, pi_PLK.shape[1]), dtype=np.int64)
    for p, length in enumerate(prompts.length_P):
        for step in range(length):
            actions[p, :, step] = np.searchsorted(np.cumsum(pi_PLK[p, step])[:-1], rng.random(group_size), "right")
    return actions


def vectorised_gradient(
    theta_SK: Array, prompts: Prompts, actions_PGL: Ints, advantage_PG: Array, old_PLK: Array, config: TrainingConfig
) -> Array:
    """The clipped surrogate's token-mean gradient (no KL), whole arrays at once."""
    pi_PLK = step_distributions(theta_SK, prompts)
    push_PGL = _push(pi_PLK, prompts, actions_PGL, advantage_PG, old_PLK, config)
    one_hot = actions_PGL[..., None] == np.arange(theta_SK.shape[1])
    score = np.sum(push_PGL[..., None] * one_hot, axis=1) - pi_PLK * push_PGL.sum(axis=1)[..., None]
    gradient = np.zeros_like(theta_SK)
    np.add.at(gradient, prompts.skills_PL, score)
    return np.asarray(gradient / (prompts.length_P.sum() * advantage_PG.shape[1]))


def per_prompt_gradient(
    theta_SK: Array, prompts: Prompts, actions_PGL: Ints, advantage_PG: Array, old_PLK: Array, config: TrainingConfig
) -> Array:
    """The same, a prompt and a step at a time but for the objective; NumPy over rollouts and actions."""
    gradient, pi_PLK = np.zeros_like(theta_SK), np.ones_like(old_PLK)
    for p, length in enumerate(prompts.length_P):
        for step in range(length):
            logits = theta_SK[prompts.skills_PL[p, step]].copy()
            logits[prompts.right_PL[p, step]] += prompts.offset_PL[p, step]
            pi_PLK[p, step] = softmax(logits)
    push_PGL = _push(pi_PLK, prompts, actions_PGL, advantage_PG, old_PLK, config)
    for p, length in enumerate(prompts.length_P):
        for step in range(length):
            push, pi = push_PGL[p, :, step], pi_PLK[p, step]
            pulled = np.bincount(actions_PGL[p, :, step], push, len(pi))
            gradient[prompts.skills_PL[p, step]] += pulled - pi * push.sum()
    return np.asarray(gradient / (prompts.length_P.sum() * advantage_PG.shape[1]))


def _push(
    pi_PLK: Array, prompts: Prompts, actions_PGL: Ints, advantage_PG: Array, old_PLK: Array, config: TrainingConfig
) -> Array:
    """(P, G, L) what the clip pushes every token with."""
    now, old = (
        np.log(np.take_along_axis(x[:, None], actions_PGL[..., None], axis=-1)[..., 0]) for x in (pi_PLK, old_PLK)
    )
    tokens = Tokens(now, old, prompts.live_PL[:, None], advantage_PG[..., None])
    (clip,) = learner_of(config).objectives
    return np.asarray(clip.push((), tokens).log_prob_NT)


def numpy_steps(
    population: SkillChain, config: TrainingConfig, steps: int,
    rollout: Callable[[Array, Prompts, int, np.random.Generator], Ints], gradient: Gradient,
) -> Array:  # fmt: skip
    """`steps` Adam steps in NumPy with the real estimator; the parameters reached."""
    estimator = build_method(population, config).estimator
    state, order, rng = estimator.init(), stream(population, config), np.random.default_rng(config.seed)
    learner, settings = adam.init(population.start_SK), adam.Adam(config.learning_rate)
    for index in order[:steps]:
        batch = population.prompts.take(index)
        old_PLK = step_distributions(learner.theta, batch)
        actions = rollout(old_PLK, batch, config.group_size, rng)
        right_PGL = (actions == batch.right_PL[:, None]) | ~batch.live_PL[:, None]
        groups = group_rewards(right_PGL.all(axis=-1).astype(np.float64), clusters=batch.topic_P)
        advantage_PG, _, state = estimator.step(state, groups)
        for part in np.array_split(np.arange(config.prompts), config.minibatches):
            g = gradient(learner.theta, batch.take(part), actions[part], advantage_PG[part], old_PLK[part], config)
            learner = adam.update(settings, learner, g)
    return learner.theta


def training_throughput(rounds: int, seed: int) -> dict[str, Any]:
    """Seconds of one warm run of 1000 steps x 512 prompts x G = 4 (one thread, its two records included), rollouts a
    second, and how many times longer plain NumPy takes per step; medians and quartiles over `rounds`."""
    population = skill_chain(prompts=2048, seed=seed)
    fresh = start(population, RUN)
    advance(population, RUN, fresh, 2)  # compile and warm up

    def per_step(steps: int, work: Callable[..., object], *arguments: Any) -> float:
        began = time.process_time()
        work(population, RUN, *arguments)
        return (time.process_time() - began) / steps

    times = race({
        "engine": partial(per_step, RUN.steps, advance, fresh, RUN.steps),
        "numpy, per prompt": partial(per_step, 4, numpy_steps, 4, per_prompt_rollout, per_prompt_gradient),
        "numpy, vectorised": partial(per_step, 20, numpy_steps, 20, vectorised_rollout, vectorised_gradient),
    }, rounds)  # fmt: skip
    engine = times.pop("engine")
    found: dict[str, Any] = {
        "run of 1000 steps, CPU s": spread([RUN.steps * t for t in engine]),
        "million rollouts a second": spread([RUN.prompts * RUN.group_size / t / 1e6 for t in engine]),
    }
    for name, values in times.items():
        found[f"{name}, ms a step"] = spread([1e3 * t for t in values])
        found[f"{name} / engine"] = ratio(values, engine)
    return found
