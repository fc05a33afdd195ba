"""The released code in batches of M prompts, whose trackers live for one batch: expectations over the batch.

Its baseline depends on the batch only through s1 = sum k and s2 = sum k^2 over the groups. So the own group's k is
summed over exactly, and only (s1, s2) of the other M - 1 groups is drawn, or summed over too (`exact`). No estimator
object is used here; `claims.instruments` holds this arithmetic to all batches one by one under the plain rule.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ebpo_sim.claims.base import UNTOLD, Case, Context
from ebpo_sim.claims.family import world
from ebpo_sim.counts.exact import count_distribution, rule
from ebpo_sim.counts.streams import Mean, mean_with_error, stream_seed
from ebpo_sim.numbers import Array
from ebpo_sim.numbers.mixing import count_pmf

SIZES = (4, 16, 64, 256)  # prompts a batch
BLOCKS = 16  # of draws, for the standard errors
DRAWS = 16  # a block, at least; four times as many as long as a result is not told from equality
MOST = 1 << 17
CHUNK = 1 << 13  # draws at a time
FLOOR = EPS = 1e-6  # of the released code: S = 1 where v/G + t is no larger; added to the scale


class Batches(NamedTuple):
    """Means over the draws, given the own group's k; (B, G+1), B blocks.

    weight: S. first, second: the baseline and its square. right, wrong: the advantage of a reward 1 and 0.
    """

    weight: Array
    first: Array
    second: Array
    right: Array
    wrong: Array


Effect = Callable[[Batches, str, int], Array]  # (batches, world, G) -> the effect of each block, (B,)


def line(s1: Array, s2: Array, groups: float, group_size: int) -> tuple[Array, Array]:
    """(S, mu) of a batch: S = (v/G)/(v/G + t), v the variance of its rewards, t of its group means, mu their mean."""
    mu = s1 / (groups * group_size)
    spread = np.maximum(s2 / (groups * group_size**2) - mu * mu, 0.0)
    noise = mu * (1 - mu) / group_size
    return np.where(noise + spread > FLOOR, noise / np.maximum(noise + spread, FLOOR), 1.0), mu


def scored(s1: Array, s2: Array, groups: float, group_size: int, k: Array) -> tuple[Array, ...]:
    """(S, baseline, advantage of a 1, of a 0) of a group with k of G in a batch with these sums."""
    weight, mu = line(s1, s2, groups, group_size)
    baseline = (1 - weight) * k / group_size + weight * mu
    within = s1 - s2 / group_size
    between = s2 / group_size - groups * group_size * mu * mu
    variance = (within + weight**2 * between) / (groups * group_size - 1)
    scale = np.sqrt(np.maximum(variance, 0.0)) + EPS  # the raw advantages have mean 0 already
    return weight, baseline, (1 - baseline) / scale, -baseline / scale


@lru_cache(maxsize=4096)
def draw(text: str, group_size: int, prompts: int, seed: int, draws: int) -> Batches:
    """`Batches` of a world's batches of M prompts from BLOCKS x `draws` draws of the other M - 1 groups."""
    k = np.arange(group_size + 1.0)
    rng = np.random.default_rng(stream_seed(seed, f"batch of {prompts}, {text}", group_size))
    pmf = count_distribution(world(text), group_size)
    found = []
    for part in np.array_split(np.arange(BLOCKS), max(1, BLOCKS * draws // CHUNK)):  # bounds memory
        others = rng.multinomial(prompts - 1, pmf / pmf.sum(), size=(len(part), draws)).astype(np.float64)
        s1, s2 = (others @ k**power for power in (1, 2))
        weight, first, right, wrong = scored(s1[..., None] + k, s2[..., None] + k * k, prompts, group_size, k)
        found.append([x.mean(axis=1) for x in (weight, first, first**2, right, wrong)])
    return Batches(*map(np.concatenate, zip(*found, strict=True)))


def exact(text: str, group_size: int, prompts: int) -> Batches:
    """The same expectations from the law of (s1, s2), group by group; one block. For small batches."""
    k = np.arange(group_size + 1)
    law = np.zeros(((prompts - 1) * group_size + 1, (prompts - 1) * group_size**2 + 1))
    law[0, 0] = 1.0
    pmf = count_distribution(world(text), group_size)
    for _ in range(prompts - 1):
        more = np.zeros(law.shape)
        for j, chance in enumerate(pmf):
            more[j:, j * j :] += chance * law[: law.shape[0] - j, : law.shape[1] - j * j]
        law = more
    s1, s2 = (x.astype(np.float64)[:, None] for x in np.nonzero(law))
    weight, first, right, wrong = scored(s1 + k, s2 + k * k, prompts, group_size, k.astype(np.float64))
    return Batches(*((law[law > 0] @ x)[None] for x in (weight, first, first**2, right, wrong)))


def told(text: str, group_size: int, prompts: int, seed: int, effect: Effect) -> Mean:
    """Mean and standard error over blocks of `effect`, from as many draws as tell it from 0, at most MOST."""
    draws = DRAWS
    while True:
        found = mean_with_error(effect(draw(text, group_size, prompts, seed, draws), text, group_size))
        if abs(found.value) > UNTOLD * found.se or draws * BLOCKS >= MOST:
            return found
        draws *= 4


def error_ratio(batches: Batches, text: str, group_size: int) -> Array:
    """E (b - p)^2 over the group mean's, for each block."""
    prior = rule(world(text), group_size)
    p, weights = np.asarray(prior.nodes), np.asarray(prior.weights)
    joint = weights[:, None] * count_pmf(prior.nodes, group_size, np.arange(group_size + 1))
    p0, p1, p2 = (p**power @ joint for power in (0, 1, 2))
    error = batches.second @ p0 - 2 * batches.first @ p1 + p2.sum()
    return np.asarray(error * group_size / prior.within)


def mean_weight(batches: Batches, text: str, group_size: int) -> Array:
    """E S, for each block."""
    return np.asarray(batches.weight @ count_distribution(world(text), group_size))


def noise(batches: Batches, text: str, group_size: int) -> Array:
    """E Var(g | p) / (E g)^2 of one group's gradient of one-logit policies, g = (1/G) sum (r_i - b) (r_i - p)."""
    prior = rule(world(text), max(group_size, 32))
    p, weights = np.asarray(prior.nodes)[:, None], np.asarray(prior.weights)
    k = np.arange(group_size + 1)
    pmf = count_pmf(prior.nodes, group_size, k)
    plain, slope = k * (1 - p) / group_size, (k - group_size * p) / group_size  # g = plain - b slope
    mean = np.sum(pmf * plain, axis=1) - batches.first @ (pmf * slope).T
    square = (
        np.sum(pmf * plain**2, axis=1)
        - 2 * batches.first @ (pmf * plain * slope).T
        + batches.second @ (pmf * slope**2).T
    )
    return np.asarray((square - mean**2) @ weights / (mean @ weights) ** 2)


def finite_cases(context: Context, text: str, group_size: int, effect: Effect, case: Case) -> list[tuple[float, Case]]:
    """(M, case) for each M: `case` with the effect of such batches, and M after its command."""
    found: list[tuple[float, Case]] = []
    for prompts in SIZES[::2] if context.quick else SIZES:
        value, se = told(text, group_size, prompts, context.design.seed, effect)
        found.append((prompts, case._replace(command=f"{case.command}, M = {prompts}", effect=value, se=se)))
    return found


def with_size(cases: Sequence[tuple[float, Case]], condition: str, strict: bool = True) -> tuple[list[Case], str]:
    """The cases in order, and the condition with the least M from which on it predicts every violation (as computed);
    M is infinite in the limit. Cases below that M are expected to fail."""
    failed = [m for m, case in cases if case.expected and case.sign < strict]
    least = min((m for m in {m for m, _ in cases} if all(m > f for f in failed)), default=float("inf"))
    found = [case._replace(expected=case.expected and m >= least) for m, case in cases]
    return found, f"{f'M ≥ {least:g}' if np.isfinite(least) else 'M → ∞'} and {condition}"
