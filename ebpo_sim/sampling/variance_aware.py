"""Variance-aware sampling: part of every batch is drawn in proportion to the variance of a prompt's reward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ebpo_sim.errors import InputError
from ebpo_sim.numbers import Array
from ebpo_sim.part import Draw, Need, Stateless
from ebpo_sim.sampling.base import Ask, Plan, Pool


@dataclass(frozen=True)
class VarianceAware(Stateless):
    """floor(share * prompts) of a batch with replacement in proportion to p (1 - p), the others uniformly; p: the pass
    rate before training.

    The paper's score adds 0.2 of the answers' diversity to 0.8 p (1 - p) and measures p again every 35 steps; the
    released configuration has no diversity, and here p is measured once. Where every p is 0 or 1 all are uniform.
    Source: MMR1, arXiv 2509.21268.
    """

    share: float = 0.5

    needs: ClassVar[frozenset[Need]] = frozenset({"prompt_choice", "pass_rates"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.share <= 1:
            raise InputError(f"variance_aware share must lie in [0, 1], got {self.share}: 0.5 is the paper's")

    def plan(self, state: object, pool: Pool, ask: Ask, draw: Draw) -> Plan:
        """Ask.group_size rollouts of every prompt drawn. Raises InputError where no pass rate was measured."""
        if pool.rate_P is None:
            raise InputError("variance_aware needs the prompts' pass rates: measure them before training, or uniform")
        rng = np.random.default_rng([draw.number(), ask.attempt])
        aware, chance_P = self._aware(pool.rate_P * (1 - pool.rate_P), ask)
        drawn = rng.choice(pool.count, aware, p=chance_P), rng.integers(pool.count, size=ask.prompts - aware)
        return Plan(np.concatenate(drawn), np.full(ask.prompts, ask.group_size))

    def objective(self, state: object, pool: Pool, ask: Ask) -> Array:
        """See `recall`: of the draws in proportion and of the uniform ones, exact. InputError as in `plan`."""
        if pool.rate_P is None:
            raise InputError("variance_aware needs the prompts' pass rates: measure them before training, or uniform")
        aware, chance_P = self._aware(pool.rate_P * (1 - pool.rate_P), ask)
        plain_P = np.full(pool.count, 1 - aware / ask.prompts)
        return plain_P if chance_P is None else plain_P + aware / ask.prompts * pool.count * chance_P

    def _aware(self, variance_P: Array, ask: Ask) -> tuple[int, Array | None]:
        """How many are drawn in proportion, and with which chances."""
        aware = int(self.share * ask.prompts) if variance_P.sum() > 0 else 0
        return aware, variance_P / variance_P.sum() if aware else None
