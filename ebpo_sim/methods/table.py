"""The capability table: parts by rungs, computed from needs and provides."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ebpo_sim.estimators import make, names, needs_prior
from ebpo_sim.methods.shaping import SHAPINGS
from ebpo_sim.numbers.mixing import Prior
from ebpo_sim.objectives import AGGREGATIONS, Objective, make_objective, objective_names
from ebpo_sim.part import Need
from ebpo_sim.rungs import RUNGS, beyond, missing
from ebpo_sim.sampling import ALLOCATIONS, SELECTIONS


def capabilities() -> list[dict[str, Any]]:
    """A row a part: kind, part, and for each rung "" where it stands, else what is missing there."""
    flat = Prior((0.5,), (1.0,))
    rows = []
    for name in names():
        oracle: frozenset[Need] = frozenset({"true_prior"} if needs_prior(name) else ())
        estimator = make(name, prior=flat) if needs_prior(name) else make(name)
        rows.append(_row("estimator", name, estimator.needs | oracle))
    for registry in (ALLOCATIONS, SELECTIONS):
        rows += [_row(registry.kind, name, registry.make(name).needs) for name in registry.names()]
    rows += [_row(SHAPINGS.kind, name, SHAPINGS.make(name).needs) for name in SHAPINGS.names()]
    for name in objective_names():
        objective = make_objective(name)
        rows.append(_row("objective", name, objective.needs | {"log_probs"}, objective))
    rows += [_row("aggregation", name, {"log_probs", "token_weights"}) for name in AGGREGATIONS.names()]
    return rows


def _row(kind: str, part: str, needs: Iterable[Need], objective: Objective | None = None) -> dict[str, Any]:
    row: dict[str, Any] = {"kind": kind, "part": part}
    for rung in RUNGS:
        lacking = missing(needs, rung)
        further = "" if objective is None else beyond(objective, rung)
        if "log_probs" in lacking:
            row[rung.name] = "no tokens"
        else:
            row[rung.name] = f"needs {', '.join(lacking)}" if lacking else further
    return row
