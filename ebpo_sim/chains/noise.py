"""The gradient noise scale of a method at a policy: how many rollouts its noise is worth.

    nu = N E|g - E g|^2 / (E g . e/|e|)^2                (in rollouts)

e: the exact gradient of the mean reward over all training prompts. g: what a whole batch of N rollouts makes of it,
prompts and rollouts redrawn. Steps to a target are predicted as S_min (1 + nu/N) (arXiv 1812.06162), so methods that
differ in nu alone differ in speed where nu/N is of order 1 or more, and nowhere else. nu is free of the scale of
advantages, and of N for rules that score each group by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ebpo_sim.chains.collect import Collected, collect
from ebpo_sim.chains.measures import sampled_gradients
from ebpo_sim.chains.population import SkillChain, entropy_gradient, success, success_gradient
from ebpo_sim.chains.rung import TrainingConfig, ask_of, build_method, learner_of, pool_of
from ebpo_sim.errors import InputError
from ebpo_sim.methods.step import State, start
from ebpo_sim.numbers import Array

ROUNDING = 1e-9  # of the largest: coordinates below it hold nothing but rounding, which no division may raise
LEAST = 8  # redraws: below it the jackknife says little


class Noise(NamedTuple):
    """nu and cos(E g, e), each ± its jackknife standard error over redraws; NaN where e or the signal is 0.

    cosine: may exceed 1 by its error. rollouts: N, drawn a batch. silent: share of groups without any advantage but 0.
    rows: share of rollouts with one. adam: sum_j e_j E g_j / sqrt(E g_j^2), reward per unit of learning rate of an
    update whose every coordinate is divided by its own root mean square, as Adam's is. entropy: change of the tokens'
    mean entropy (nats) per unit of reward along E g. error: E (baseline - p)^2, NaN for rules that subtract none.
    size: mean |advantage| over the rollouts drawn.
    """

    nu: float
    nu_se: float
    cosine: float
    cosine_se: float
    rollouts: float
    silent: float
    rows: float
    adam: float
    entropy: float
    error: float
    size: float


def warmed(population: SkillChain, config: TrainingConfig, theta_SK: Array, batches: int) -> State:
    """The method's memories after `batches` batches of a policy that stands still, learnt but not trained on."""
    method, pool = build_method(population, config), pool_of(population)
    state, rng = start(method), np.random.default_rng([config.seed, 14])
    for step in range(batches if any((state.estimator, state.allocation, state.selection)) else 0):
        ask = ask_of(config, step)
        state = collect(theta_SK, population.prompts, pool, method, state, ask, config.seed, rng).state
    return state


def noise(
    population: SkillChain, config: TrainingConfig, theta_SK: Array | None = None, redraws: int = 128, warm: int = 40
) -> Noise:
    """nu of `config.estimator` at theta (default: the start), from independent redraws; see `Noise`.

    Prompts are drawn uniformly, as a batch of shuffled epochs is, unless the method names an allocation; a memory is
    first warmed by `warm` batches. The same seed gives all methods the same prompts and rollouts. Objectives are left
    out: on the policy that drew the rollouts a clip is idle.
    Raises InputError for fewer than 8 redraws.
    """
    if redraws < LEAST:
        raise InputError(f"redraws must be at least {LEAST}, got {redraws}: the standard error comes from them")
    config = replace(config, order="uniform", steps=warm + redraws)
    theta_SK = population.start_SK if theta_SK is None else theta_SK
    method, pool, prompts = build_method(population, config), pool_of(population), population.prompts
    state, rng = warmed(population, config, theta_SK, warm), np.random.default_rng([config.seed, 13])
    p_P, seen = success(theta_SK, prompts), list[tuple[float, ...]]()

    def batches() -> Iterator[Collected]:
        for step in range(warm, warm + redraws):
            batch = collect(theta_SK, prompts, pool, method, state, ask_of(config, step), config.seed, rng)
            rows = np.count_nonzero(batch.advantage_PG) / batch.drawn
            size = np.abs(batch.advantage_PG).sum() / batch.drawn
            seen.append((batch.drawn, batch.silent, rows, _error(batch, p_P[batch.planned_P]), size))
            yield batch

    gradient_NSK = sampled_gradients(theta_SK, batches(), learner_of(config, (), method.aggregation).aggregation)
    exact_SK, mean_SK = success_gradient(theta_SK, prompts), gradient_NSK.mean(axis=0)
    drawn, silent, rows, error, size = np.mean(seen, axis=0).tolist()
    variance, cosine = estimates(gradient_NSK.reshape(redraws, -1), exact_SK.ravel())
    gain = float(np.sum(mean_SK * exact_SK))
    entropy = float(np.sum(mean_SK * entropy_gradient(theta_SK, prompts))) / gain if gain else float("nan")
    root_SK = np.sqrt(np.mean(gradient_NSK**2, axis=0))
    adam = float(np.sum(exact_SK * mean_SK / np.where(root_SK > ROUNDING * root_SK.max(), root_SK, np.inf)))
    return Noise(drawn * variance[0], drawn * variance[1], *cosine, drawn, silent, rows, adam, entropy, error, size)


def estimates(gradient_ND: Array, exact_D: Array) -> tuple[tuple[float, float], tuple[float, float]]:
    """(E|g - E g|^2 / (E g . e/|e|)^2, se) and (cos(E g, e), se): ratios of unbiased estimates, their bias of order
    1/n taken off by the jackknife."""
    norm, count = float(np.linalg.norm(exact_D)), len(gradient_ND)
    sum_D, along_N = gradient_ND.sum(axis=0), gradient_ND @ (exact_D / (norm or np.nan))
    square_N = np.einsum("nd,nd->n", gradient_ND, gradient_ND)
    sums = np.array([count, square_N.sum(), sum_D @ sum_D, along_N.sum(), (along_N**2).sum()])
    without = np.array([
        np.full(count, count - 1.0), sums[1] - square_N, sums[2] - 2 * (gradient_ND @ sum_D) + square_N,
        sums[3] - along_N, sums[4] - along_N**2,
    ])  # fmt: skip
    whole, left_out = _ratios(sums), _ratios(without)
    mean = left_out.mean(axis=1)
    value = count * whole - (count - 1) * mean
    se = np.sqrt((count - 1) / count * np.sum((left_out - mean[:, None]) ** 2, axis=1))
    return (float(value[0]), float(se[0])), (float(value[1]), float(se[1]))


def _ratios(sums: Array) -> Array:
    """(noise over squared signal, cosine) from n, sum |g|^2, |sum g|^2, sum a, sum a^2 with a = g . e/|e|."""
    n, square, length, along, along_square = sums
    noise = (square - length / n) / (n - 1)
    signal = (along / n) ** 2 - (along_square - along**2 / n) / (n - 1) / n
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.stack([noise / signal, np.sign(along) * np.sqrt(signal / (length / n**2 - noise / n))])


def _error(batch: Collected, p_P: Array) -> float:
    """Mean (baseline - p)^2 over the rollouts of the planned groups."""
    baseline_PG = None if batch.info is None else batch.info.baseline_PG
    if baseline_PG is None or len(baseline_PG) != len(p_P):
        return float("nan")
    return float(np.mean((baseline_PG - p_P[:, None]) ** 2))
