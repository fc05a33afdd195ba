"""Exact baseline error: sums over k = 0..G and quadrature over the prior; no sampling anywhere.

The long-run state of an estimator is what its own `observe` makes of the whole population: the G+1 binary
groups, each with its probability times a number of groups so large that finite-sample corrections vanish.
So theory and simulation run the same estimator code.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ebpo_sim.errors import InputError
from ebpo_sim.estimators import Estimator, baseline_table
from ebpo_sim.groups import count_groups
from ebpo_sim.numbers import Array
from ebpo_sim.numbers.mixing import Prior, count_pmf
from ebpo_sim.worlds import World

POPULATION = 1e13  # groups standing for "the long run": finite-sample corrections are of order 1/(N w)


class LimitRisk(NamedTuple):
    """Long-run behaviour of a baseline: E (b - p)^2, E (b - p), and its shrinkage weight (None where it has none)."""

    mse: float
    bias: float
    shrinkage: float | None


def rule(world: World, group_size: int) -> Prior:
    """The world's quadrature for groups of this size: exact for the polynomials that risks are made of."""
    if group_size < 1:
        raise InputError(f"group_size must be at least 1, got {group_size!r}")
    return world.quadrature(2 * group_size + 4)


def count_distribution(world: World, group_size: int) -> Array:
    """P(k of G), k = 0..G, over prompts and rollouts."""
    prior = rule(world, group_size)
    return np.asarray(np.asarray(prior.weights) @ count_pmf(prior.nodes, group_size, np.arange(group_size + 1)))


def limit_state(estimator: Estimator, world: World, group_size: int, groups: float = POPULATION) -> Any:
    """The state after `groups` groups in the world's exact proportions; by default the long run, or for
    memory="batch" one batch as large."""
    population = count_groups(group_size, groups * count_distribution(world, group_size))
    return estimator.update(estimator.init(), population)


def table_risk(table: Array, prior: Prior, group_size: int) -> tuple[float, float]:
    """(E (b - p)^2, E (b - p)) of a table [k, own reward], shape (G+1, 2), averaged over the group's rollouts."""
    nodes, weights = np.asarray(prior.nodes), np.asarray(prior.weights)
    k = np.arange(group_size + 1)
    share = np.stack([1 - k / group_size, k / group_size], axis=-1)
    joint = (weights[:, None] * count_pmf(nodes, group_size, k))[..., None] * share
    error = table - nodes[:, None, None]
    return float(np.sum(joint * error**2)), float(np.sum(joint * error))


def limit_risk(estimator: Estimator, world: World, group_size: int) -> LimitRisk:
    """Risk of the estimator's baseline in its long-run state, for prompts fresh from the same world.

    Agrees with the closed forms of `formulas` to a relative 1e-9 where they exist.
    """
    state = limit_state(estimator, world, group_size)
    table = baseline_table(estimator, state, group_size)
    mse, bias = table_risk(table, rule(world, group_size), group_size)
    return LimitRisk(mse, bias, limit_shrinkage(estimator, state, group_size))


def limit_shrinkage(estimator: Estimator, state: Any, group_size: int) -> float | None:
    """The shrinkage weight shared by all groups of this size, or None."""
    evaluation = estimator.baseline_of(state, count_groups(group_size))
    if evaluation is None or evaluation.shrinkage_P is None:
        return None
    value = float(np.mean(evaluation.shrinkage_P))
    return value if np.allclose(evaluation.shrinkage_P, value, rtol=0, atol=1e-9) else None
