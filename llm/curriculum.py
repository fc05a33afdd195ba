"""The training problems as the pool that allocations choose from; an allocation is a pure function of its memory and
the step, so a resumed run meets the same problems."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ebpo_sim.errors import InputError
from ebpo_sim.methods import step as methods
from ebpo_sim.methods.step import State
from ebpo_sim.sampling import Allocation, Ask, Order, Plan, Pool
from llm.tasks import Problem

SHUFFLED = Order()
OLD_NAMES = {"topic": "alternating"}  # what this rung once called an order


@dataclass(frozen=True)
class Curriculum:
    """Which problems a step gets, and how many answers each.

    rates: each problem's pass rate before training, for orders by difficulty. Raises InputError for batches larger
    than the pool.
    """

    problems: Sequence[Problem]
    prompts: int
    group_size: int
    steps: int
    seed: int
    allocation: Allocation = SHUFFLED
    rates: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.prompts <= len(self.problems):
            raise InputError(
                f"--prompts must be between 1 and {len(self.problems)}, the training problems there are, got "
                f"{self.prompts}: lower it, name a larger data set, or for generated problems raise --per-cell"
            )

    @cached_property
    def pool(self) -> Pool:
        """The problems as allocations see them: topics by number, in order of appearance."""
        number = {topic: i for i, topic in enumerate(dict.fromkeys(p.cell.topic for p in self.problems))}
        cluster_P = np.array([number[p.cell.topic] for p in self.problems])
        rate_P = None if self.rates is None else np.array(self.rates)
        return Pool(len(self.problems), cluster_P, rate_P, tuple(p.id for p in self.problems))

    def ask(self, step: int) -> Ask:
        """What is planned for a step, counted from 0."""
        return Ask(step, self.steps, self.prompts, self.group_size)

    def plan(self, state: State, step: int, attempt: int = 0) -> Plan:
        """One generation batch: numbers of problems and answers of each."""
        return methods.plan(self.allocation, state, self.pool, self.ask(step)._replace(attempt=attempt), self.seed)

    def batch(self, step: int) -> list[Problem]:
        """The problems of a step, of an allocation without a memory."""
        return [self.problems[i] for i in self.plan(State(), step).prompt_P]
