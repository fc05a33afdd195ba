"""The tiny language model's points: what its gradient noise predicted, and the steps it took (`llm/measured/noise`).

language_model.csv: nu ± its standard error at the warm start, rollouts a step, and steps to a validation pass@1 by
seed, of runs at one learning rate for all methods. The fits of the chains leave these points out.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np

from ebpo_sim.compare.differences import mean_of
from ebpo_sim.labels import REFERENCE
from ebpo_sim.studies.prediction.cells import Cell
from ebpo_sim.studies.prediction.outcomes import Point
from ebpo_sim.studies.prediction.predict import predicted

TABLE = Path(__file__).with_name("language_model.csv")
WORLD = "tiny language model"


def measured() -> list[Point]:
    """A point a method and target, as those of the chains; its target is the pass@1."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        read = list(csv.DictReader(file))
    by = {(r["estimator"], r["target"], r["seed"]): float(r["steps"]) for r in read}
    noise = {r["estimator"]: {"nu": float(r["nu"]), "rollouts": float(r["rollouts"])} for r in read}
    points = []
    for arm, target in dict.fromkeys((r["estimator"], r["target"]) for r in read if r["estimator"] != REFERENCE):
        seeds = sorted({s for a, t, s in by if (a, t) == (arm, target)})
        ratios = np.log([by[arm, target, s] / by[REFERENCE, target, s] for s in seeds])
        cell = Cell(WORLD, WORLD, "adam", 2, int(noise[arm]["rollouts"]), float(target), float(target))
        expected = predicted({**noise[arm]}, {**noise[REFERENCE]})
        points.append(Point(arm, cell, target, ratios, {"noise": expected}))
    return points


def compared() -> list[dict[str, Any]]:
    """Predicted, measured with its interval, and the residual log(measured / predicted)."""
    rows = []
    for p in measured():
        found, expected = mean_of(p.log_ratio_R), p.predictors["noise"] or math.nan
        ends = {k: math.exp(v) for k, v in (("low", found.low), ("high", found.high)) if v is not None}
        value = {"measured": math.exp(found.value), **ends, "residual": found.value - math.log(expected)}
        rows.append({"estimator": p.arm, "target": p.target, "predicted": expected, **value})
    return rows
