"""From a table of runs to findings: pure functions, no training, no files.

Runs of a cell (group size, order) are paired by seed. Intervals are 95 %, Student's t over seeds, one at a time;
p-values also come with Holm's correction over all differences of the same measure in all cells.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import t as student

from ebpo_sim.labels import FULL_SHRINKAGE, NO_SHRINKAGE, REFERENCE, SUBJECT, label

Row = Mapping[str, Any]
Cell = tuple[int, str]
BySeed = dict[int, float]
Values = dict[Cell, dict[str, dict[str, BySeed]]]  # cell, measure, arm

OUTCOMES = ("final", "mean", "common_time", "equal_time")  # all are validation pass@1
COMPARED = (*OUTCOMES, "entropy")
DESCRIBED = (
    "entropy", "zero_signal", "rows_trained", "shrinkage", "grad_norm", "kl_step", "length", "missing_eos",
    "seconds_per_step",
)  # fmt: skip
RESOLVED, ALONE, UNRESOLVED, SINGLE = "resolved", "resolved alone", "not resolved", "one seed"


class Choice(NamedTuple):
    """A learning rate, whether a better one may lie outside the grid, and the mean score of each."""

    rate: float
    edge: bool
    scores: dict[float, float]


def choose_rate(scores: Mapping[float, Sequence[float]]) -> Choice:
    """The rate of the highest mean score, the smaller one of equals. Scores are final validation pass@1, by seed."""
    means = {rate: float(np.mean(scores[rate])) for rate in sorted(scores)}
    best = max(means, key=lambda rate: (means[rate], -rate))
    return Choice(best, len(means) > 1 and best in (min(means), max(means)), means)


def clock_arm(arms: Sequence[str]) -> str:
    """The arm whose time the others are given: EBPO, or without it the first beside GRPO."""
    return SUBJECT if SUBJECT in arms else next((arm for arm in arms if arm != REFERENCE), arms[0])


def equal_steps(steps: int, seconds_R: Sequence[float], target_R: Sequence[float]) -> int:
    """Steps that last as long as the runs of `target_R`, where `steps` take `seconds_R`: medians over seeds.

    Medians, since a busy machine disturbs single runs; in eighths of `steps`, so that small disturbances do not matter
    and runs of about the same length stand for each other.
    """
    eighths = max(1, round(8 * float(np.median(target_R) / np.median(seconds_R))))
    return max(1, round(eighths * steps / 8))


class Difference(NamedTuple):
    """A mean over seeds with its standard error, 95 % interval and two-sided p; None where one seed gives none."""

    value: float
    se: float | None
    low: float | None
    high: float | None
    p: float | None
    seeds: int


def mean_of(values: Iterable[float]) -> Difference:
    """Student's interval for the mean: n - 1 degrees of freedom; p is against 0."""
    x = np.array(list(values), dtype=np.float64)
    value = float(x.mean())
    if len(x) < 2:
        return Difference(value, None, None, None, None, len(x))
    se = float(x.std(ddof=1) / math.sqrt(len(x)))
    half = float(student.ppf(0.975, len(x) - 1)) * se
    p = float(2 * student.sf(abs(value) / se, len(x) - 1)) if se > 0 else float(value == 0)
    return Difference(value, se, value - half, value + half, p, len(x))


