"""A recorded run met again: some of each visit's rollouts are trained on, the mean of the rest stands for the truth.

Given p, both parts are independent, so E (b - h)^2 - E h(1-h)/(n-1) = E (b - p)^2 for every baseline b of the part that
is trained on and of all visits before: h is the mean of the n rollouts held out, and the second term their noise.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import comb

from ebpo_sim import rungs
from ebpo_sim.errors import InputError
from ebpo_sim.estimators import Estimator
from ebpo_sim.groups import Groups, group_rewards
from ebpo_sim.numbers import Array
from ebpo_sim.rungs import Rung
from ebpo_sim.worlds import Recorded

RUNG = Rung("recorded", "success counts by prompt and visit", frozenset({"binary_rewards", "prompt_ids"}))
RESAMPLES = 2000


class Split(NamedTuple):
    """trained_RPV: successes of `group_size` rollouts. held_RPV: the mean of the others; noise_RPV: unbiased for its
    sampling variance. order_VP: in which order the prompts are met at each visit."""

    group_size: int
    trained_RPV: NDArray[np.int64]
    held_RPV: Array
    noise_RPV: Array
    order_VP: NDArray[np.intp]


class Interval(NamedTuple):
    """A value and its 95 % interval, percentiles of a bootstrap over prompts."""

    value: float
    low: float
    high: float


def check(run: Recorded, group_size: int) -> None:
    """Raises InputError for a run of one visit, and for groups above half the rollouts."""
    if run.successes_PV.shape[1] < 2:
        raise InputError(
            f"recorded:{run.name} has one visit: a replay needs two; as a world of other studies it serves"
        )
    if not 1 <= group_size <= min(run.rollouts // 2, run.rollouts - 2):
        raise InputError(
            f"--group-size {group_size} is above half of the {run.rollouts} rollouts that recorded:{run.name} has of a "
            f"visit: at most {min(run.rollouts // 2, run.rollouts - 2)}, the rest stands for the truth"
        )


def split(run: Recorded, group_size: int, visits: int, replicates: int, seed: int) -> Split:
    """The first visits' rollouts, split by chance."""
    rng, right_PV = np.random.default_rng([seed, group_size]), run.successes_PV[:, :visits]
    shape, rest = (replicates, *right_PV.shape), run.rollouts - group_size
    trained_RPV = rng.hypergeometric(right_PV, run.rollouts - right_PV, group_size, size=shape)
    held_RPV = (right_PV - trained_RPV) / rest
    order_VP = np.stack([rng.permutation(len(right_PV)) for _ in range(right_PV.shape[1])])
    return Split(group_size, trained_RPV, held_RPV, held_RPV * (1 - held_RPV) / (rest - 1), order_VP)


def bound(name: str) -> Estimator:
    """The preset, where a recorded run has all that it needs. Raises InputError where not, and for a rule that
    subtracts no baseline."""
    estimator = rungs.bound(name, None, RUNG)
    if estimator.baseline is None:
        raise InputError(f"{name} subtracts no baseline: a replay measures the error of baselines")
    return estimator


def batches(estimator: Estimator, parts: Split, batch: int) -> Iterator[tuple[NDArray[np.intp], int, Groups, Any]]:
    """(prompts, visit, their groups of all replicates, the state to score them with), in the order they are met."""
    columns, state = np.arange(parts.group_size), estimator.init()
    for visit, order_P in enumerate(parts.order_VP):
        for which in np.split(order_P, range(batch, len(order_P), batch)):
            rewards_RPG = (columns < parts.trained_RPV[:, which, visit, None]).astype(np.float64)
            groups = group_rewards(rewards_RPG, prompt_ids=which)
            scoring, state = estimator.turn(state, groups)
            yield which, visit, groups, scoring


def error(estimator: Estimator, parts: Split, which: NDArray[np.intp], visit: int, groups: Groups, state: Any) -> Array:
    """(len(which),): (b - h)^2 - noise of one batch, the mean over its rollouts and the replicates."""
    evaluation = estimator.baseline_of(state, groups)
    assert evaluation is not None  # since `bound`
    away = (evaluation.baseline_PG - parts.held_RPV[:, which, visit, None]) ** 2
    return np.asarray((away.mean(axis=-1) - parts.noise_RPV[:, which, visit]).mean(axis=0))


def errors(estimator: Estimator, parts: Split, batch: int) -> Array:
    """(P, V): `error` of each prompt and visit."""
    found_PV = np.zeros(parts.trained_RPV.shape[1:])
    for which, visit, *met in batches(estimator, parts, batch):
        found_PV[which, visit] = error(estimator, parts, which, visit, *met)
    return found_PV


def resampled(prompts: int, seed: int) -> Array:
    """(RESAMPLES, P): how often each prompt is in each resample."""
    drawn = np.random.default_rng([seed, prompts]).multinomial(prompts, np.full(prompts, 1 / prompts), RESAMPLES)
    return drawn.astype(np.float64)


def ratio(weights_BP: Array, above_P: Array, below_P: Array) -> Interval:
    """sum above / sum below; paired, as both are of the same prompts and splits."""
    drawn = (weights_BP @ above_P) / (weights_BP @ below_P)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(float(above_P.sum() / below_P.sum()), float(low), float(high))


def silent(right_P: NDArray[np.int64], rollouts: int, group_size: int) -> Array:
    """(P,): the probability that `group_size` of the rollouts, drawn without replacement, all agree."""
    return np.asarray(sum(comb(k, group_size) for k in (right_P, rollouts - right_P)) / comb(rollouts, group_size))


def drift(run: Recorded, lag: int, visits: int) -> Array:
    """(P,): the mean over visits t of (m_{t+lag} - m_t)^2, less the noise of both means: unbiased for the square of
    p_{t+lag} - p_t."""
    mean_PV = run.successes_PV[:, :visits] / run.rollouts
    noise_PV = mean_PV * (1 - mean_PV) / (run.rollouts - 1)
    move_PV = (mean_PV[:, lag:] - mean_PV[:, :-lag]) ** 2 - noise_PV[:, lag:] - noise_PV[:, :-lag]
    return np.asarray(move_PV.mean(axis=1))
