"""Exact expected policy updates: what an estimator's advantages do to softmax policies, to first order.

A prompt is a softmax bandit of `arms` arms, one of them right with probability p, the wrong ones sharing 1 - p
equally. Advantages depend on the group only through k of G rewarded and the own reward r, so everything an
update does to a prompt in expectation is a sum over k. Batches are large: their mean and scale are the limit's.

    delta(p) = E[A | r=1] - E[A | r=0],   E[A grad log pi] = delta(p) grad p.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import xlogy

from ebpo_sim.counts.exact import POPULATION, count_distribution, limit_state
from ebpo_sim.errors import InputError
from ebpo_sim.estimators import Estimator, baseline_table
from ebpo_sim.groups import Groups, count_groups
from ebpo_sim.numbers import Array
from ebpo_sim.numbers.mixing import count_pmf
from ebpo_sim.worlds import World


class Rates(NamedTuple):
    """First-order change per unit of learning rate, averaged over a world: reward, and policy entropy in nats."""

    reward: float
    entropy: float


def advantages_by_count(estimator: Estimator, state: Any, batch: Groups, group_size: int) -> Array:
    """A[k, r], shape (..., G+1, 2): advantage of a rollout with reward r in a group with k of G, in this batch.

    `batch` is `count_groups(G, multiplicity)`: its composition sets the batch's mean and scale. Cells that
    cannot occur ([0, 1], [G, 0]) repeat their neighbour.
    """
    advantages_PG, _ = estimator.score(state, batch)
    advantages = np.asarray(advantages_PG)
    return np.stack([advantages[..., group_size - 1], advantages[..., 0]], axis=-1)


def limit_advantages(estimator: Estimator, world: World, group_size: int) -> Array:
    """A[k, r] in the long run, for a batch as large as the population."""
    batch = count_groups(group_size, POPULATION * count_distribution(world, group_size))
    return advantages_by_count(estimator, limit_state(estimator, world, group_size), batch, group_size)


def advantage_gap(table: Array, p: ArrayLike) -> Array:
    """delta(p) = sum_k Bin(k; G-1, p) (A[k+1, 1] - A[k, 0]), the own reward apart from the other G-1."""
    group_size = len(table) - 1
    others = count_pmf(np.atleast_1d(p), group_size - 1, np.arange(group_size))
    return np.asarray(others @ (table[1:, 1] - table[:-1, 0]))


def raw_table(estimator: Estimator, here: World, group_size: int) -> Array:
    """A[k, r] = r - b[k, r] in the long run: before any centring and scaling."""
    state = limit_state(estimator, here, group_size)
    return np.array([0.0, 1.0]) - baseline_table(estimator, state, group_size)


def policies(p: ArrayLike, arms: int) -> Array:
    """Probabilities of the arms, shape (J, arms), the right one first."""
    if arms < 2:
        raise InputError(f"arms must be at least 2 (one right, one wrong), got {arms!r}")
    p = np.atleast_1d(np.asarray(p, dtype=np.float64))
    wrong = np.broadcast_to(((1 - p) / (arms - 1))[:, None], (len(p), arms - 1))
    return np.concatenate([p[:, None], wrong], axis=1)


def entropy(pi: Array) -> Array:
    """H = -sum pi log pi, nats, over the last axis."""
    return np.asarray(-np.sum(xlogy(pi, pi), axis=-1))


def entropy_gradient(pi: Array) -> Array:
    """dH/dz_a = -pi_a (log pi_a + H) for softmax logits z."""
    return -(xlogy(pi, pi) + pi * entropy(pi)[..., None])


def success_gradient(pi: Array) -> Array:
    """dp/dz_a = p (1[a right] - pi_a) for softmax logits z, the right arm first."""
    right = np.zeros(pi.shape[-1])
    right[0] = 1.0
    return pi[..., :1] * (right - pi)


def natural_directions(p: ArrayLike, arms: int) -> tuple[Array, Array]:
    """(dp, dH) per unit of delta under the natural policy gradient, each (J,).

    It moves logit a by A(a): dp = p(1-p), dH = -Cov_pi(log pi, r) = -p(1-p)(log p - log of a wrong arm).
    """
    pi = policies(p, arms)
    right = pi[:, 0]
    # p(1-p) log p and p(1-p) log wrong, 0 where p is 0 or 1.
    covariance = (1 - right) * xlogy(right, right) - right * (1 - right) * np.log(np.maximum(pi[:, 1], 1e-300))
    return right * (1 - right), -covariance


def vanilla_directions(p: ArrayLike, arms: int) -> tuple[Array, Array]:
    """(dp, dH) per unit of delta under the vanilla gradient: dp = |grad p|^2, dH = grad H . grad p."""
    pi = policies(p, arms)
    slope = success_gradient(pi)
    return np.sum(slope**2, axis=-1), np.sum(entropy_gradient(pi) * slope, axis=-1)


def adam_directions(table: Array, p: ArrayLike, arms: int) -> tuple[Array, Array]:
    """(dp, dH) per unit of learning rate under Adam's limit E[g]/sqrt(E[g^2]) for each logit (eps 0, no momentum).

    g = (1/G) sum_i A_i (e_{a_i} - pi) of one group a step, exact: given k the right logit's g is fixed, and the
    number of times a wrong arm was drawn is Binomial(G-k, 1/(arms-1)). A logit that never moves stays.
    """
    pi = policies(p, arms)
    group_size = len(table) - 1
    k = np.arange(group_size + 1)
    pmf = count_pmf(pi[:, 0], group_size, k)
    rewarded, failed = table[:, 1], table[:, 0]
    total = k * rewarded + (group_size - k) * failed
    right = (k * rewarded - pi[:, :1] * total) / group_size
    share = 1 / (arms - 1)
    drawn = (group_size - k) * share
    spread = (group_size - k) * share * (1 - share) * failed**2
    wrong_mean = (drawn * failed - pi[:, 1:2] * total) / group_size
    first = np.stack([np.sum(pmf * right, axis=1), np.sum(pmf * wrong_mean, axis=1)], axis=1)
    second_wrong = np.sum(pmf * (wrong_mean**2 + spread / group_size**2), axis=1)
    second = np.stack([np.sum(pmf * right**2, axis=1), second_wrong], axis=1)
    step = np.divide(first, np.sqrt(second), out=np.zeros_like(first), where=second > 0)
    steps = np.concatenate([step[:, :1], np.repeat(step[:, 1:], arms - 1, axis=1)], axis=1)
    return np.sum(success_gradient(pi) * steps, axis=-1), np.sum(entropy_gradient(pi) * steps, axis=-1)


def rates(estimator: Estimator, world: World, group_size: int, arms: int, optimiser: str) -> Rates:
    """Expected first-order change of reward and entropy over the world's prompts, per unit of learning rate."""
    return table_rates(limit_advantages(estimator, world, group_size), world, arms, optimiser)


