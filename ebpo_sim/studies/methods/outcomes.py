"""Leaderboards: what each recipe costs to a target and where it ends, paired by seed with GRPO in the same cell.

    rollouts, rows, seconds a:b     ratio of what the far target takes; rates were tuned for rollouts to it
    rollouts, matched step          the same, to GRPO at the rate whose mean step to the target is as long
    asymptote; midpoint, rollouts   the sigmoid's, fitted to each seed's curve: where it ends, how soon

A step's length is its KL divergence, nats a token; GRPO's costs between two rates of its grid are linear in its log.
The methods of a regime are a family for each quantity (Holm). Ratios are held as logarithms.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from ebpo_sim.compare.differences import Difference, mean_of
from ebpo_sim.compare.plan import Job, Record
from ebpo_sim.compare.tables import judge_family
from ebpo_sim.compare.verdicts import Verdict, in_regime, judge
from ebpo_sim.labels import REFERENCE
from ebpo_sim.studies.methods.arms import kind
from ebpo_sim.studies.methods.cells import PLACEBO, Cell, Settings
from ebpo_sim.studies.prediction.cells import reached
from ebpo_sim.studies.prediction.outcomes import COSTS, MARGIN
from ebpo_sim.studies.training.outcomes import ASYMPTOTE, END, LEAST, MIDPOINT, Found, Numbers, numbers, priced

Rows = list[dict[str, Any]]
MATCHED = "rollouts, matched step"
QUANTITIES = (("rollouts", "far"), ("rows", "far"), *((name, "far") for name in COSTS), (MATCHED, "far"),
              (END, ""), (ASYMPTOTE, ""), (MIDPOINT, ""))  # fmt: skip
FITTED = 3  # every how many-th record a sigmoid is fitted to


class Runs(NamedTuple):
    """Evaluation runs by (arm, cell, tuning), and GRPO's at every rate of the grids."""

    found: Found
    ladder: Mapping[Job, Record]


Known = dict[tuple[str, Cell, str], Numbers]


def known_numbers(runs: Runs) -> Known:
    """What every evaluation run says of every quantity, by seed."""
    found: Known = {}
    for (arm, cell, tuning), series in runs.found.items():
        aims = {"near": cell.near, "far": cell.far}
        lines = [series.curves[seed] for seed in sorted(series.curves)]
        found[arm, cell, tuning] = [numbers([line[0], *line[1::FITTED]], {}) | _costs(line, aims) for line in lines]
    ladders = {cell: ladder(runs, cell) for cell in dict.fromkeys(cell for _, cell, _ in found)}
    for (arm, cell, tuning), mine in found.items():
        steps_R = [step_length(curve, cell.far) for _, curve in sorted(runs.found[arm, cell, tuning].curves.items())]
        for number, value in zip(mine, matched(steps_R, ladders[cell]), strict=True):
            number[MATCHED, "far"] = value
    return found


def _costs(line: Sequence[Record], aims: Mapping[str, float]) -> dict[tuple[str, str], float | None]:
    """The costs to each target, at every record's resolution."""
    found: dict[tuple[str, str], float | None] = {(END, ""): line[-1]["pass1"]}
    for target, level in aims.items():
        met = reached(line, level) if line[0]["pass1"] < level else None
        for name, (a, b) in {"rollouts": (1, 0), "rows": (0, 1), **COSTS}.items():
            found[name, target] = a * met["rollouts"] + b * met["rows"] if met else None
    return found


def step_length(curve: Sequence[Record], level: float) -> float | None:
    """Log of the mean KL divergence of a step up to the record that meets the level; None where none does."""
    met = next((row for row in curve[1:] if row["pass1"] >= level and row["kl"] > 0), None)
    return math.log(met["kl"] / met["step"]) if met else None


class Rung(NamedTuple):
    """GRPO at one rate: mean log length of a step, and log rollouts to the far target by seed."""

    length: float
    cost_R: tuple[float, ...]


def ladder(runs: Runs, cell: Cell) -> list[Rung]:
    """GRPO's rates in a cell at which every seed met the target, shortest steps first."""
    found = []
    for rate in dict.fromkeys(job.rate for job in runs.ladder if job.cell == cell):
        curves = [r["curve"] for job, r in runs.ladder.items() if (job.cell, job.rate) == (cell, rate)]
        lengths = [step_length(curve, cell.far) for curve in curves]
        costs = [reached(curve, cell.far) for curve in curves]
        if None not in lengths and None not in costs:
            mean = float(np.mean([x for x in lengths if x is not None]))
            found.append(Rung(mean, tuple(math.log(x["rollouts"]) for x in costs if x)))
    return sorted(found)


