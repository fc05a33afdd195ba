# mypy: disallow-untyped-defs=False, disallow-untyped-decorators=False, disallow-incomplete-defs=False
# mypy: disallow-untyped-calls=False
"""The compiled loops of training: rollouts, the clipped surrogate's gradient, optimiser steps, majority votes.

All are plain loops in a fixed order over float64, without reassociation, so that the twin in
tests/naive_training.py gives the same bits. Random numbers are handed in.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

BETA1, BETA2, ADAM_EPS = 0.9, 0.999, 1e-8
K3_CLAMP = 10.0


@njit(cache=True, nogil=True, error_model="numpy")
def exponentials(theta_SK, table_SK):
    """exp(theta - the skill's largest), written to table_SK: one exponential serves every prompt with the skill."""
    for s in range(theta_SK.shape[0]):
        peak = theta_SK[s, 0]
        for a in range(1, theta_SK.shape[1]):
            peak = max(peak, theta_SK[s, a])
        for a in range(theta_SK.shape[1]):
            table_SK[s, a] = math.exp(theta_SK[s, a] - peak)


@njit(cache=True, nogil=True, error_model="numpy")
def softmax_step(table_SK, skill, boost, right, pi_K):
    """pi of a step whose right action's weight is raised by the factor boost = exp(offset), written to pi_K."""
    total = 0.0
    for a in range(len(pi_K)):
        weight = table_SK[skill, a]
        if a == right:
            weight *= boost
        pi_K[a] = weight
        total += weight
    for a in range(len(pi_K)):
        pi_K[a] /= total


@njit(cache=True, nogil=True, error_model="numpy")
def distributions(theta_SK, skills_PL, length_P, boost_PL, right_PL, pi_PLK):
    """Every live step's distribution, written to pi_PLK; padding is left alone. boost_PL = exp(offset_PL)."""
    table_SK = np.empty_like(theta_SK)
    exponentials(theta_SK, table_SK)
    for p in range(len(length_P)):
        for step in range(length_P[p]):
            softmax_step(table_SK, skills_PL[p, step], boost_PL[p, step], right_PL[p, step], pi_PLK[p, step])


@njit(cache=True, nogil=True, error_model="numpy")
def draw(pi_K, u):
    """The action a with u in [cumulative before a, cumulative after a); the last possible one takes what rounding
    leaves, so an action of probability 0 is never drawn."""
    cumulative = 0.0
    last = 0
    for a in range(len(pi_K)):
        if pi_K[a] > 0:
            last = a
        cumulative += pi_K[a]
        if u < cumulative:
            return a
    return last


@njit(cache=True, nogil=True, error_model="numpy")
def rollout(pi_PLK, length_P, right_PL, uniform_PGL, actions_PGL, reward_PG):
    """Actions by inversion of uniform_PGL, written to actions_PGL; reward 1 iff all steps are right."""
    for p in range(len(length_P)):
        for g in range(uniform_PGL.shape[1]):
            right = 1.0
            for step in range(length_P[p]):
                a = draw(pi_PLK[p, step], uniform_PGL[p, g, step])
                actions_PGL[p, g, step] = a
                if a != right_PL[p, step]:
                    right = 0.0
            reward_PG[p, g] = right


@njit(cache=True, nogil=True, error_model="numpy")
def surrogate_gradient(
    theta_SK, skills_PL, length_P, boost_PL, right_PL, actions_PGL, advantage_PG, old_PLK, reference_PLK,
    clip_low, clip_high, kl, token_mean, first, last, gradient_SK,
):  # fmt: skip
    """Gradient of the clipped surrogate over prompts first .. last - 1, written to gradient_SK; returns clipped tokens.

    Token weight: r A with r = pi/old, 0 where the clip holds it (A > 0 and r > 1 + clip_high, or A < 0 and
    r < 1 - clip_low), minus kl (1 - reference/pi), the gradient of k3 = ref/pi - 1 - log(ref/pi) in log pi
    (none where k3 exceeds 10, at which verl clamps it).
    token_mean: each token counts 1/tokens; else each token 1/(length rollouts), the mean over sequences of token means.
    """
    actions = theta_SK.shape[1]
    rollouts = actions_PGL.shape[1]
    gradient_SK[:] = 0.0
    tokens = 0
    for p in range(first, last):
        tokens += length_P[p] * rollouts
    table_SK = np.empty_like(theta_SK)
    exponentials(theta_SK, table_SK)
    pi_K, pulled_K = np.empty(actions), np.empty(actions)
    clipped = 0
    for p in range(first, last):
        share = 1.0 / tokens if token_mean else 1.0 / (length_P[p] * rollouts * (last - first))
        for step in range(length_P[p]):
            skill = skills_PL[p, step]
            softmax_step(table_SK, skill, boost_PL[p, step], right_PL[p, step], pi_K)
            pulled_K[:] = 0.0
            total = 0.0
            for g in range(rollouts):
                a = actions_PGL[p, g, step]
                advantage = advantage_PG[p, g]
                ratio = pi_K[a] / old_PLK[p, step, a]
                weight = ratio * advantage
                if (advantage > 0 and ratio > 1 + clip_high) or (advantage < 0 and ratio < 1 - clip_low):
                    weight = 0.0
                    clipped += 1
                if kl != 0:
                    to_reference = reference_PLK[p, step, a] / pi_K[a]
                    if to_reference > 0 and to_reference - 1 - math.log(to_reference) <= K3_CLAMP:
                        weight -= kl * (1 - to_reference)
                weight *= share
                pulled_K[a] += weight
                total += weight
            for a in range(actions):
                gradient_SK[skill, a] += pulled_K[a] - pi_K[a] * total
    return clipped


@njit(cache=True, nogil=True, error_model="numpy")
def optimiser_step(theta_SK, first_SK, second_SK, count, gradient_SK, adam, learning_rate):
    """One step of ascent in place: SGD, or Adam's update number `count` (from 1), betas 0.9 and 0.999, eps 1e-8."""
    debias1, debias2 = 1 - math.pow(BETA1, float(count)), 1 - math.pow(BETA2, float(count))
    for s in range(theta_SK.shape[0]):
        for a in range(theta_SK.shape[1]):
            g = gradient_SK[s, a]
            if adam:
                first_SK[s, a] = BETA1 * first_SK[s, a] + (1 - BETA1) * g
                second_SK[s, a] = BETA2 * second_SK[s, a] + (1 - BETA2) * (g * g)
                theta_SK[s, a] += (
                    learning_rate * (first_SK[s, a] / debias1) / (math.sqrt(second_SK[s, a] / debias2) + ADAM_EPS)
                )
            else:
                theta_SK[s, a] += learning_rate * g


@njit(cache=True, nogil=True, error_model="numpy")
def update_policy(
    theta_SK, first_SK, second_SK, count, skills_PL, length_P, boost_PL, right_PL, actions_PGL, advantage_PG,
    old_PLK, reference_PLK, clip_low, clip_high, kl, token_mean, minibatches, epochs, adam, learning_rate, gradient_SK,
):  # fmt: skip
    """All updates of one batch, in place: `epochs` passes over `minibatches` contiguous parts.

    Returns (updates so far, mean gradient norm of this batch's updates, clipped tokens).
    """
    prompts = len(length_P)
    norms = 0.0
    clipped = 0
    for _ in range(epochs):
        for part in range(minibatches):
            low, high = part * prompts // minibatches, (part + 1) * prompts // minibatches
            clipped += surrogate_gradient(
                theta_SK, skills_PL, length_P, boost_PL, right_PL, actions_PGL, advantage_PG, old_PLK, reference_PLK,
                clip_low, clip_high, kl, token_mean, low, high, gradient_SK,
            )  # fmt: skip
            square = 0.0
            for s in range(gradient_SK.shape[0]):
                for a in range(gradient_SK.shape[1]):
                    square += gradient_SK[s, a] * gradient_SK[s, a]
            norms += math.sqrt(square)
            count += 1
            optimiser_step(theta_SK, first_SK, second_SK, count, gradient_SK, adam, learning_rate)
    return count, norms / (epochs * minibatches), clipped


@njit(cache=True, nogil=True, error_model="numpy")
def divergence(before_SK, after_SK, skills_PL, length_P, old_PLK):
    """KL(before || after) in nats per token over the given prompts, old_PLK being the distributions before.

    after is proportional to before exp(d) with d = after_SK - before_SK, so KL = log sum_a old e^d_a - sum_a old d_a.
    """
    skills, actions = before_SK.shape
    moved_SK, growth_SK = np.empty((skills, actions)), np.empty((skills, actions))
    for s in range(skills):
        for a in range(actions):
            moved_SK[s, a] = after_SK[s, a] - before_SK[s, a]
            growth_SK[s, a] = math.exp(moved_SK[s, a])
    total, tokens = 0.0, 0
    for p in range(len(length_P)):
        tokens += length_P[p]
        for step in range(length_P[p]):
            skill = skills_PL[p, step]
            growth, mean = 0.0, 0.0
            for a in range(actions):
                growth += old_PLK[p, step, a] * growth_SK[skill, a]
                mean += old_PLK[p, step, a] * moved_SK[skill, a]
            total += math.log(growth) - mean
    return total / tokens


@njit(cache=True, nogil=True, error_model="numpy")
def majority(pi_PLK, length_P, right_PL, uniform_PNL, score_P):
    """1 if the right answer is the most frequent of N sampled ones, 1/m if m answers share first place, else 0.

    An answer is the whole tuple of actions, so wrong rollouts agree only when all their actions do.
    """
    actions, samples = pi_PLK.shape[2], uniform_PNL.shape[1]
    answer_N = np.empty(samples, np.int64)
    for p in range(len(length_P)):
        truth = 0
        for step in range(length_P[p]):
            truth = truth * actions + right_PL[p, step]
        for n in range(samples):
            answer = 0
            for step in range(length_P[p]):
                answer = answer * actions + draw(pi_PLK[p, step], uniform_PNL[p, n, step])
            answer_N[n] = answer
        right, best, winners = 0, 0, 0
        for n in range(samples):
            votes, seen = 0, False
            for m in range(samples):
                if answer_N[m] == answer_N[n]:
                    votes += 1
                    seen = seen or m < n
            if seen:
                continue
            if answer_N[n] == truth:
                right = votes
            if votes > best:
                best, winners = votes, 1
            elif votes == best:
                winners += 1
        score_P[p] = 1.0 / winners if right == best else 0.0
