"""The orders in which prompts are met, the same on every rung: equal groups, every prompt equally often.

shuffled                     epochs, each a new permutation of the pool
blocked                      topic after topic, in a random order of topics
alternating                  the blocked batches, spread so that each topic recurs evenly
easy_to_hard, hard_to_easy   by the pass rate before training, in 16 bands
uniform                      each batch a fresh draw of distinct prompts, without epochs

All but `uniform` present the same prompts: those of the shuffled epochs, stably sorted, so within a block they stay
shuffled, and a batch over a border holds both blocks. blocked and alternating differ in what a running mean makes of
them (`worlds/topics.py`), so they are two names.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ebpo_sim.errors import InputError
from ebpo_sim.numbers import Array
from ebpo_sim.part import Draw, Need, Stateless
from ebpo_sim.sampling.base import Ask, Ints, Plan, Pool

Kind = Literal["shuffled", "blocked", "alternating", "easy_to_hard", "hard_to_easy", "uniform"]
BY_DIFFICULTY = ("easy_to_hard", "hard_to_easy")
ORDERS: tuple[Kind, ...] = get_args(Kind)
BANDS = 16  # difficulty is a pass rate over 16 rollouts in the paper
STREAM = 10  # what keeps these numbers apart from the others of a seed


@dataclass(frozen=True)
class Order(Stateless):
    """An allocation that gives every prompt Ask.group_size rollouts, in the order `kind`."""

    kind: Kind = "shuffled"

    @property
    def needs(self) -> frozenset[Need]:  # type: ignore[override]
        """Prompts to choose, and for difficulty what they were passed at."""
        return frozenset({"prompt_choice", "pass_rates"} if self.kind in BY_DIFFICULTY else {"prompt_choice"})

    def plan(self, state: object, pool: Pool, ask: Ask, draw: Draw) -> Plan:
        """Row `ask.step` of the run's order; a further attempt takes a neighbouring batch of another shuffling.

        Raises InputError for a batch of `uniform` larger than the pool, and for an order by difficulty where no pass
        rate was measured.
        """
        if self.kind == "uniform":
            if ask.prompts > pool.count:
                raise InputError(f"uniform draws distinct prompts: {pool.count} of them give no batch of {ask.prompts}")
            prompt_P = draw._replace(purpose=f"{draw.purpose} {ask.attempt}").generator().permutation(pool.count)
            return Plan(prompt_P[: ask.prompts], np.full(ask.prompts, ask.group_size))
        row = (ask.step + ask.attempt) % max(1, 2 * ask.steps - 2)  # back and forth over the run
        row = min(row, 2 * ask.steps - 2 - row) if ask.steps > 1 else 0
        prompt_P = stream(pool, self.kind, ask.prompts, ask.steps, draw.seed, ask.attempt)[row]
        return Plan(prompt_P, np.full(ask.prompts, ask.group_size))

    def objective(self, state: object, pool: Pool, ask: Ask) -> Array:
        """The weights of the objective that is climbed (`recall`): over an epoch every prompt counts alike."""
        return np.ones(pool.count)


@lru_cache(maxsize=16)
def stream(pool: Pool, kind: Kind, prompts: int, steps: int, seed: int, attempt: int = 0) -> Ints:
    """The prompt of every place in every batch, shape (steps, prompts); another attempt is another such stream."""
    rng = np.random.default_rng([seed, STREAM, attempt] if attempt else [seed, STREAM])
    wanted = steps * prompts
    shuffled = np.concatenate([rng.permutation(pool.count) for _ in range(-(-wanted // pool.count))])[:wanted]
    cluster_P = np.zeros(pool.count, dtype=np.int64) if pool.cluster_P is None else pool.cluster_P
    rank_P = rng.permutation(int(cluster_P.max()) + 1)[cluster_P]
    block_P = 0 * rank_P
    if kind in ("blocked", "alternating"):
        block_P = rank_P
    elif kind != "shuffled":
        if pool.rate_P is None:
            raise InputError(f"order {kind} needs the prompts' pass rates before training: measure them, or shuffle")
        band_P = np.rint(BANDS * pool.rate_P).astype(np.int64)
        block_P = -band_P if kind == "easy_to_hard" else band_P
    batches_TP = shuffled[np.argsort(block_P[shuffled], kind="stable")].reshape(steps, prompts)
    if kind == "alternating":
        counts_TK = np.stack([np.bincount(rank_P[batch], minlength=int(rank_P.max()) + 1) for batch in batches_TP])
        batches_TP = batches_TP[spread(counts_TK.argmax(axis=1))]
    return np.asarray(batches_TP)


def spread(main_T: NDArray[np.int64]) -> NDArray[np.intp]:
    """The batches' new sequence in which those of the same main topic lie evenly over the run."""
    rank_T = np.array([np.sum(main_T[:t] == k) for t, k in enumerate(main_T)])
    place_T = (rank_T + 0.5) / np.bincount(main_T)[main_T]
    return np.lexsort((main_T, place_T))
