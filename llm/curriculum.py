"""In which order prompts are met: a pure function of the step, so a resumed run meets the same ones."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ebpo_sim.errors import InputError
from llm.tasks import Problem

Order = Literal["shuffled", "topic", "easy_to_hard"]
ORDERS: tuple[Order, ...] = ("shuffled", "topic", "easy_to_hard")
WINDOW = 0.25  # share of the ranked pool that an easy-to-hard batch is drawn from


@dataclass(frozen=True)
class Curriculum:
    """`batch(step)` gives `prompts` distinct problems of the pool.

    order: "shuffled" walks through a new permutation of the pool every epoch; "topic" does so within one topic a
    batch, topics in rotation; "easy_to_hard" draws from a window that slides over the pool ranked by measured pass
    rate. ranking: indices of the pool from easiest to hardest, needed for that order only.
    Raises InputError for an unknown order, and for batches larger than what they are drawn from.
    """

    order: Order
    pool: Sequence[Problem]
    prompts: int
    steps: int
    seed: int
    ranking: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise InputError(f"--order must be one of {', '.join(ORDERS)}, got {self.order!r}")
        if self.order == "easy_to_hard" and sorted(self.ranking) != list(range(len(self.pool))):
            raise InputError("order easy_to_hard needs a ranking of the whole pool")
        smallest = largest_batch(self.order, self.pool)
        if not 1 <= self.prompts <= smallest:
            raise InputError(
                f"--prompts must be between 1 and {smallest}, the smallest set a batch is drawn from, "
                f"got {self.prompts}: lower it, name a larger data set, or for generated problems raise --per-cell"
            )

    def batch(self, step: int) -> list[Problem]:
        """The problems of a step, counted from 0."""
        if self.order == "easy_to_hard":
            start = round((len(self.pool) - self._window()) * step / max(1, self.steps - 1))
            window = self.ranking[start : start + self._window()]
            return [self.pool[i] for i in random.Random(f"{self.seed} window {step}").sample(window, self.prompts)]
        streams = self._streams()
        which, turn = step % len(streams), step // len(streams)
        per_epoch = len(streams[which]) // self.prompts  # whole batches only, so none meets a prompt twice
        epoch, place = divmod(turn, per_epoch)
        order = list(streams[which])
        random.Random(f"{self.seed} {which} epoch {epoch}").shuffle(order)
        return [self.pool[i] for i in order[place * self.prompts : (place + 1) * self.prompts]]

    def _window(self) -> int:
        return min(len(self.pool), max(self.prompts, round(WINDOW * len(self.pool))))

    def _streams(self) -> list[list[int]]:
        return _streams(self.order, self.pool)


def _streams(order: Order, pool: Sequence[Problem]) -> list[list[int]]:
    if order != "topic":
        return [list(range(len(pool)))]
    topics = list(dict.fromkeys(p.cell.topic for p in pool))
    return [[i for i, p in enumerate(pool) if p.cell.topic == topic] for topic in topics]


def largest_batch(order: Order, pool: Sequence[Problem]) -> int:
    """The most distinct prompts that every batch of this order can have."""
    return min(map(len, _streams(order, pool)))


def rank(pass_rates: Sequence[float]) -> tuple[int, ...]:
    """Indices from the highest pass rate to the lowest, ties in the order given."""
    return tuple(sorted(range(len(pass_rates)), key=lambda i: -pass_rates[i]))
