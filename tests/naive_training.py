"""Plain-Python twins of the training kernels: floats and loops in the same order, so that results agree to the bit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ebpo_sim.chains.rung import TrainingConfig


def exponentials(theta: list[list[float]]) -> list[list[float]]:
    return [[math.exp(z - max(row)) for z in row] for row in theta]


def softmax(weights: list[float], boost: float, right: int) -> list[float]:
    raised = [w * boost if a == right else w for a, w in enumerate(weights)]
    total = 0.0
    for w in raised:
        total += w
    return [w / total for w in raised]


def distributions(theta: list[list[float]], prompts: Any) -> list[list[list[float]]]:
    """pi[prompt][step][action], live steps only."""
    table = exponentials(theta)
    skills, offset, right = (np.asarray(x).tolist() for x in (prompts.skills_PL, prompts.offset_PL, prompts.right_PL))
    boost = np.exp(np.asarray(offset)).tolist()
    return [
        [softmax(table[skills[p][s]], boost[p][s], right[p][s]) for s in range(length)]
        for p, length in enumerate(np.asarray(prompts.length_P).tolist())
    ]


def draw(pi: list[float], u: float) -> int:
    cumulative, last = 0.0, 0
    for a, x in enumerate(pi):
        if x > 0:
            last = a
        cumulative += x
        if u < cumulative:
            return a
    return last


def rollout(pi: Any, prompts: Any, uniform: Any) -> tuple[Any, Any]:
    """(actions[p][g] a tuple of actions, rewards[p][g])."""
    actions = [
        [tuple(draw(chain[s], float(u[s])) for s in range(len(chain))) for u in rows]
        for chain, rows in zip(pi, uniform, strict=True)
    ]
    right = [tuple(r[: len(chain)]) for r, chain in zip(np.asarray(prompts.right_PL).tolist(), pi, strict=True)]
    return actions, [[float(answer == r) for answer in rows] for rows, r in zip(actions, right, strict=True)]


def gradient(
    theta: list[list[float]], prompts: Any, actions: Any, advantages: Any, old: Any, reference: Any,
    config: TrainingConfig, first: int, last: int,
) -> list[list[float]]:  # fmt: skip
    """Of the clipped surrogate over prompts first .. last - 1."""
    pi = distributions(theta, prompts)
    found = [[0.0] * len(row) for row in theta]
    rollouts = len(actions[0])
    tokens = sum(len(pi[p]) * rollouts for p in range(first, last))
    for p in range(first, last):
        share = 1.0 / tokens if config.aggregation == "token_mean" else 1.0 / (len(pi[p]) * rollouts * (last - first))
        for s, here in enumerate(pi[p]):
            pulled, total = [0.0] * len(here), 0.0
            for g in range(rollouts):
                a, advantage = actions[p][g][s], float(advantages[p][g])
                log_prob = math.log(here[a])
                ratio = float(np.exp(log_prob - math.log(old[p][s][a])))  # NumPy's exp, as the objectives have it
                weight = ratio * advantage
                if advantage > 0 and ratio > 1 + config.clip_high:
                    weight = 0.0
                if advantage < 0 and ratio < 1 - config.clip_low:
                    weight = 0.0
                if config.kl != 0:
                    d = math.log(reference[p][s][a]) - log_prob
                    if abs(float(np.expm1(d)) - d) <= 10.0:
                        weight += config.kl * float(np.expm1(d))
                weight *= share
                pulled[a] += weight
                total += weight
            skill = int(prompts.skills_PL[p, s])
            for a in range(len(here)):
                found[skill][a] += pulled[a] - here[a] * total
    return found


def update(
    theta: Any, first: Any, second: Any, count: int, prompts: Any, actions: Any, advantages: Any, old: Any,
    reference: Any, config: TrainingConfig,
) -> tuple[Any, Any, Any, int, float]:  # fmt: skip
    """(theta, Adam's moments, updates, mean gradient norm) after all updates of a batch."""
    theta, first, second = ([row[:] for row in x] for x in (theta, first, second))
    n, norms = len(prompts.length_P), 0.0
    for _ in range(config.epochs):
        for part in range(config.minibatches):
            low, high = part * n // config.minibatches, (part + 1) * n // config.minibatches
            slope = gradient(theta, prompts, actions, advantages, old, reference, config, low, high)
            square = 0.0
            for row in slope:
                for x in row:
                    square += x * x
            norms += math.sqrt(square)
            count += 1
            debias1, debias2 = 1 - math.pow(0.9, float(count)), 1 - math.pow(0.999, float(count))
            for s, row in enumerate(slope):
                for a, x in enumerate(row):
                    if config.optimiser == "sgd":
                        theta[s][a] += config.learning_rate * x
                        continue
                    first[s][a] = 0.9 * first[s][a] + (1 - 0.9) * x
                    second[s][a] = 0.999 * second[s][a] + (1 - 0.999) * (x * x)
                    step = config.learning_rate * (first[s][a] / debias1) / (math.sqrt(second[s][a] / debias2) + 1e-8)
                    theta[s][a] += step
    return theta, first, second, count, norms / (config.epochs * config.minibatches)


def majority(pi: Any, prompts: Any, uniform: Any) -> list[float]:
    """Share of first place that the right answer holds, for each prompt."""
    scores = []
    for chain, rows, truth in zip(pi, uniform, np.asarray(prompts.right_PL).tolist(), strict=True):
        answers = [tuple(draw(chain[s], float(u[s])) for s in range(len(chain))) for u in rows]
        votes = {answer: answers.count(answer) for answer in answers}
        best = [answer for answer, n in votes.items() if n == max(votes.values())]
        scores.append(1.0 / len(best) if tuple(truth[: len(chain)]) in best else 0.0)
    return scores
