"""Prompts in proportion to the spread of their rewards, as the memory has it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ebpo_sim.errors import InputError
from ebpo_sim.estimators.memory import State
from ebpo_sim.numbers import Array
from ebpo_sim.part import Draw
from ebpo_sim.sampling.base import Ask, Plan, Pool
from ebpo_sim.sampling.recall import PassRates


@dataclass(frozen=True)
class VarianceProportional(PassRates):
    """Ask.prompts groups of Ask.group_size, each an independent draw of prompt i with probability

        q_i proportional to (p_i (1 - p_i))^power + floor,        p_i the memory's mean.

    power 0.5, floor 0.05: what SPO's public code draws prompts by (arXiv 2509.13232). power=1,floor=0 is the drawn half
    of MMR1's variance-aware sampling (2509.21268) with p from training itself; `variance_aware` has it as p was before.
    omega_i = P q_i: it climbs a mean in which prompts of p = 1/2 weigh most; "unbiased": groups weigh 1/(P q_i).
    """

    power: float = 0.5
    floor: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 <= self.power <= 10 and 0 <= self.floor < np.inf):
            raise InputError(
                f"variance_proportional needs power in [0, 10] and a finite floor of at least 0, got {self.power} and "
                f"{self.floor}: 0.5 and 0.05 are SPO's"
            )

    def chances(self, state: State, pool: Pool) -> Array:
        """q, shape (count,), all above 0."""
        rate_P = self.rates(state, pool)
        score_P = (rate_P * (1 - rate_P)) ** self.power + self.floor
        return np.asarray(score_P / score_P.sum())

    def plan(self, state: State, pool: Pool, ask: Ask, draw: Draw) -> Plan:
        """With replacement: a prompt may come twice."""
        chance_P = self.chances(state, pool)
        rng = np.random.default_rng([draw.number(), ask.attempt])
        prompt_P = rng.choice(pool.count, ask.prompts, p=chance_P)
        weight_P = 1 / (pool.count * chance_P[prompt_P]) if self.weights == "unbiased" else None
        return Plan(prompt_P, np.full(ask.prompts, ask.group_size), weight_P)

    def objective(self, state: State, pool: Pool, ask: Ask) -> Array:
        """See `recall`: P q, exact."""
        return np.ones(pool.count) if self.weights == "unbiased" else pool.count * self.chances(state, pool)
