"""Every baseline on every recorded and observed world: who is near to the pass rate, and whose gradient is quiet?

For every world and group size: the held-out squared error of each preset's baseline, and its gradient noise scale nu
under three models of score norms, both relative to GRPO's, with their ranks; a line a method, by kind of world. On
counts prompts' rollouts are split (no model of pass rates), and nu is exact on the deconvolved world; a recorded run is
met in order (see `recorded_study`), where rules that remember prompts stand too, and nu is measured. "-": the rule
cannot stand there; the reason is below the table. --prompts, --steps, --burn-in and --replicates are the replay's:
prompts a batch, visits, visits that are only learnt from, splits.

A submission is one file that registers an estimator (`ebpo_sim/estimators/README.md`): --load mine.py adds its line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from scipy.stats import rankdata

from ebpo_sim import report
from ebpo_sim.counts.streams import Design
from ebpo_sim.estimators import make, names, needs_prior
from ebpo_sim.studies.base import Cost, Rows, Settings, Study, run
from ebpo_sim.studies.costs import CELL, PROGRAM
from ebpo_sim.studies.leaderboard.measure import Cell, check, measured, run_of, visits_of
from ebpo_sim.studies.leaderboard.plots import plot
from ebpo_sim.studies.leaderboard.text import COLUMNS, boards, conclusion, methods, page, show, winners
from ebpo_sim.studies.recorded import replay
from ebpo_sim.studies.recorded.study import ELEMENT, STEP
from ebpo_sim.worlds import (
    intra_class_correlation,
    observed_names,
    parse_world,
    recorded_names,
)

TIES = 9  # decimals of a ratio to which rules are told apart


def standing() -> tuple[str, ...]:
    """Every registered preset that subtracts a baseline and learns from data."""
    return tuple(name for name in names() if not needs_prior(name) and make(name).baseline is not None)


SETTINGS = Settings(
    worlds=(*(f"recorded:{n}" for n in recorded_names()), *(f"observed:{n}" for n in observed_names())),
    group_sizes=(2, 4, 8),
    estimators=standing(),
    design=Design(prompts=128, steps=64, burn_in=1, replicates=4),
)
QUICK = replace(
    SETTINGS,
    worlds=(SETTINGS.worlds[0], "observed:Qwen2.5-7B/MATH"),
    group_sizes=(4,),
    design=Design(prompts=128, steps=8, burn_in=1, replicates=2),
)


def cost(settings: Settings, threads: int) -> Cost:
    """Of all cells. Raises InputError for what cannot be measured."""
    check(settings)
    memory, seconds, rules, plan = 0.0, 0.0, len(settings.estimators) + 1, settings.design
    for text in settings.worlds:
        found = run_of(text)
        for size in settings.group_sizes:
            if found is None:
                seconds += 4 * rules * CELL
                continue
            prompts, visits = float(len(found.prompts)), visits_of(found, settings)
            drawn = float(plan.replicates) * prompts * visits
            seconds += 2 * rules * (visits * np.ceil(prompts / plan.prompts) * STEP + drawn * size * ELEMENT)
            memory = max(memory, 40 * drawn + 16 * (replay.RESAMPLES + 14) * prompts)
    return Cost(PROGRAM + memory, 5.0 + seconds)


def simulate(settings: Settings, threads: int = 1) -> Rows:
    """One row for each world, group size and estimator."""
    rows: Rows = []
    work = len(settings.worlds) * len(settings.group_sizes) * len(settings.estimators)
    with report.progress(work, "leaderboard") as bar:
        for text in settings.worlds:
            icc = report.exists(intra_class_correlation(parse_world(text)))
            for size in settings.group_sizes:
                here = []
                for name, cell in zip(settings.estimators, measured(text, size, settings), strict=True):
                    where = {"world": text, "board": boards(text), "icc": icc, "group_size": size, "estimator": name}
                    here.append({**where, **_columns(cell)})
                    bar.update()
                rows += _ranked(here)
    return rows


def _columns(cell: Cell) -> dict[str, Any]:
    found = {"error": cell.error, **{f"noise_{m}": e for m, e in cell.noise.items()}}
    values = {
        f"{name}{end}": None if e is None else report.exists(x)
        for name, e in found.items()
        for end, x in zip(("", "_low", "_high"), e or replay.Interval(0, 0, 0), strict=True)
    }
    return {**values, "error_exact": cell.exact, "why": cell.why}


def _ranked(rows: Rows) -> Rows:
    """The rows with ranks among those of one world and G, the mean of ties; of noise the mean over the score models."""
    for name, columns in COLUMNS.items():
        for row in rows:
            row[f"{name}_rank"] = None
        known = [r for r in rows if all(r[c] is not None for c in columns)]
        if known:
            places = [rankdata(np.round([r[c] for r in known], TIES)) for c in columns]
            for row, place in zip(known, np.mean(places, axis=0), strict=True):
                row[f"{name}_rank"] = float(place)
    return rows


def score(settings: Settings, rows: Rows) -> dict[str, Any]:
    """A line a method, a line a world, and the conclusion."""
    lines = methods(rows)
    return {"methods": lines, "winners": winners(rows), "conclusion": conclusion(lines)}


def tables(settings: Settings, rows: Rows) -> dict[str, Any]:
    """The long table, and the page of the boards."""
    return {"table.csv": rows, "leaderboard.md": page(settings, rows)}


def _show(settings: Settings, rows: Rows, summary: Mapping[str, Any]) -> str:
    return show(rows, summary["methods"], summary["winners"])


STUDY = Study(
    "leaderboard", __doc__ or "", SETTINGS, QUICK, cost, simulate, score, _show, lambda rows, _: plot(rows), tables,
    standing,
)  # fmt: skip
main = partial(run, STUDY)
