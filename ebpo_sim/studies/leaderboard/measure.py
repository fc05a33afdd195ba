"""Baseline error and gradient noise of a rule on one world, relative to GRPO's: held out, and predicted.

Counts: prompts' rollouts are split (`counts.splits`), and noise is exact on the deconvolved world. A recorded run is
met in order (`studies.recorded.replay`), and there the noise is measured: with S = sum_i A_i s_i over a group,

    nu = G E|S/G|^2 E|h|^2 / (E S.h/G)^2

over prompts, visits and rollouts (prompts are drawn anew for a batch, `Noise.nu_drawn`). Given the rewards both are
polynomials of degree at most 3 in p, estimated without bias from the rollouts held out.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import NamedTuple

import numpy as np
from scipy.special import comb

from ebpo_sim import rungs
from ebpo_sim.counts.exact import limit_risk, rule
from ebpo_sim.counts.noise import MODELS, Model, noise
from ebpo_sim.counts.splits import SplitRatio, terms
from ebpo_sim.counts.updates import limit_advantages
from ebpo_sim.errors import InputError
from ebpo_sim.estimators import Estimator, make, needs_prior
from ebpo_sim.labels import REFERENCE
from ebpo_sim.numbers import Array
from ebpo_sim.numbers.mixing import Prior
from ebpo_sim.rungs import Rung
from ebpo_sim.studies.base import Settings
from ebpo_sim.studies.recorded import replay
from ebpo_sim.studies.recorded.replay import Interval
from ebpo_sim.worlds import Recorded, parse_world, ratio_world, recorded, world_counts

DEGREE = 3  # of the polynomials in p that a replay's noise is made of
Z = 1.959964


class Cell(NamedTuple):
    """One rule on one world at one G: ratios to GRPO's, with 95 % intervals where prompts were resampled. exact: the
    error in the long run on the deconvolved world. why: what is missing, and the reason."""

    error: Interval | None
    noise: dict[str, Interval | None]
    exact: float | None = None
    why: str = ""


NOTHING: dict[str, Interval | None] = dict.fromkeys(MODELS)


def run_of(text: str) -> Recorded | None:
    """The recorded run of several visits that a world names without one of them; None for all other worlds."""
    kind, _, body = text.partition(":")
    if kind != "recorded" or (body.rpartition("@")[1] and body.rpartition("@")[2].isdecimal()):
        return None
    found = recorded(body)
    return found if found.successes_PV.shape[1] > 1 else None


def visits_of(found: Recorded, settings: Settings) -> int:
    """How many visits are met. Raises InputError where none would be scored."""
    visits = min(settings.design.steps, int(found.successes_PV.shape[1]))
    if settings.design.burn_in >= visits:
        raise InputError(f"--burn-in {settings.design.burn_in} leaves no visit of {visits} to score: lower it")
    return visits


def measured(text: str, size: int, settings: Settings) -> Iterator[Cell]:
    """A cell for each of the settings' estimators, in their order."""
    found = run_of(text)
    return _counts(text, size, settings) if found is None else _run(found, size, settings)


def check(settings: Settings) -> None:
    """Raises InputError for unknown rules, for those without a baseline and for worlds that cannot be read."""
    flat = Prior((0.5,), (1.0,))
    for name in settings.estimators:
        if (make(name, prior=flat) if needs_prior(name) else make(name)).baseline is None:
            raise InputError(f"{name} subtracts no baseline: the leaderboard ranks baselines")
    for text in settings.worlds:
        if (found := run_of(text)) is not None:
            visits_of(found, settings)
        else:
            parse_world(text)


def _missing(name: str, rung: Rung) -> str:
    """Why the rule cannot stand there, in a few words; "" where it can."""
    lacking = {"true_prior"} - rung.provides if needs_prior(name) else rungs.missing(make(name).needs, rung)
    return f"needs {' and '.join(lacking)}" if lacking else ""


def _counts(text: str, size: int, settings: Settings) -> Iterator[Cell]:
    counts, world, fitted = world_counts(text), ratio_world(text), parse_world(text)
    parts = None if counts is None else terms(counts, size)
    prior, fine = rule(world, size), rule(fitted, max(size, 32))
    plain = limit_risk(make(REFERENCE), world, size).mse

    def scales(estimator: Estimator) -> Array:
        table = limit_advantages(estimator, fitted, size)
        return np.array([noise(table, fine, model).nu_drawn for model in MODELS.values()])

    below = scales(make(REFERENCE))
    known: dict[Hashable, tuple[Interval | None, float | None]] = {}
    for name in settings.estimators:
        if why := _missing(name, rungs.COUNTS):
            yield Cell(None, NOTHING, None, why)
            continue
        estimator = rungs.bound(name, prior, rungs.COUNTS)
        if estimator.learns not in known:
            exact = limit_risk(estimator, world, size).mse / plain if plain > 0 else None
            error = None if parts is None else _interval(parts.ratio(estimator))
            known[estimator.learns] = (_alone(exact) if counts is None else error), exact
        error, exact = known[estimator.learns]
        ratios = scales(estimator) / below
        why = "no prompt has more rollouts than G" if error is None and counts is not None else ""
        yield Cell(error, {m: _alone(float(r)) for m, r in zip(MODELS, ratios, strict=True)}, exact, why)


