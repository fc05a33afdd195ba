"""Monte Carlo: the real estimators, fed a stream of T batches of M prompts, transient included.

All estimators see the same stream (paired). A batch is kept as G+1 numbers of groups with sums of p and p^2,
exact sufficient statistics of any exchangeable estimator and of its squared error, so memory does not grow
with the number of groups. Each replicate has its own seed and generators: results do not depend on the number
of threads, nor on which other worlds or group sizes are simulated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ebpo_sim.errors import InputError
from ebpo_sim.estimators import Estimator, baseline_table
from ebpo_sim.groups import Groups, count_groups
from ebpo_sim.numbers import Array
from ebpo_sim.worlds import World

CHUNK = 1 << 16  # prompts drawn at a time: bounds memory, and fits the second-level cache


class Design(NamedTuple):
    """Size of a simulation: `steps` batches of `prompts` prompts, the first `burn_in` unscored, `replicates` times."""

    prompts: int = 4096
    steps: int = 8
    burn_in: int = 4
    replicates: int = 64
    seed: int = 0

    def check(self) -> None:
        """Raises InputError unless every size is possible; two replicates are needed for a standard error."""
        for name, low in (("prompts", 1), ("steps", 1), ("burn_in", 0), ("replicates", 2), ("seed", 0)):
            value = getattr(self, name)
            if value < low:
                raise InputError(f"{name} must be at least {low}, got {value!r}")
        if self.burn_in >= self.steps:
            raise InputError(
                f"burn_in must be below steps, got {self.burn_in} of {self.steps}: no batch would be scored"
            )


class Mean(NamedTuple):
    """A Monte Carlo mean over replicates and its standard error."""

    value: float
    se: float

    def columns(self, name: str) -> dict[str, float | None]:
        """The two in a row of a table; None for NaN, a quantity that does not exist."""
        return {
            name: None if np.isnan(self.value) else self.value,
            f"{name}_se": None if np.isnan(self.se) else self.se,
        }


def stream_seed(seed: int, world: str, group_size: int) -> np.random.SeedSequence:
    """The seed of one (world, group size) cell, by name, so that cells do not depend on one another."""
    digest = hashlib.sha256(f"{world}|{group_size}".encode()).digest()
    return np.random.SeedSequence([seed, *np.frombuffer(digest[:16], dtype=np.uint32).tolist()])


def words_of(seed: np.random.SeedSequence) -> NDArray[np.uint64]:
    """The state that the compiled rollouts advance."""
    from ebpo_sim.counts.kernels import STATE_WORDS  # numba only where something is drawn: --help does without

    return seed.generate_state(STATE_WORDS, np.uint64).astype(np.uint64)


def generators(seed: np.random.SeedSequence) -> tuple[np.random.Generator, NDArray[np.uint64]]:
    """(of the prompts, of the rollouts) of a replicate."""
    prompts, rollouts = seed.spawn(2)
    return np.random.Generator(np.random.PCG64DXSM(prompts)), words_of(rollouts)


def batch_sums(
    world: World, group_size: int, prompts: int, rng: np.random.Generator, words: NDArray[np.uint64]
) -> Array:
    """One batch as (3, G+1) sums over its groups with k successes: count, sum of p, sum of p^2.

    `rng` draws the prompts, `words` (advanced in place) the rollouts.
    """
    from ebpo_sim.counts.kernels import draw_and_tally

    sums = np.zeros((3, group_size + 1))
    for start in range(0, prompts, CHUNK):
        draw_and_tally(world.sample(rng, min(CHUNK, prompts - start)), group_size, words, sums)
    return sums


def simulate_stream(world: World, group_size: int, design: Design, threads: int = 1) -> Array:
    """All batches of all replicates, shape (replicates, steps, 3, G+1); see `batch_sums`."""
    design.check()
    if group_size < 1:
        raise InputError(f"group_size must be at least 1, got {group_size!r}")
    seeds = stream_seed(design.seed, world.name, group_size).spawn(design.replicates)

    def one(seed: np.random.SeedSequence) -> Array:
        rng, words = generators(seed)
        return np.stack([batch_sums(world, group_size, design.prompts, rng, words) for _ in range(design.steps)])

    with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
        return np.stack(list(pool.map(one, seeds)))


def squared_error(table: Array, sums: Array, group_size: int) -> Array:
    """Mean of (b - p)^2 over a batch's rollouts, for a table (..., G+1, 2) and sums (..., 3, G+1)."""
    share = np.arange(group_size + 1) / group_size
    first = (1 - share) * table[..., 0] + share * table[..., 1]
    second = (1 - share) * table[..., 0] ** 2 + share * table[..., 1] ** 2
    count, p, p2 = sums[..., 0, :], sums[..., 1, :], sums[..., 2, :]
    return np.asarray(np.sum(count * second - 2 * first * p + p2, axis=-1) / np.sum(count, axis=-1))


