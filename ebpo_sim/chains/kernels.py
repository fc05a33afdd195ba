# mypy: disallow-untyped-defs=False, disallow-untyped-decorators=False, disallow-incomplete-defs=False
# mypy: disallow-untyped-calls=False
"""The compiled loops of training: rollouts, log-probabilities, pushes to gradients, optimiser steps, majority votes.

They know no method: what pushes a token is decided by `ebpo_sim.objectives`, in arrays.

All are plain loops in a fixed order over float64, without reassociation, so that the twin in
tests/naive_training.py gives the same bits. Random numbers are handed in.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

BETA1, BETA2, ADAM_EPS = 0.9, 0.999, 1e-8


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
def distributions(theta_SK, skills_PL, length_P, boost_PL, right_PL, index_R, pi_PLK):
    """Every step's distribution of the prompts index_R, written to pi_PLK; 1 on padding. boost = exp(offset)."""
    table_SK = np.empty_like(theta_SK)
    exponentials(theta_SK, table_SK)
    for p in index_R:
        for step in range(length_P[p]):
            softmax_step(table_SK, skills_PL[p, step], boost_PL[p, step], right_PL[p, step], pi_PLK[p, step])
        pi_PLK[p, length_P[p] :] = 1.0


@njit(cache=True, nogil=True, error_model="numpy")
def draw(pi_K, u):
    """The action a with u in [cumulative before a, cumulative after a); the last possible one takes what rounding
    leaves, so an action of probability 0 is never drawn."""
    cumulative = 0.0
    for a in range(len(pi_K)):
        cumulative += pi_K[a]
        if u < cumulative:
            return a
    a = len(pi_K) - 1
    while a > 0 and pi_K[a] <= 0:
        a -= 1
    return a


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
def token_log_probs(pi_PLK, length_P, actions_PGL, index_R, first_R, by_rollout, by_step, log_prob_M):
    """log pi of every drawn action of the prompts index_R, nats, written to its place in log_prob_M.

    Here and below the token of rollout g and step l of prompt index_R[i] stands at first_R[i] + g by_rollout +
    l by_step, counted from first_R[0]; padding is left alone.
    """
    for i in range(len(index_R)):
        p, first = index_R[i], first_R[i] - first_R[0]
        for step in range(length_P[p]):
            for g in range(actions_PGL.shape[1]):
                a = actions_PGL[p, g, step]
                log_prob_M[first + g * by_rollout + step * by_step] = math.log(pi_PLK[p, step, a])


@njit(cache=True, nogil=True, error_model="numpy")
def move(
    theta_SK, skills_PL, length_P, boost_PL, right_PL, actions_PGL, index_R, first_R, by_rollout, by_step, old_M,
    pi_PLK, log_prob_M, ratio_M,
):  # fmt: skip
    """`distributions` and `token_log_probs` at theta, and log_prob_M - old_M written to ratio_M; returns the largest in
    size of these."""
    distributions(theta_SK, skills_PL, length_P, boost_PL, right_PL, index_R, pi_PLK)
    token_log_probs(pi_PLK, length_P, actions_PGL, index_R, first_R, by_rollout, by_step, log_prob_M)
    largest = 0.0
    for i in range(len(ratio_M)):
        ratio_M[i] = log_prob_M[i] - old_M[i]
        largest = max(largest, abs(ratio_M[i]))
    return largest


@njit(cache=True, nogil=True, error_model="numpy")
def place(values_PG, length_P, index_R, first_R, by_rollout, by_step, values_M):
    """Every rollout's value, written to the places of its tokens."""
    for i in range(len(index_R)):
        p, first = index_R[i], first_R[i] - first_R[0]
        for step in range(length_P[p]):
            for g in range(values_PG.shape[1]):
                values_M[first + g * by_rollout + step * by_step] = values_PG[p, g]