def _alone(value: float | None) -> Interval | None:
    return None if value is None or np.isnan(value) else Interval(value, value, value)


def _interval(found: SplitRatio) -> Interval:
    return Interval(found.ratio, found.ratio - Z * found.se, found.ratio + Z * found.se)


def _run(found: Recorded, size: int, settings: Settings) -> Iterator[Cell]:
    plan, visits = settings.design, visits_of(found, settings)
    try:
        replay.check(found, size)
    except InputError:
        why = f"G above half of {found.rollouts} rollouts"
        yield from (Cell(None, NOTHING, None, why) for _ in settings.estimators)
        return
    parts = replay.split(found, size, visits, plan.replicates, plan.seed)
    weights_BP = replay.resampled(len(found.prompts), plan.seed)
    below_QP = replayed(make(REFERENCE), parts, found.rollouts - size, plan.prompts, plan.burn_in)
    for name in settings.estimators:
        if why := _missing(name, replay.RUNG):
            yield Cell(None, NOTHING, None, why)
            continue
        mine_QP = replayed(replay.bound(name), parts, found.rollouts - size, plan.prompts, plan.burn_in)
        error = replay.ratio(weights_BP, mine_QP[0], below_QP[0])
        scales = {m: _scale(weights_BP, mine_QP, below_QP, 1 + 2 * i) for i, m in enumerate(MODELS)}
        yield Cell(error, scales if len(mine_QP) > 1 else NOTHING)


def _scale(weights_BP: Array, mine_QP: Array, below_QP: Array, at: int) -> Interval | None:
    """nu over GRPO's from rows `at` (noise) and `at` + 1 (signal)."""
    if len(mine_QP) == 1:
        return None
    drawn = np.concatenate([np.ones((1, weights_BP.shape[1])), weights_BP])
    parts = [drawn @ x[row] for x in (mine_QP, below_QP) for row in (at, at + 1)]
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = parts[0] / parts[2] * (parts[3] / parts[1]) ** 2
    low, high = np.percentile(ratio[1:], [2.5, 97.5])
    return Interval(float(ratio[0]), float(low), float(high)) if np.isfinite([ratio[0], low, high]).all() else None


def replayed(estimator: Estimator, parts: replay.Split, rest: int, batch: int, burn_in: int) -> Array:
    """(Q, P): by prompt, sums over the visits from `burn_in` of the baseline error and, for each score model, of
    E|S/G|^2 and E S.h/G, means over the replicates. rest: rollouts held out; of fewer than 3 the error alone."""
    size = parts.group_size
    tables = [_tables(model, rest) for model in MODELS.values()] if rest >= DEGREE else []
    found_QP = np.zeros((1 + 2 * len(tables), parts.trained_RPV.shape[1]))
    for which, visit, groups, state in replay.batches(estimator, parts, batch):
        if visit < burn_in:
            continue
        found_QP[0, which] += replay.error(estimator, parts, which, visit, groups, state)
        advantages_RPG, _ = estimator.score(state, groups)
        rewards_RPG = np.asarray(groups.rewards_PG)
        held_RP = np.rint(rest * parts.held_RPV[:, which, visit]).astype(np.int64)
        sums = [np.sum(x * a, axis=-1) / size for a in (advantages_RPG, advantages_RPG**2)
                for x in (rewards_RPG, 1 - rewards_RPG)]  # fmt: skip
        for i, table in enumerate(tables):
            found_QP[1 + 2 * i : 3 + 2 * i, which] += _moments(sums, size, table[:, held_RP])
    return found_QP


def _moments(sums: list[Array], size: int, known: Array) -> Array:
    """(2, P): |S/G|^2 and S.h/G given the rewards, from sums of A and A^2 over right and wrong rollouts, over G."""
    right, wrong, right2, wrong2 = sums
    square = right**2 * known[0] - 2 * right * wrong * known[1] + wrong**2 * known[2]
    spread = (right2 * known[3] + wrong2 * known[4]) / size
    return np.stack([(square + spread).mean(axis=0), (right * known[5] - wrong * known[6]).mean(axis=0)])


def _tables(model: Model, rest: int) -> Array:
    """(7, rest + 1), by successes of the rollouts held out: apart (1-p)^2, apart p (1-p), apart p^2, what is left of
    |s|^2 of right and of wrong answers across h, and the signal of a right and of a wrong one."""
    p = np.linspace(0.1, 0.9, DEGREE + 1)
    a, c, apart = model(p)
    values = np.stack([
        apart * (1 - p) ** 2, apart * p * (1 - p), apart * p**2, a - apart * (1 - p) ** 2, c - apart * p**2,
        apart * p * (1 - p) ** 2, apart * p**2 * (1 - p),
    ])  # fmt: skip
    j, right = np.arange(DEGREE + 1)[:, None], np.arange(rest + 1)
    basis = comb(DEGREE, j) * p**j * (1 - p) ** (DEGREE - j)
    drawn = comb(right, j) * comb(rest - right, DEGREE - j) / comb(rest, DEGREE)  # j of 3 of them right
    return np.asarray(np.linalg.solve(basis.T, values.T).T @ drawn)
