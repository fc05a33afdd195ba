"""Prompts by independent random ranks: the lowest are taken, and what that makes likely is known.

Rank D_i has the distribution F_i; the M lowest of P ranks are the batch, tau the next. Given the ranks of the others, i
is in the batch iff D_i < tau, with probability F_i(tau); so each of the batch weighted by M/(P F_i(tau)) gives the mean
over the pool without bias, whatever the F_i (Duffield, Lund and Thorup 2007, "Priority sampling").
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from ebpo_sim.errors import InputError
from ebpo_sim.numbers import Array
from ebpo_sim.part import Draw
from ebpo_sim.sampling.base import Ask, Plan, Pool
from ebpo_sim.sampling.recall import Weighing

HALVINGS = 40  # of the interval in which the typical tau lies


class Ranked(ABC):
    """The plan of an allocation by ranks; the dataclass that inherits has its memory and `weights`."""

    weights: Weighing

    @abstractmethod
    def ranks(self, known: Any, rng: np.random.Generator) -> Array:
        """D of every prompt; `known`: of `knowledge`."""

    @abstractmethod
    def below(self, known: Any, tau: float) -> Array:
        """F(tau) of every prompt, increasing, 0 at 0 and 1 at `highest`."""

    @abstractmethod
    def knowledge(self, state: Any, pool: Pool) -> Any:
        """What ranks depend on."""

    highest: float = 2.0

    def plan(self, state: Any, pool: Pool, ask: Ask, draw: Draw) -> Plan:
        """Ask.prompts distinct prompts of Ask.group_size rollouts. Raises InputError for a batch above the pool."""
        if ask.prompts > pool.count:
            raise InputError(
                f"{type(self).__name__} draws distinct prompts: {pool.count} of them give no batch of {ask.prompts}"
            )
        known, rng = self.knowledge(state, pool), np.random.default_rng([draw.number(), ask.attempt])
        rank_P = self.ranks(known, rng)
        order_P = np.argsort(rank_P, kind="stable")
        prompt_P, weight_P = order_P[: ask.prompts], None
        if self.weights == "unbiased":
            tau = self.highest if ask.prompts == pool.count else float(rank_P[order_P[ask.prompts]])
            weight_P = ask.prompts / (pool.count * self.below(known, tau)[prompt_P])
        return Plan(prompt_P, np.full(ask.prompts, ask.group_size), weight_P)

    def objective(self, state: Any, pool: Pool, ask: Ask) -> Array:
        """See `recall`: (P/M) F(tau) at the tau of sum F(tau) = M, the limit of large pools; 1 where weighted."""
        if self.weights == "unbiased" or ask.prompts >= pool.count:
            return np.ones(pool.count)
        known, low, high = self.knowledge(state, pool), 0.0, self.highest
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            few = self.below(known, middle).sum() < ask.prompts
            low, high = (middle, high) if few else (low, middle)
        found_P = self.below(known, high)
        return np.asarray(pool.count * found_P / found_P.sum())