@njit(cache=True, nogil=True, error_model="numpy")
def token_entropies(pi_PLK, length_P, rollouts, index_R, first_R, by_rollout, by_step, entropy_M):
    """The entropy of every live step's distribution, nats, written to the places of all its rollouts in entropy_M."""
    for i in range(len(index_R)):
        p, first = index_R[i], first_R[i] - first_R[0]
        for step in range(length_P[p]):
            entropy = 0.0
            for a in range(pi_PLK.shape[2]):
                if pi_PLK[p, step, a] > 0:
                    entropy -= pi_PLK[p, step, a] * math.log(pi_PLK[p, step, a])
            for g in range(rollouts):
                entropy_M[first + g * by_rollout + step * by_step] = entropy


@njit(cache=True, nogil=True, error_model="numpy")
def scatter(
    pi_PLK, skills_PL, length_P, actions_PGL, index_R, first_R, by_rollout, by_step, push_M, alpha_P, gradient_SK
):  # fmt: skip
    """sum over tokens of w grad log pi(action), w = push alpha, written to gradient_SK: w at it, -w pi at all."""
    actions = gradient_SK.shape[1]
    gradient_SK[:] = 0.0
    pulled_K = np.empty(actions)
    for i in range(len(index_R)):
        p, first = index_R[i], first_R[i] - first_R[0]
        for step in range(length_P[p]):
            skill = skills_PL[p, step]
            pulled_K[:] = 0.0
            total = 0.0
            for g in range(actions_PGL.shape[1]):
                push = push_M[first + g * by_rollout + step * by_step] * alpha_P[p]
                pulled_K[actions_PGL[p, g, step]] += push
                total += push
            for a in range(actions):
                gradient_SK[skill, a] += pulled_K[a] - pi_PLK[p, step, a] * total


@njit(cache=True, nogil=True, error_model="numpy")
def scatter_entropy(
    pi_PLK, skills_PL, length_P, rollouts, index_R, first_R, by_rollout, by_step, push_M, alpha_P, gradient_SK
):  # fmt: skip
    """sum over tokens of w grad H(step's distribution), w = push alpha, added to gradient_SK: -w pi (log pi + H)."""
    for i in range(len(index_R)):
        p, first = index_R[i], first_R[i] - first_R[0]
        for step in range(length_P[p]):
            total, entropy = 0.0, 0.0
            for g in range(rollouts):
                total += push_M[first + g * by_rollout + step * by_step] * alpha_P[p]
            for a in range(gradient_SK.shape[1]):
                if pi_PLK[p, step, a] > 0:
                    entropy -= pi_PLK[p, step, a] * math.log(pi_PLK[p, step, a])
            for a in range(gradient_SK.shape[1]):
                pi = pi_PLK[p, step, a]
                if pi > 0:
                    gradient_SK[skills_PL[p, step], a] -= total * pi * (math.log(pi) + entropy)


@njit(cache=True, nogil=True, error_model="numpy")
def optimiser_step(theta_SK, first_SK, second_SK, count, gradient_SK, adam, learning_rate):
    """One step of ascent in place: SGD, or Adam's update number `count` (from 1), betas 0.9 and 0.999, eps 1e-8;
    returns the gradient's norm."""
    square = 0.0
    debias1, debias2 = 1 - math.pow(BETA1, float(count)), 1 - math.pow(BETA2, float(count))
    for s in range(theta_SK.shape[0]):
        for a in range(theta_SK.shape[1]):
            g = gradient_SK[s, a]
            square += g * g
            if adam:
                first_SK[s, a] = BETA1 * first_SK[s, a] + (1 - BETA1) * g
                second_SK[s, a] = BETA2 * second_SK[s, a] + (1 - BETA2) * (g * g)
                theta_SK[s, a] += (
                    learning_rate * (first_SK[s, a] / debias1) / (math.sqrt(second_SK[s, a] / debias2) + ADAM_EPS)
                )
            else:
                theta_SK[s, a] += learning_rate * g
    return math.sqrt(square)


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
