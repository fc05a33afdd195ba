"""What the ledger's claims about training rest on: a small table of a full run of this study.

A line a method and cell (far = 2: a run without a target), ratios to GRPO as logs, standard errors beside them. The
ledger reads the committed copy: `cp results/prediction_study/evidence.csv ebpo_sim/claims/training.csv` renews it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ebpo_sim.studies.prediction.cells import TARGETS
from ebpo_sim.studies.prediction.ends import EQUAL
from ebpo_sim.studies.prediction.outcomes import CURRENCIES, LOST, Found, Rows, spent

PLACE = ("estimator", "world", "regime", "setup", "group_size", "rollouts", "near", "far")
COLUMNS = {  # (quantity up to ", less", target) to the column
    ("learning rate", None): "rate",
    ("predicted ratio of steps, start", None): "predicted",
    ("ratio of error, start", None): "error",
    ("ratio of steps", "near"): "near_ratio",
    ("ratio of steps", "far"): "far_ratio",
    (EQUAL, "far"): "equal_ratio",
    ("pass1 at the end, less", None): "pass1",
    ("pass16 at the end, less", None): "pass16",
    ("asymptote, less", None): "asymptote",
    ("log midpoint, less", None): "midpoint",
}
LOGS = ("predicted", "error", "near_ratio", "far_ratio", "equal_ratio")
UNCERTAIN = ("near_ratio", "far_ratio", "equal_ratio", "pass1", "pass16", "asymptote", "midpoint")


def evidence(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The lines; numbers that do not exist are empty."""
    empty = dict.fromkeys(
        n for name in COLUMNS.values() for n in ((name, f"{name}_se") if name in UNCERTAIN else (name,))
    )
    lines: dict[tuple[Any, ...], dict[str, Any]] = {}
    for r in rows:
        quantity, less, _ = r["quantity"].partition(", less")
        name = COLUMNS.get((quantity + less, r["target"]))
        if name and r["value"] is not None:
            place = {k: r[k] for k in PLACE}
            line = lines.setdefault(tuple(place.values()), place | empty)
            line[name] = _short(math.log(r["value"]) if name in LOGS else r["value"])
            if name in UNCERTAIN:
                line[f"{name}_se"] = _short(r["se"])
    return list(lines.values())


def run_rows(found: Found) -> Rows:
    """A row a method, cell, target and seed: its cost in every currency (rollouts: drawn until then, N a step) and in
    entropy, empty where it was missed."""
    rows: Rows = []
    for (arm, cell, _), mine in found.items():
        place = {"estimator": arm, **cell._asdict(), "N": cell.rollouts, "learning_rate": mine.rate}
        for target in TARGETS:
            costs = spent(mine, target)
            rows += [
                {
                    **place,
                    "target": target,
                    "seed": seed,
                    **{n: costs.get(seed, {}).get(n) for n in (*CURRENCIES, LOST)},
                }
                for seed in mine.curves
            ]
    return rows


def _short(value: float) -> float:
    return float(f"{value:.6g}")
