"""From a table of runs to findings: pure functions, no training, no files.

Runs of a cell (group size, order) are paired by seed. Intervals are 95 %, Student's t over seeds, one at a time; the
words are `compare.verdicts`', after Holm's correction over all differences of the same measure in all cells.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ebpo_sim.compare.differences import mean_of, paired
from ebpo_sim.compare.plan import Choice, Series, choose_rate, equal_steps
from ebpo_sim.compare.tables import judge_family
from ebpo_sim.labels import FULL_SHRINKAGE, NO_SHRINKAGE, REFERENCE, label
from llm.compare_runner import Cell, clock_arm

Row = Mapping[str, Any]
BySeed = dict[int, float]
Values = dict[Cell, dict[str, dict[str, BySeed]]]  # cell, measure, arm

OUTCOMES = ("final", "mean", "common_time", "equal_time")  # all are validation pass@1
COMPARED = (*OUTCOMES, "entropy")
DESCRIBED = (
    "entropy", "zero_signal", "rows_trained", "shrinkage", "grad_norm", "kl_step", "length", "missing_eos",
    "seconds_per_step",
)  # fmt: skip


def value_at(time_T: Sequence[float], value_T: Sequence[float], time: float) -> float:
    """A curve at a time, linear between its records. The time must lie within them."""
    assert time_T[0] <= time <= time_T[-1], "a curve is not continued beyond its end"
    return float(np.interp(time, time_T, value_T))


def references(arm: str) -> tuple[str, ...]:
    """What an arm is compared with: GRPO, and an arm with an estimated weight also with fixed ones."""
    if arm in (REFERENCE, NO_SHRINKAGE, FULL_SHRINKAGE):
        return () if arm == REFERENCE else (REFERENCE,)
    return (REFERENCE, NO_SHRINKAGE, FULL_SHRINKAGE) if label(arm).kin == "ebpo" else (REFERENCE,)


def cell_of(row: Row) -> Cell:
    """The cell that a run's row is of."""
    return Cell(row["group_size"], row["order"])


def choices(runs: Sequence[Row]) -> dict[tuple[str, Cell], Choice]:
    """What the tuning runs of the table say about each arm and cell."""
    scores: dict[tuple[str, Cell], dict[float, list[float]]] = {}
    for r in runs:
        if r["stage"] == "tuning":
            found = scores.setdefault((r["arm"], cell_of(r)), {})
            found.setdefault(r["learning_rate"], []).append(r["final"])
    return {place: choose_rate(found) for place, found in scores.items()}


def values(runs: Sequence[Row], curves: Sequence[Row]) -> Values:
    """Every measure of every evaluation run.

    final: pass@1 after the last step; mean: over all validations of a run but the first; common_time: linear in
    training seconds, when the fastest arm of the seed has finished, its schedule complete and the others' not;
    equal_time: at the end of schedules that all last as long as the clock arm's. Times are compared within one
    invocation (common_time) or one machine (equal_time) only.
    """
    found: Values = {}
    plain = [r for r in runs if r["stage"] == "evaluation"]
    for cell in dict.fromkeys(map(cell_of, plain)):
        here = [r for r in plain if cell_of(r) == cell]
        columns = [(m, r["arm"], r["seed"], r[m]) for m in ("final", "mean", *DESCRIBED) for r in here]
        for measure, arm, seed, value in (*columns, *_common_time(here, curves), *_equal_time(here, runs)):
            if value is not None:
                found.setdefault(cell, {}).setdefault(measure, {}).setdefault(arm, {})[seed] = value
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

    edge: of the grid, perhaps not the arm's best rate. comparisons: size of the family that Holm's correction is over.
    """
    tuned, found = choices(runs), values(runs, curves)
    rate = {(r["arm"], cell_of(r)): r["learning_rate"] for r in runs if r["stage"] == "evaluation"}
    rows: list[dict[str, Any]] = []
    for cell, measures in found.items():
        for measure, by_arm in measures.items():
            for arm, mine in by_arm.items():
                edge = (arm, cell) in tuned and tuned[arm, cell].edge
                base = {**cell._asdict(), "arm": arm, "learning_rate": rate[arm, cell], "edge": edge}
                base |= {"measure": measure}
                empty = {"p_holm": None, "comparisons": None, "verdict": ""}
                rows.append({**base, "reference": "", **mean_of(mine.values())._replace(p=None)._asdict(), **empty})
                for other in references(arm) if measure in COMPARED else ():
                    difference = paired(mine, by_arm.get(other, {}))
                    if difference is not None:
                        rows.append({**base, "reference": other, **difference._asdict(), **empty})
    here = {(r["group_size"], r["order"], r["arm"]) for r in rows}
    planned = sum((*cell, other) in here for *cell, arm in here for other in references(arm))
    for measure in COMPARED:
        judge_family([r for r in rows if r["measure"] == measure and r["reference"]], planned)
    return rows


def evaluation(runs: Sequence[Row], curves: Sequence[Row]) -> list[Series]:
    """The evaluation runs' curves, by arm and cell."""
    tuned, found = choices(runs), dict[tuple[str, Cell], Series]()
    for c in curves:
        if c["stage"] == "evaluation":
            place = c["arm"], cell_of(c)
            edge = place in tuned and tuned[place].edge
            series = found.setdefault(place, Series(c["arm"], place[1]._asdict(), c["learning_rate"], edge, {}))
            series.curves.setdefault(c["seed"], []).append(dict(c))
    return list(found.values())
