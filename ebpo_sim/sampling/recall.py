"""What allocations recall of every prompt of the pool, and what becomes of the objective when they prefer some.

A batch of N rollouts climbs sum_i omega_i p_i, p_i the pass rate of prompt i of P and

    omega_i = (P/N) E[sum of size x weight over the groups of prompt i]         (mean 1 where weights are 1)

if an estimator scores each group by itself and E[sum of its advantages x scores] = size x grad p, as RLOO's and, times
(size - 1)/size, that of rewards less their group's mean. All omega_i = 1: the mean pass rate, which is what is asked
for. With weights="unbiased" each group is weighted by its inverse expected size, so that omega is 1 whatever is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Protocol

import numpy as np

from ebpo_sim import typed
from ebpo_sim.errors import InputError
from ebpo_sim.estimators.memory import Past, PromptMemory, State, check_retention, keys, past
from ebpo_sim.groups import Groups
from ebpo_sim.numbers import Array
from ebpo_sim.part import Need
from ebpo_sim.sampling.base import Ask, Pool

Weighing = Literal["none", "unbiased"]


class Preferring(Protocol):
    """An allocation whose preference is known."""

    def objective(self, state: State, pool: Pool, ask: Ask) -> Array:
        """omega, shape (count,); 1 for all where the part weighs by inverse probability."""


@lru_cache(maxsize=8)
def keys_of(pool: Pool) -> Array:
    """The memory's keys of the pool's prompts."""
    return keys(range(pool.count) if pool.ids is None else pool.ids)


class Recall(PromptMemory):
    """The memory of an allocation: that of the estimators (`estimators/memory.py`), of all rollouts that were drawn."""

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({"prompt_ids", "prompt_choice"})

    def of_pool(self, state: State, pool: Pool) -> Past:
        """What the state holds of each prompt of the pool."""
        return past(state, keys_of(pool), self.retention, self.clock)


@dataclass(frozen=True)
class PassRates(Recall):
    """Beta(alpha, beta) of every prompt's pass rate: alpha = prior + successes, beta = prior + failures, and what was
    seen keeps `retention` of itself at each visit, so that it is forgotten towards the prior. Rewards in [0, 1].

    retention: 0.875 is SPO's least (arXiv 2509.13232, its code). prior: above 0; 1 is uniform. weights: "none", or
    "unbiased" by inverse probability. Raises InputError for settings and rewards outside these ranges.
    """

    retention: float = 0.875
    prior: float = 1.0
    weights: Weighing = "none"

    def __post_init__(self) -> None:
        typed.check_fields(self)
        check_retention(self.retention)
        if not 0 < self.prior < np.inf:
            raise InputError(f"prior must be above 0 and finite, got {self.prior!r}: 1 is the uniform one")

    def observe(self, groups: Groups) -> State:
        if np.any((groups.rewards_PG < 0) | (groups.rewards_PG > 1)):
            raise InputError(f"{type(self).__name__} learns pass rates: rewards must lie in [0, 1]: rescale them")
        return super().observe(groups)

    def beta(self, state: State, pool: Pool) -> tuple[Array, Array]:
        """(alpha, beta) of every prompt."""
        n_P, r_P, _ = self.of_pool(state, pool)
        return self.prior + r_P, self.prior + np.maximum(n_P - r_P, 0.0)

    def rates(self, state: State, pool: Pool) -> Array:
        """The posterior mean alpha/(alpha + beta) of every prompt."""
        alpha_P, beta_P = self.beta(state, pool)
        return alpha_P / (alpha_P + beta_P)
