"""What was predicted against what was measured: ratios to GRPO paired by seed, and how well each predictor orders them.

A ratio is exp(mean over seeds of log(method's / GRPO's)) with the t interval of that mean. A target that one of the
seeds misses has no number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ebpo_sim.compare.differences import Difference, Term, independent, mean_of
from ebpo_sim.compare.plan import Series
from ebpo_sim.compare.verdicts import Verdict, in_regime, judge
from ebpo_sim.labels import REFERENCE
from ebpo_sim.numbers import Array
from ebpo_sim.studies.prediction.cells import REGIMES, TARGETS, Cell, Settings, reached
from ebpo_sim.studies.prediction.predict import Cells, Measured, predictors

Rows = list[dict[str, Any]]
Found = Mapping[tuple[str, Any, Any], Series]
MARGIN = math.log(1.2)  # of a ratio: what an interval must be able to show
COSTS = {"seconds 1:1": (1, 1), "seconds 4:1": (4, 1), "seconds 1:4": (1, 4)}  # sampling : training, a rollout : a row
CURRENCIES = ("step", "rollouts", "rows", *COSTS)
LOST = "entropy lost"  # a token's, in nats, from the start to the target
REDRAWS = 1000  # of the bootstrap
FIT = ("slope", "slope_low", "slope_high", "rank", "rank_low", "rank_high", "same_side", "residual")
NOISE = ("nu", "cosine", "silent", "rows", "adam", "entropy", "error")


class Point(NamedTuple):
    """A method in a cell: log ratio of steps to a target, a number a seed, and what each predictor said of it."""

    arm: str
    cell: Cell
    target: str
    log_ratio_R: Array
    predictors: dict[str, float | None]


def row(arm: str, cell: Cell, quantity: str, value: float | None, **more: Any) -> dict[str, Any]:
    empty = dict.fromkeys(("target", "se", "low", "high", "seeds", "verdict"))
    return {"estimator": arm, **cell._asdict(), "quantity": quantity, "value": value} | empty | more


def noise_rows(found: Cells, when: str) -> Rows:
    """nu with its standard error, nu/N and the rest of `chains.noise.Noise`, and the predicted ratio of steps."""
    rows: Rows = []
    for (arm, cell), x in found.items():
        for name in NOISE:
            rows.append(row(arm, cell, f"{name}, {when}", x[name], se=x.get(f"{name}_se")))
        rows.append(row(arm, cell, f"nu/N, {when}", _ratio(x)))
        if arm != REFERENCE:
            grpo = found[REFERENCE, cell]
            expected = predictors(x, grpo, None)
            rows.append(row(arm, cell, f"predicted ratio of steps, {when}", expected["noise"]))
            rows.append(row(arm, cell, f"ratio of error, {when}", expected["baseline error"]))
            nus, se = (x["nu"], grpo["nu"]), x["nu_se"]
            if nus[0] and nus[1] and se:  # draws are paired, so the log ratio's error is below its own part of it
                rows.append(row(arm, cell, f"ratio of nu, {when}", nus[0] / nus[1], se=se / nus[0]))
    return rows


def _ratio(x: Measured) -> float | None:
    return None if x["nu"] is None or not x["rollouts"] else x["nu"] / x["rollouts"]


def spent(series: Series, target: str) -> dict[int, dict[str, float]]:
    """seed -> what the target cost in every currency, of the seeds that met it."""
    met = {seed: reached(curve, series.place[target]) for seed, curve in series.curves.items()}
    return {
        seed: x
        | {name: a * x["rollouts"] + b * x["rows"] for name, (a, b) in COSTS.items()}
        | {LOST: series.curves[seed][0]["entropy"] - x["entropy"]}
        for seed, x in met.items()
        if x
    }


def log_ratios(mine: Mapping[int, Mapping[str, float]], grpo: Mapping[int, Mapping[str, float]], name: str) -> Array:
    """log(method / GRPO) by seed; the seeds are the same."""
    return np.array([math.log(mine[s][name] / grpo[s][name]) for s in sorted(grpo)])


def measured_rows(settings: Settings, found: Found, starts: Cells) -> Rows:
    """Rate, steps to each target, and ratios to GRPO in every currency with their verdicts; a ratio's se is of its
    log."""
    rows: Rows = []
    for (arm, cell, _), mine in found.items():
        rows.append(row(arm, cell, "learning rate", mine.rate, verdict="edge of the grid" if mine.edge else None))
        for target in TARGETS:
            costs, other = spent(mine, target), spent(found[REFERENCE, cell, "own"], target)
            whole = len(costs) == len(other) == settings.seeds
            steps = mean_of(x["step"] for x in costs.values()) if len(costs) == settings.seeds else None
            rows.append(row(arm, cell, "steps", steps and steps.value, **interval_of(steps), target=target))
            for name in CURRENCIES if arm != REFERENCE else ():
                found_ratio = mean_of(log_ratios(costs, other, name)) if whole else None
                word = word_of(found_ratio, _ratio(starts[REFERENCE, cell]))
                quantity = f"ratio of {'steps' if name == 'step' else name}"
                told = {"target": target, "verdict": word, "seeds": len(costs.keys() & other.keys())}
                rows.append(ratio_row(arm, cell, quantity, found_ratio, **told))
    return rows


def ratio_row(arm: str, cell: Cell, quantity: str, found: Difference | None, **more: Any) -> dict[str, Any]:
    """A log ratio as a ratio, its ends too; se stays that of the log."""
    ends = {k: math.exp(v) if k in ("low", "high") else v for k, v in interval_of(found).items()}
    return row(arm, cell, quantity, found and math.exp(found.value), **{**ends, **more})


def interval_of(found: Difference | None) -> dict[str, Any]:
    return {k: getattr(found, k) for k in ("se", "low", "high", "seeds")} if found else {}


def word_of(found: Difference | None, ratio: float | None) -> Verdict:
    """The word for a log ratio, "appears" meaning cheaper than GRPO: where GRPO's nu/N is below 1 a tie has
    no resolving power, whatever its interval."""
    return in_regime(judge(found, -1, MARGIN), math.nan if ratio is None else ratio)


def averages(rows: Sequence[Mapping[str, Any]]) -> Rows:
    """The geometric mean over worlds and group sizes of each ratio to the far target, with its interval over seeds; by
    setup, regime and method. missing: cells where a seed of it or of GRPO missed the target, not in the mean."""
    listed: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for r in rows:
        if r["target"] == "far" and r["quantity"].startswith("ratio of"):
            listed.setdefault((r["setup"], r["regime"], r["estimator"], r["quantity"]), []).append(r)
    made: Rows = []
    for key, cells in listed.items():
        there = [r for r in cells if r["value"] is not None]
        found = (
            independent([Term(1 / len(there), math.log(r["value"]), r["se"], r["seeds"]) for r in there])
            if there
            else None
        )
        name = dict(zip(("setup", "regime", "estimator", "quantity"), key, strict=True))
        ends = {k: None if found is None else math.exp(getattr(found, k)) for k in ("value", "low", "high")}
        counts = {"cells": len(there), "missing": len(cells) - len(there)}
        made.append(name | ends | counts | {"verdict": word_of(found, REGIMES[key[1]].ratio)})
    return made


def points(settings: Settings, found: Found, starts: Cells, later: Cells) -> list[Point]:
    """Every method and target that all seeds of it and of GRPO met."""
    listed = []
    for arm, cell, tuning in found:
        for target in TARGETS if arm != REFERENCE else ():
            costs, other = (spent(found[name, cell, tuning], target) for name in (arm, REFERENCE))
            if len(costs) == len(other) == settings.seeds:
                pair = (later[arm, cell], later[REFERENCE, cell]) if (arm, cell) in later else None
                told = predictors(starts[arm, cell], starts[REFERENCE, cell], pair)
                listed.append(Point(arm, cell, target, log_ratios(costs, other, "step"), told))
    return listed


def fits(listed: Sequence[Point], seed: int) -> Rows:
    """How each predictor's log ratio goes with the measured one: slope of the line through all points, rank
    correlation, both with 95 % intervals (bootstrap over cells and, in each, seeds), the share of points on the
    predicted side of 1, and the root mean square of log measured less log predicted. By setup and target; all
    regimes and one by one."""
    rows: Rows = []
    names = list(listed[0].predictors) if listed else []
    for setup, target in dict.fromkeys((p.cell.setup, p.target) for p in listed):
        here = [p for p in listed if (p.cell.setup, p.target) == (setup, target)]
        for regime in ("all", *dict.fromkeys(p.cell.regime for p in here)):
            for name in names:
                mine = [p for p in here if regime in ("all", p.cell.regime) and (p.predictors[name] or 0) > 0]
                place = {"setup": setup, "target": target, "regime": regime, "predictor": name}
                rows.append(place | fit(mine, name, np.random.default_rng([seed, 21])))
    return rows


def fit(mine: Sequence[Point], name: str, rng: np.random.Generator) -> dict[str, Any]:
    """Slope, rank correlation, and what they rest on; None with fewer than five points or a constant predictor."""
    cells = list(dict.fromkeys(p.cell for p in mine))
    x = np.array([math.log(p.predictors[name] or 1) for p in mine])
    y_PR = np.array([p.log_ratio_R for p in mine])
    empty = dict.fromkeys(
        ("slope", "slope_low", "slope_high", "rank", "rank_low", "rank_high", "same_side", "residual")
    )
    counts = {"points": len(mine), "cells": len(cells)}
    if len(mine) < 5 or np.ptp(x) < 1e-9:
        return counts | empty
    member = [np.array([i for i, p in enumerate(mine) if p.cell == cell]) for cell in cells]
    drawn = []
    for _ in range(REDRAWS):
        chosen = [member[c] for c in rng.integers(len(cells), size=len(cells))]
        rows, seeds_CR = np.concatenate(chosen), rng.integers(y_PR.shape[1], size=(len(cells), y_PR.shape[1]))
        seeds_PR = np.repeat(seeds_CR, [len(c) for c in chosen], axis=0)
        drawn.append(line(x[rows], np.take_along_axis(y_PR[rows], seeds_PR, axis=1).mean(axis=1)))
    low, high = np.nanquantile(drawn, [0.025, 0.975], axis=0).tolist()
    y = y_PR.mean(axis=1)
    slope, rank = line(x, y)
    return counts | {
        "slope": slope, "slope_low": low[0], "slope_high": high[0], "rank": rank, "rank_low": low[1],
        "rank_high": high[1], "same_side": float(np.mean(np.sign(x) == np.sign(y))),
        "residual": float(np.sqrt(np.mean((y - x) ** 2))),
    }  # fmt: skip


def line(x: Array, y: Array) -> tuple[float, float]:
    """(least-squares slope, Spearman's rank correlation); NaN where x or y is constant."""
    spread = float(np.sum((x - x.mean()) ** 2))
    if spread < 1e-18 or np.ptp(y) < 1e-12:
        return float("nan"), float("nan")
    rank = float(np.corrcoef(_ranks(x), _ranks(y))[0, 1])
    return float((x - x.mean()) @ (y - y.mean())) / spread, rank


def _ranks(values: Array) -> Array:
    """Mean ranks: equal values share theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - counts / 2)[place])