def walk(estimator: Estimator, stream: Array, group_size: int, burn_in: int) -> Iterator[tuple[Any, Groups, Array]]:
    """The estimator's walk through a stream in its own order, all replicates in step.

    Yields (state, batch, sums) for every scored batch, the state as the estimator would score with it.
    """
    state = estimator.init()
    for step in range(stream.shape[1]):
        sums = stream[:, step]
        batch = count_groups(group_size, sums[:, 0])
        scoring, state = estimator.turn(state, batch)
        if step >= burn_in:
            yield scoring, batch, sums


def stream_errors(estimator: Estimator, stream: Array, group_size: int, burn_in: int) -> Array:
    """The estimator's squared error on every scored batch, shape (replicates, steps - burn_in)."""
    errors = [
        squared_error(baseline_table(estimator, state, group_size), sums, group_size)
        for state, _, sums in walk(estimator, stream, group_size, burn_in)
    ]
    return np.broadcast_to(np.stack(errors, axis=-1), (stream.shape[0], len(errors)))


def stream_shrinkage(estimator: Estimator, stream: Array, group_size: int, burn_in: int) -> Array:
    """The mean shrinkage weight of each replicate over its scored batches; NaN where the rule is not a line."""
    weights = []
    for state, batch, _ in walk(estimator, stream, group_size, burn_in):
        evaluation = estimator.baseline_of(state, batch)
        if evaluation is None or evaluation.shrinkage_P is None:
            return np.full(stream.shape[0], np.nan)
        weights.append(np.broadcast_to(evaluation.shrinkage_P.mean(axis=-1), stream.shape[:1]))
    return np.asarray(np.mean(weights, axis=0))


def simulate_errors(
    world: World,
    group_size: int,
    estimators: Sequence[Estimator],
    design: Design,
    threads: int = 1,
    progress: Callable[[], None] = lambda: None,
) -> list[Array]:
    """`stream_errors` of every estimator on one common stream; `progress` is called after each estimator."""
    stream = simulate_stream(world, group_size, design, threads)
    found: dict[Hashable, Array] = {}
    for estimator in estimators:
        if estimator.learns not in found:
            found[estimator.learns] = stream_errors(estimator, stream, group_size, design.burn_in)
        progress()
    return [found[e.learns] for e in estimators]


def mean_with_error(values_R: Array) -> Mean:
    """Mean over replicates and standard deviation / sqrt(R)."""
    return Mean(float(np.mean(values_R)), float(np.std(values_R, ddof=1) / np.sqrt(len(values_R))))


def paired_ratio(numerator_R: Array, denominator_R: Array) -> Mean:
    """mean(numerator)/mean(denominator) over paired replicates; delta-method standard error of the pairs."""
    bottom = float(np.mean(denominator_R))
    if bottom == 0:
        return Mean(float("nan"), float("nan"))
    ratio = float(np.mean(numerator_R)) / bottom
    residual = numerator_R - ratio * denominator_R
    return Mean(ratio, float(np.std(residual, ddof=1) / np.sqrt(len(residual)) / abs(bottom)))
