"""What each arm costs and where it ends, paired by seed with GRPO in the same cell, shuffled, at own rates.

    pass@1 at the end, asymptote    differences; the asymptote and the midpoint are fitted to each seed's curve
    midpoint (rollouts)             ratio to GRPO's: efficiency, apart from where the curve ends
    rollouts, rows, seconds a:b     ratio of what a target takes; rates were tuned for the end, not for targets

Ratios are held as logarithms. A number that one of the seeds does not have is not there. The arms of one world, regime
and optimiser are a family for each quantity (Holm); "appears" is better than GRPO.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ebpo_sim.compare.differences import Difference, mean_of
from ebpo_sim.compare.plan import Record, Series, middle
from ebpo_sim.compare.sigmoid import fit_sigmoid
from ebpo_sim.compare.tables import judge_family
from ebpo_sim.compare.verdicts import Verdict, in_regime, judge
from ebpo_sim.labels import REFERENCE
from ebpo_sim.studies.prediction.cells import TARGETS, reached
from ebpo_sim.studies.prediction.outcomes import COSTS, MARGIN
from ebpo_sim.studies.training.cells import Cell, Settings

Rows = list[dict[str, Any]]
Found = Mapping[tuple[str, Any, Any], Series]
Numbers = list[dict[tuple[str, str], float | None]]  # by seed
END, ASYMPTOTE, MIDPOINT = "pass@1 at the end", "asymptote", "midpoint, rollouts"
LEAST = 0.01  # of pass@1: the margin of a difference
EMPTY = dict.fromkeys(Difference._fields)


def cumulated(curve: Sequence[Record]) -> list[dict[str, float]]:
    """Step, pass1, and the rollouts drawn and rows trained so far, from records of their means a step."""
    found = [{"step": curve[0]["step"], "pass1": curve[0]["pass1"], "rollouts": 0.0, "rows": 0.0}]
    for before, row in pairwise(curve):
        steps = row["step"] - before["step"]
        spent = {"rollouts": row["rollouts"], "rows": row["trained_rows"]}
        found.append({
            "step": row["step"], "pass1": row["pass1"], **{k: found[-1][k] + steps * v for k, v in spent.items()},
        })  # fmt: skip
    return found


def numbers(line: Sequence[Record], levels: Mapping[str, float]) -> dict[tuple[str, str], float | None]:
    """(quantity, target) -> what one seed's line of `cumulated` says of it."""
    found: dict[tuple[str, str], float | None] = {(END, ""): line[-1]["pass1"]}
    for target, level in levels.items():
        met = reached(line, level) if line[0]["pass1"] < level else None  # where GRPO gains nothing
        for name, (a, b) in {"rollouts": (1, 0), "rows": (0, 1), **COSTS}.items():
            found[name, target] = a * met["rollouts"] + b * met["rows"] if met else None
    fit = fit_sigmoid([r["rollouts"] for r in line[1:]], [r["pass1"] for r in line[1:]], line[0]["pass1"])
    return found | {(ASYMPTOTE, ""): fit.asymptote, (MIDPOINT, ""): fit.midpoint}


def levels(settings: Settings, found: Found, cell: Cell) -> dict[str, float]:
    """The targets of a cell: shares of what GRPO at the middle group size gains in the mean."""
    curves = found[REFERENCE, cell._replace(group_size=middle(settings.group_sizes)), "own"].curves.values()
    first, last = (float(np.mean([curve[i]["pass1"] for curve in curves])) for i in (0, -1))
    return {name: first + share * (last - first) for name, share in TARGETS.items()}


def outcomes(settings: Settings, found: Found) -> Rows:
    """The rows of `priced`, shuffled, at own rates."""
    known, aims = dict[Any, Numbers](), dict[Any, Mapping[str, float]]()
    for (arm, cell, tuning), series in found.items():
        if tuning == "own" and cell.order == settings.orders[0]:
            aims[cell] = levels(settings, found, cell)
            lines = (cumulated(series.curves[seed]) for seed in sorted(series.curves))
            known[arm, cell, tuning] = [numbers(line, aims[cell]) for line in lines]
    return priced(found, known, aims, ("world", "regime", "optimiser"))


def priced(found: Found, known: Mapping[Any, Numbers], aims: Mapping[Any, Any], place: tuple[str, ...]) -> Rows:
    """A row a quantity, arm and cell: mean (the arm's), and of the difference or log ratio to GRPO's its value, se,
    95 % interval, p, seeds, Holm's p and word; of GRPO itself the mean alone. known: the numbers by seed, aims: the
    targets of a cell; place: the columns that, with quantity and target, name a family."""
    rows: Rows = []
    for (arm, cell, tuning), mine in known.items():
        series = found[arm, cell, tuning]
        for quantity, target in mine[0]:
            name = {"estimator": arm, **cell._asdict(), "learning_rate": series.rate, "edge": series.edge}
            level = aims[cell].get(target)
            rows.append(
                {**name, "quantity": quantity, "target": target, "level": level}
                | _compared(mine, known[REFERENCE, cell, tuning], quantity, target)
            )
    families: dict[tuple[Any, ...], Rows] = {}
    for row in rows:
        if row["estimator"] != REFERENCE:
            families.setdefault(tuple(row[k] for k in (*place, "quantity", "target")), []).append(row)
    for family in families.values():
        judge_family([r for r in family if r["value"] is not None], len(family), _word(family[0]))
    return rows


def _compared(mine: Any, grpo: Any, quantity: str, target: str) -> dict[str, Any]:
    both = [[numbers[quantity, target] for numbers in run] for run in (mine, grpo)]
    missing = [x is None for x in both[0]]
    mean = None if any(missing) else float(np.mean(both[0]))
    rest: dict[str, Any] = {"p_holm": None, "comparisons": None, "verdict": None if mine is grpo else "not studied"}
    if mine is grpo or any(missing) or any(x is None for x in both[1]) or len(mine) < 2:
        return {"mean": mean, **EMPTY, **rest}
    scale = (lambda x: x) if quantity in (END, ASYMPTOTE) else math.log
    return {"mean": mean, **mean_of(scale(a) - scale(b) for a, b in zip(*both, strict=True))._asdict(), **rest}


def _word(row: Mapping[str, Any]) -> Callable[[Difference, float | None], Verdict]:
    sign, margin = (1, LEAST) if row["quantity"] in (END, ASYMPTOTE) else (-1, MARGIN)

    def word(found: Difference, p_holm: float | None) -> Verdict:
        return in_regime(judge(found, sign, margin, p_holm), row["noise_ratio"])

    return word