def matched(steps_R: Sequence[float | None], rungs: Sequence[Rung]) -> list[float | None]:
    """GRPO's rollouts by seed at the mean step of these runs; None for all where that is not within its ladder."""
    if None not in steps_R:
        mean = float(np.mean([x for x in steps_R if x is not None]))
        for a, b in pairwise(rungs):
            if a.length <= mean <= b.length:
                part = (mean - a.length) / (b.length - a.length)
                return [math.exp(x + part * (y - x)) for x, y in zip(a.cost_R, b.cost_R, strict=True)]
    return [None] * len(steps_R)


def table(runs: Runs, known: Known) -> Rows:
    """The long table: a row a quantity, arm and cell as `training.outcomes.priced` has it, families by cell; met: seeds
    that have the number. The design's arms are no family of it."""
    shown = {key: [without(number) for number in x] for key, x in known.items() if kind(key[0]) != "design"}
    aims = {cell: {"near": cell.near, "far": cell.far} for _, cell, _ in shown}
    rows = priced(runs.found, shown, aims, ("world", "regime", "minibatches", "mismatch"))
    mine = {(arm, *cell): x for (arm, cell, _), x in shown.items()}
    for row in rows:
        here = mine[row["estimator"], *(row[name] for name in Cell._fields)]
        row["met"] = sum(number[row["quantity"], row["target"]] is not None for number in here)
    return rows


def without(number: Mapping[tuple[str, str], float | None]) -> dict[tuple[str, str], float | None]:
    """The numbers that are an arm's own."""
    return {k: v for k, v in number.items() if k[0] != MATCHED}


def board(settings: Settings, known: Known, cells: Sequence[Cell], arms: Sequence[str]) -> Rows:
    """The leaderboard of the cells, one a world: per arm and quantity the mean over worlds of the log ratio or
    difference to GRPO, its interval over seeds; Holm over the arms. None where a run lacks the number; met, runs: how
    many have it, of all."""
    rows: Rows = []
    for quantity, target in QUANTITIES:
        family, ratio = list[dict[str, Any]](), quantity not in (END, ASYMPTOTE)
        for arm in arms:
            pairs_WR: list[list[tuple[Any, Any]]] = [
                [(mine["rollouts" if quantity == MATCHED else quantity, target],
                  mine[MATCHED, target] if quantity == MATCHED else grpo[quantity, target])
                 for mine, grpo in zip(known[arm, cell, "own"], known[REFERENCE, cell, "own"], strict=True)]
                for cell in cells
            ]  # fmt: skip
            met = sum(a is not None for line in pairs_WR for a, _ in line)
            found = None
            if not any(x is None for line in pairs_WR for pair in line for x in pair):
                scale = math.log if ratio else float
                found = mean_of(np.mean([[scale(a) - scale(b) for a, b in line] for line in pairs_WR], axis=0))
            numbers = found._asdict() if found else dict.fromkeys(Difference._fields)
            row = {
                "regime": cells[0].regime, "minibatches": cells[0].minibatches, "mismatch": cells[0].mismatch,
                "noise_ratio": float(np.mean([cell.noise_ratio for cell in cells])), "worlds": len(cells),
                "estimator": arm, "kind": kind(arm), "quantity": quantity, "target": target, "met": met,
                "runs": settings.seeds * len(cells), **numbers, "p_holm": None, "comparisons": None,
                "verdict": None if arm == REFERENCE else "not studied",
            }  # fmt: skip
            rows.append(row)
            if arm != REFERENCE:
                family.append(row)
        there = [row for row in family if row["value"] is not None]
        judge_family(there, len(family), partial(_word, cells[0], ratio))
    return rows


def _word(cell: Cell, ratio: bool, found: Difference, p_holm: float | None) -> Verdict:
    sign, margin = (-1, MARGIN) if ratio else (1, LEAST)
    return in_regime(judge(found, sign, margin, p_holm), cell.noise_ratio)


def boards(settings: Settings, known: Known, cells: Sequence[Cell]) -> Rows:
    """A leaderboard a regime, and one a cell of the sweeps."""
    groups: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in cells:
        swept = (cell.minibatches, cell.mismatch) != (settings.staleness[0], settings.mismatch[0])
        groups.setdefault((cell.regime, swept and (cell.minibatches, cell.mismatch)), []).append(cell)
    rows: Rows = []
    for mine in groups.values():
        arms = [a for a, cell, _ in known if cell == mine[0] and kind(a) != "design"]
        rows += board(settings, known, mine, arms)
    return rows


def gains(runs: Runs, cells: Sequence[Cell]) -> Rows:
    """What the placebo and GRPO gain in held-out pass@1 from the start to the end, by cell."""
    rows: Rows = []
    for cell in cells:
        for arm in (PLACEBO, REFERENCE):
            curves = runs.found[arm, cell, "own"].curves.values()
            found = mean_of(curve[-1]["pass1"] - curve[0]["pass1"] for curve in curves)
            place = {"world": cell.world, "regime": cell.regime, "noise_ratio": cell.noise_ratio}
            rows.append({**place, "estimator": arm, **found._asdict(), "verdict": judge(found, 1, LEAST)})
    return rows
