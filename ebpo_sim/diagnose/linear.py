"""Error of linear baselines from three moments, for rewards of any distribution.

A rule b = c0 + c1 (group mean) + c2 (own reward) has, with theta a prompt's expected reward and w = E Var(r | theta),

    E (b - theta)^2 = (c0 + (c1 + c2 - 1) mean)^2 + (c1 + c2 - 1)^2 T2 + w (c1^2/G + c2^2 + 2 c1 c2/G).

The coefficients are read off the estimator itself: it learns from a population of groups with the given moments, as
large as the long run, and is then asked for the baselines of groups it has not seen.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ebpo_sim.counts.exact import POPULATION
from ebpo_sim.estimators import Estimator
from ebpo_sim.groups import Groups, group_rewards


class Line(NamedTuple):
    """b = constant + group * (group mean) + own * (own reward)."""

    constant: float
    group: float
    own: float


def long_run_line(estimator: Estimator, mean: float, within: float, between: float, group_size: int) -> Line | None:
    """The estimator's rule after a long run of groups with these moments; None if it is not a line."""
    baseline = estimator.baseline
    if baseline is None or estimator.domain == "binary" or not estimator.exchangeable:
        return None
    learnt = _population(mean, within, between, group_size)
    state = baseline.merge(baseline.forget(baseline.init()), baseline.observe(learnt))
    probe = _probe(mean, within + between, group_size)
    said = np.broadcast_to(baseline.evaluate(state, probe).baseline_PG, probe.rewards_PG.shape).reshape(-1)
    group = np.repeat(probe.mean_P, group_size)
    scale = np.sqrt(within + between)
    rewards = probe.rewards_PG.reshape(-1)
    design = np.stack([np.ones_like(group), (group - mean) / scale, (rewards - mean) / scale], axis=1)
    (constant, by_group, by_own), *_ = np.linalg.lstsq(design, said / scale, rcond=None)
    if np.max(np.abs(design @ (constant, by_group, by_own) - said / scale)) > 1e-6:
        return None
    return Line(float(constant * scale - (by_group + by_own) * mean), float(by_group), float(by_own))


def linear_ratio(line: Line, mean: float, within: float, between: float, group_size: int) -> float:
    """The rule's error relative to the group mean's w/G; `within` > 0."""
    c0, c1, c2 = line
    slope = c1 + c2 - 1
    noise = within * (c1**2 / group_size + c2**2 + 2 * c1 * c2 / group_size)
    return float(((c0 + slope * mean) ** 2 + slope**2 * between + noise) / (within / group_size))


def _population(mean: float, within: float, between: float, group_size: int) -> Groups:
    """Two groups, many times: their means have variance T2 + w/G, and within each the unbiased variance is w."""
    pattern = np.zeros(group_size)
    if group_size > 1:
        pattern[0], pattern[1] = np.sqrt(within * (group_size - 1) / 2), -np.sqrt(within * (group_size - 1) / 2)
    centre = np.sqrt(max(between, 0.0) + within / group_size)
    rewards = mean + np.array([[-centre], [centre]]) + pattern
    return group_rewards(rewards, lengths=np.ones(rewards.shape), multiplicity=np.full(2, POPULATION / 2))


def _probe(mean: float, variance: float, group_size: int) -> Groups:
    """Groups in general position, so that a rule which only looks like a line on simple ones is found out."""
    points = np.random.default_rng(0).standard_normal((6, group_size))
    return group_rewards(mean + np.sqrt(variance) * points, lengths=np.ones(points.shape))