def table_rates(table: Array, world: World, arms: int, optimiser: str) -> Rates:
    """The same of advantages A[k, r].

    optimiser: "natural", "vanilla" (SGD on the logits) or "adam" (per logit, each prompt its own).
    """
    prior = world.fine()
    p, weights = np.asarray(prior.nodes), np.asarray(prior.weights)
    if optimiser == "adam":
        reward, change = adam_directions(table, p, arms)
    elif optimiser in ("natural", "vanilla"):
        directions = natural_directions if optimiser == "natural" else vanilla_directions
        gap = advantage_gap(table, p)
        reward, change = (gap * d for d in directions(p, arms))
    else:
        raise InputError(f"optimiser must be 'natural', 'vanilla' or 'adam', got {optimiser!r}")
    return Rates(float(weights @ reward), float(weights @ change))


def proof_entropy_ratio(world: World) -> float:
    """EBPO's entropy loss over GRPO's as Proposition 3.6's proof has it: E sigma / sqrt(E sigma^2 + Var p).

    sigma = sqrt(p(1-p)); assumes the covariance of log-probability and reward, divided by sigma, independent
    of sigma. At most 1, and 1 only if sigma is constant and p does not vary.
    """
    prior = world.fine()
    p, weights = np.asarray(prior.nodes), np.asarray(prior.weights)
    return float(weights @ np.sqrt(p * (1 - p)) / np.sqrt(prior.within + prior.between))
