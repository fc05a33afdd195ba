"""The capability table: parts by rungs, computed from needs and provides."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ebpo_sim.estimators import make, names, needs_prior
from ebpo_sim.numbers.mixing import Prior
from ebpo_sim.objectives import make_objective, objective_names
from ebpo_sim.part import Need
from ebpo_sim.rungs import RUNGS, TRL, VERL, missing

ADAPTERS = (TRL, VERL)  # they take estimators; the objective stays the trainer's own


def capabilities() -> list[dict[str, Any]]:
    """A row a part: kind, part, and for each rung "" where it stands, else what is missing there."""
    flat = Prior((0.5,), (1.0,))
    rows = []
    for name in names():
        oracle: frozenset[Need] = frozenset({"true_prior"} if needs_prior(name) else ())
        estimator = make(name, prior=flat) if needs_prior(name) else make(name)
        rows.append(_row("estimator", name, estimator.needs | oracle))
    rows += [_row("objective", name, kind.needs) for name, kind in ((n, make_objective(n)) for n in objective_names())]
    return rows


def _row(kind: str, part: str, needs: Iterable[Need]) -> dict[str, Any]:
    row: dict[str, Any] = {"kind": kind, "part": part}
    for rung in RUNGS:
        if kind == "objective" and rung in ADAPTERS:
            row[rung.name] = "the trainer's own"
        elif kind == "objective" and "log_probs" not in rung.provides:
            row[rung.name] = "no tokens"
        else:
            lacking = missing(needs, rung)
            row[rung.name] = f"needs {', '.join(lacking)}" if lacking else ""
    return row