def paired(mine: BySeed, other: BySeed) -> Difference | None:
    """Mean of mine less other over the seeds that both have."""
    shared = sorted(mine.keys() & other.keys())
    return mean_of(mine[s] - other[s] for s in shared) if shared else None


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values: below a level, the family-wise error rate is below it too."""
    order = sorted(range(len(ps)), key=lambda i: ps[i])
    adjusted, running = [0.0] * len(ps), 0.0
    for place, i in enumerate(order):
        running = max(running, min(1.0, (len(ps) - place) * ps[i]))
        adjusted[i] = running
    return adjusted


def value_at(time_T: Sequence[float], value_T: Sequence[float], time: float) -> float:
    """A curve at a time, linear between its records. The time must lie within them."""
    assert time_T[0] <= time <= time_T[-1], "a curve is not continued beyond its end"
    return float(np.interp(time, time_T, value_T))


def references(arm: str) -> tuple[str, ...]:
    """What an arm is compared with: GRPO, and an arm with an estimated weight also with fixed ones."""
    if arm in (REFERENCE, NO_SHRINKAGE, FULL_SHRINKAGE):
        return () if arm == REFERENCE else (REFERENCE,)
    return (REFERENCE, NO_SHRINKAGE, FULL_SHRINKAGE) if label(arm).kin == "ebpo" else (REFERENCE,)


def choices(runs: Sequence[Row]) -> dict[tuple[str, int, str], Choice]:
    """What the tuning runs of the table say about each (arm, group size, order)."""
    scores: dict[tuple[str, int, str], dict[float, list[float]]] = {}
    for r in runs:
        if r["stage"] == "tuning":
            cell = scores.setdefault((r["arm"], r["group_size"], r["order"]), {})
            cell.setdefault(r["learning_rate"], []).append(r["final"])
    return {key: choose_rate(found) for key, found in scores.items()}


def values(runs: Sequence[Row], curves: Sequence[Row]) -> Values:
    """Every measure of every evaluation run.

    final: pass@1 after the last step; mean: over all validations of a run but the first; common_time: linear in
    training seconds, when the fastest arm of the seed has finished, its schedule complete and the others' not;
    equal_time: at the end of schedules that all last as long as the clock arm's. Times are compared within one
    invocation (common_time) or one machine (equal_time) only.
    """
    found: Values = {}
    plain = [r for r in runs if r["stage"] == "evaluation"]
    for cell in dict.fromkeys((r["group_size"], r["order"]) for r in plain):
        here = [r for r in plain if (r["group_size"], r["order"]) == cell]
        measures: dict[str, dict[str, BySeed]] = {}
        for measure in ("final", "mean", *DESCRIBED):
            for r in here:
                if r[measure] is not None:
                    measures.setdefault(measure, {}).setdefault(r["arm"], {})[r["seed"]] = r[measure]
        for measure, arm, seed, value in (*_common_time(here, curves), *_equal_time(here, runs)):
            measures.setdefault(measure, {}).setdefault(arm, {})[seed] = value
        found[cell] = measures
    return found


def _by_seed(rows: Sequence[Row]) -> dict[int, dict[str, Row]]:
    found: dict[int, dict[str, Row]] = {}
    for r in rows:
        found.setdefault(r["seed"], {})[r["arm"]] = r
    return found


def _common_time(here: Sequence[Row], curves: Sequence[Row]) -> Iterable[tuple[str, str, int, float]]:
    arms = {r["arm"] for r in here}
    of_run: dict[str, list[Row]] = {}
    for c in curves:
        of_run.setdefault(c["run"], []).append(c)
    for seed, by_arm in _by_seed(here).items():
        invocations = {(r["invocation"], r["machine"]) for r in by_arm.values()}
        if by_arm.keys() != arms or len(invocations) > 1 or len(arms) < 2:
            continue
        first = min(r["seconds"] for r in by_arm.values())
        for arm, r in by_arm.items():
            line = of_run[r["run"]]
            at = value_at([c["seconds"] for c in line], [c["validation_pass1"] for c in line], first)
            yield "common_time", arm, seed, at


def _equal_time(here: Sequence[Row], runs: Sequence[Row]) -> Iterable[tuple[str, str, int, float]]:
    clock = clock_arm(list(dict.fromkeys(r["arm"] for r in here)))
    longer = {(r["arm"], r["group_size"], r["order"], r["seed"], r["steps"]): r for r in runs if r["stage"] != "tuning"}
    pace = {arm: [r["seconds"] for r in here if r["arm"] == arm] for arm in {r["arm"] for r in here}}
    for seed, by_arm in _by_seed(here).items():
        if clock not in by_arm:
            continue
        target = by_arm[clock]
        for arm, r in by_arm.items():
            steps = equal_steps(r["steps"], pace[arm], pace[clock])
            run = longer.get((arm, r["group_size"], r["order"], seed, steps))
            if run is not None and {run["machine"], r["machine"]} == {target["machine"]}:
                yield "equal_time", arm, seed, run["final"]
                yield "equal_time_steps", arm, seed, float(steps)
                yield "equal_time_seconds", arm, seed, run["seconds"]


def findings(runs: Sequence[Row], curves: Sequence[Row]) -> list[dict[str, Any]]:
    """One row a measure and arm (reference empty), and one a difference to a reference, with Holm's p and a verdict.

    comparisons: size of the family that Holm's correction is over. verdict: "resolved" (p below 0.05 after it),
    "resolved alone" (before it only), "not resolved", or "one seed", where no interval exists.
    """
    tuned = choices(runs)
    rate = {(r["arm"], r["group_size"], r["order"]): r["learning_rate"] for r in runs if r["stage"] == "evaluation"}
    rows: list[dict[str, Any]] = []
    for cell, measures in values(runs, curves).items():
        for measure, by_arm in measures.items():
            for arm, mine in by_arm.items():
                place = (arm, *cell)
                base = {"group_size": cell[0], "order": cell[1], "arm": arm, "learning_rate": rate[place]}
                base |= {"edge": place in tuned and tuned[place].edge, "measure": measure}
                level = mean_of(mine.values())._replace(p=None)
                rows.append({**base, "reference": "", **level._asdict()})
                for other in references(arm) if measure in COMPARED else ():
                    difference = paired(mine, by_arm.get(other, {}))
                    if difference is not None:
                        rows.append({**base, "reference": other, **difference._asdict()})
    _correct(rows)
    return rows


def _correct(rows: list[dict[str, Any]]) -> None:
    """Holm over all differences that arms and cells make; those whose runs are missing count as p = 1."""
    for row in rows:
        row |= {"p_holm": None, "comparisons": None, "verdict": ""}
    here = {(r["group_size"], r["order"], r["arm"]) for r in rows}
    planned = sum((*cell, other) in here for *cell, arm in here for other in references(arm))
    for measure in COMPARED:
        family = [r for r in rows if r["measure"] == measure and r["reference"]]
        with_p = [r for r in family if r["p"] is not None]
        missing = [1.0] * (planned - len(with_p))
        for row, p in zip(with_p, holm([r["p"] for r in with_p] + missing), strict=False):
            row |= {"p_holm": p, "comparisons": planned}
        for row in family:
            row["verdict"] = verdict(row["p"], row["p_holm"])


def verdict(p: float | None, p_holm: float | None) -> str:
    """A word for a difference."""
    if p is None or p_holm is None:
        return SINGLE
    return RESOLVED if p_holm < 0.05 else ALONE if p < 0.05 else UNRESOLVED


def curve_rows(curves: Sequence[Row], metrics: Sequence[str]) -> list[dict[str, Any]]:
    """Means over seeds of the evaluation runs' curves, with the difference to GRPO paired by seed; a long table."""
    cells: dict[tuple[Any, ...], dict[str, BySeed]] = {}
    rates: dict[tuple[Any, ...], float] = {}
    for c in curves:
        for metric in metrics if c["stage"] == "evaluation" else ():
            if c[metric] is not None:
                place = (c["group_size"], c["order"], metric, c["step"])
                cells.setdefault(place, {}).setdefault(c["arm"], {})[c["seed"]] = c[metric]
                rates[c["arm"], *place[:2]] = c["learning_rate"]
    rows = []
    for (size, order, metric, step), by_arm in cells.items():
        for arm, mine in by_arm.items():
            told = mean_of(mine.values())
            gap = None if arm == REFERENCE else paired(mine, by_arm.get(REFERENCE, {}))
            rows.append({
                "estimator": arm, "group_size": size, "order": order, "learning_rate": rates[arm, size, order],
                "metric": metric, "step": step, "value": told.value, "se": told.se,
                "difference": gap and gap.value, "difference_se": gap and gap.se, "seeds": told.seeds,
            })  # fmt: skip
    return rows
