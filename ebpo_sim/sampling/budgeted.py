"""A budget of rollouts dealt to a batch's prompts one by one, each to where it is worth most: unequal groups."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from ebpo_sim.errors import InputError
from ebpo_sim.estimators.memory import State
from ebpo_sim.numbers import Array
from ebpo_sim.part import Draw
from ebpo_sim.sampling.base import Ask, Ints, Plan, Pool
from ebpo_sim.sampling.orders import Order
from ebpo_sim.sampling.recall import PassRates, Weighing


def dealt(gain_PN: Array, rate_P: Array, total: int, least: int) -> Ints:
    """Sizes of `total` rollouts, each prompt `least` and then those of the largest gains; gain_PN: of the next rollout
    after least, least + 1, ..., falling along N (so that no other sizes are worth more). Of equal gains the prompts of
    the lowest rate come first, one each in turn."""
    count, more = gain_PN.shape
    row_M, place_M = np.repeat(np.arange(count), more), np.tile(np.arange(more), count)
    best = np.lexsort((row_M, place_M, rate_P[row_M], -gain_PN.ravel()))[: total - least * count]
    return least + np.bincount(row_M[best], minlength=count)


@dataclass(frozen=True)
class _Budgeted(ABC, PassRates):
    """The prompts of the shuffled epochs, Ask.prompts x Ask.group_size rollouts in all, from `least` to `most` each."""

    most: int = 128

    least = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.most < self.least:
            raise InputError(f"most must be at least {self.least}, got {self.most}: 128 is Knapsack RL's")

    @abstractmethod
    def gains(self, rate_P1: Array, size_N: Array) -> Array:
        """What a rollout after `size` of them is worth, (P, N), falling in the size."""

    def sizes(self, rate_P: Array, group_size: int) -> Ints:
        """Rollouts of each prompt. Raises InputError for a mean group size outside [least, most]."""
        if not self.least <= group_size <= self.most:
            raise InputError(
                f"{type(self).__name__} deals {self.least} to {self.most} rollouts: set a group size in between, got "
                f"{group_size}"
            )
        gain_PN = self.gains(rate_P[:, None], np.arange(self.least, self.most, dtype=np.float64))
        return dealt(gain_PN, rate_P, group_size * len(rate_P), self.least)

    def plan(self, state: State, pool: Pool, ask: Ask, draw: Draw) -> Plan:
        """The epochs' prompts with sizes of their own."""
        prompt_P = Order().plan((), pool, ask, draw).prompt_P
        size_P = self.sizes(self.rates(state, pool)[prompt_P], ask.group_size)
        return Plan(prompt_P, size_P, ask.group_size / size_P if self.weights == "unbiased" else None)

    def objective(self, state: State, pool: Pool, ask: Ask) -> Array:
        """See `recall`: size/G with the whole pool as one batch, the limit of large ones; 1 where weighted."""
        if self.weights == "unbiased":
            return np.ones(pool.count)
        return self.sizes(self.rates(state, pool), ask.group_size) / ask.group_size


@dataclass(frozen=True)
class Knapsack(_Budgeted):
    """Sizes n_i of the largest sum of V(n, p) = [1 - p^n - (1-p)^n] p (1-p)^2, the chance of a live group times what
    it is worth; sum n_i = Ask.prompts x Ask.group_size, 2 <= n_i <= most.

    V is concave in n, so that dealing by V(n+1, p) - V(n, p) = (p^n (1-p) + (1-p)^n p) p (1-p)^2 is the optimum. p: the
    memory's mean; the paper's is the rate of the last epoch, and what no V wants goes to p = 0. 2 and 128: the paper's.
    omega_i = E n_i/G, largest for hard prompts; "unbiased" weighs by G/n_i, as the mean of prompts' means does.
    Source: Knapsack RL, arXiv 2509.25849.
    """

    def gains(self, rate_P1: Array, size_N: Array) -> Array:
        """V(n + 1, p) - V(n, p)."""
        miss_P1 = 1 - rate_P1
        return np.asarray((rate_P1**size_N * miss_P1 + miss_P1**size_N * rate_P1) * rate_P1 * miss_P1**2)


@dataclass(frozen=True)
class LeastVariance(_Budgeted):
    """Sizes of the least sum of p_i (1 - p_i)/(n_i - 1), 2 <= n_i <= most: the gradient's variance under RLOO if all
    scores have one norm, each prompt's mean counted once.

    The allocation of VIP (arXiv 2602.01601), whose p are a Gaussian process of prompt embeddings; here they are the
    memory's, so this is a name of ours. n_i - 1 is about proportional to sqrt(p (1 - p)). Convex, so that dealing by
    p (1 - p) (1/(n - 1) - 1/n) is the optimum. weights: "unbiased", G/n_i, is the paper's mean of means: omega = 1.
    """

    weights: Weighing = "unbiased"

    def gains(self, rate_P1: Array, size_N: Array) -> Array:
        """p (1 - p)/(n (n - 1))."""
        return np.asarray(rate_P1 * (1 - rate_P1) / (size_N * (size_N - 1)))
