"""Runs without a target: where curves end, what silent groups do to that, and steps of equal size.

In the first world, setup and the group size nearest to 4, LONG times as long as the study's longest runs: the methods
of ENDS, and those of SILENT once more without the groups that all pass, all fail, or either. Nothing is drawn in their
place, and baselines learn from all groups. All at one rate, a quarter of GRPO's own: rates that are best for a target
end in policies without entropy, and where a curve ends would be the rate's doing.
Beside them, under plain SGD, RLOO at GRPO's rate times the ratio of their mean |advantage| at the start.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ebpo_sim.compare.differences import mean_of
from ebpo_sim.compare.plan import Job, Series, middle
from ebpo_sim.compare.sigmoid import Sigmoid, fit_sigmoid
from ebpo_sim.compare.verdicts import judge
from ebpo_sim.labels import REFERENCE
from ebpo_sim.studies.prediction.cells import NO_TARGET, TARGETS, Cell, Ladder, Settings
from ebpo_sim.studies.prediction.outcomes import Found, Rows, interval_of, log_ratios, ratio_row, row, spent
from ebpo_sim.studies.prediction.predict import Cells, records

SCORE = "loo_table:weights=score,memory=0.95"
ENDS = ("rloo", "ebpo", SCORE, "reinforce", "raft")
SILENT = ("ebpo", SCORE, "reinforce")
DROPS = {"all-pass": "passed", "all-fail": "failed", "both": "uniform"}
MEASURES = ("pass1", "pass8", "pass16", "entropy")
SLOWER = 4.0  # than GRPO's own rate
MARGIN = 0.01  # of a pass rate, of nats
EQUAL = "steps at equal mean |advantage|, ratio"


class End(NamedTuple):
    """A run's method, what it is compared to, its cell, and a curve a seed."""

    arm: str
    base: str
    cell: Cell
    curves: Mapping[int, list[dict[str, float]]]


def dropping(arm: str, drop: str) -> str:
    """The method that leaves these silent groups out."""
    return f"{arm} + dynamic:batches=1,drop={drop},learn=all"


def ends(settings: Settings, found: Found, folder: Path, threads: int) -> list[End]:
    """The runs without a target."""
    asked = dict[tuple[str, str, Cell], list[Job]]()
    for arm, cell, tuning in found:
        place = (settings.worlds[0], settings.setups[0], middle(settings.group_sizes))
        if (cell.world, cell.setup, cell.group_size) == place and arm in (REFERENCE, *ENDS):
            far = cell._replace(near=NO_TARGET, far=NO_TARGET)
            rate = found[REFERENCE, cell, tuning].rate / SLOWER
            variants = [(arm, REFERENCE)] + [(dropping(arm, d), arm) for d in DROPS.values() if arm in SILENT]
            for text, base in variants:
                asked[text, base, far] = [Job(text, far, rate, s, 0) for s in range(settings.seeds)]
    done = records(Ladder(settings), [job for jobs in asked.values() for job in jobs], folder, threads)
    return [End(*key, {job.seed: done[job]["curve"] for job in jobs}) for key, jobs in asked.items()]


def end_rows(listed: list[End]) -> Rows:
    """Every measure at the end and its difference to the base's; of methods as they are also the differences of
    asymptotes and of log midpoints (steps) to GRPO's, where all seeds' curves identify them."""
    made: Rows = []
    by = {(e.arm, e.cell): e for e in listed}
    for e in listed:
        other = by[e.base, e.cell]
        for name in MEASURES:
            mine, base = (np.array([x.curves[s][-1][name] for s in sorted(x.curves)]) for x in (e, other))
            end = mean_of(mine)
            made.append(row(e.arm, e.cell, f"{name} at the end", end.value, **interval_of(end)))
            if e.arm != e.base:
                gap = mean_of(mine - base)
                words = {**interval_of(gap), "verdict": judge(gap, 1, MARGIN)}
                made.append(row(e.arm, e.cell, f"{name} at the end, less {e.base}", gap.value, **words))
        if e.base == REFERENCE != e.arm:
            made += _apart(e, other)
    return made


def _apart(mine: End, grpo: End) -> Rows:
    fits = [[_fitted(x.curves[s]) for s in sorted(x.curves)] for x in (mine, grpo)]
    made: Rows = []
    for name, scale in (("asymptote", float), ("midpoint", np.log)):
        values = [[getattr(fit, name) for fit in fitted] for fitted in fits]
        whole = all(v is not None for fitted in values for v in fitted)
        gap = mean_of(np.subtract(*(np.array([scale(v) for v in fitted]) for fitted in values))) if whole else None
        words = interval_of(gap)
        quantity = f"{'log ' if name == 'midpoint' else ''}{name}, less {REFERENCE}"
        made.append(row(mine.arm, mine.cell, quantity, gap and gap.value, **words))
    return made


def _fitted(curve: list[dict[str, float]]) -> Sigmoid:
    return fit_sigmoid([r["step"] for r in curve[1:]], [r["pass1"] for r in curve[1:]], curve[0]["pass1"])


def equal_rows(settings: Settings, found: Found, starts: Cells, folder: Path, threads: int) -> Rows:
    """RLOO's steps over GRPO's under plain SGD, rates such that both take steps of one size at the start."""
    made: Rows = []
    for (arm, cell, _), grpo in found.items():
        sizes = [starts[name, cell]["size"] for name in (REFERENCE, "rloo") if (name, cell) in starts]
        if cell.setup != "sgd" or arm != REFERENCE or len(sizes) < 2 or not sizes[0] or not sizes[1]:
            continue
        jobs = [Job("rloo", cell, grpo.rate * sizes[0] / sizes[1], s, 0) for s in range(settings.seeds)]
        done = records(Ladder(settings), jobs, folder, threads)
        mine = Series("rloo", cell._asdict(), jobs[0].rate, False, {j.seed: done[j]["curve"] for j in jobs})
        for target in TARGETS:
            costs, other = spent(mine, target), spent(grpo, target)
            whole = len(costs) == len(other) == settings.seeds
            ratio = mean_of(log_ratios(costs, other, "step")) if whole else None
            made.append(ratio_row("rloo", cell, EQUAL, ratio, target=target))
    return made


def table(rows: Rows) -> list[tuple[str, ...]]:
    """One line a regime and method: measures at the end, and their differences to the base."""
    lines = list[tuple[str, ...]]()
    by: dict[tuple[Any, ...], dict[str, Any]] = {(r["regime"], r["estimator"], r["quantity"]): r for r in rows}
    for regime, arm in dict.fromkeys(k[:2] for k in by if k[2] == f"{MEASURES[0]} at the end"):
        base = arm.partition(" + dynamic")[0] if " + dynamic" in arm else REFERENCE
        cells = [regime, arm]
        for name in MEASURES:
            gap = by.get((regime, arm, f"{name} at the end, less {base}"))
            shown = f"{by[regime, arm, f'{name} at the end']['value']:.3f}"
            cells.append(shown + (f" ({gap['value']:+.3f} [{gap['low']:+.3f}, {gap['high']:+.3f}])" if gap else ""))
        lines.append(tuple(cells))
    return lines
