"""What does a prompt's own history save on a recorded RL run, and what does each baseline's error do along it?

Each visit's recorded rollouts are split by chance into a group of G, which the rules see, and a rest, whose mean stands
for the true success rate (its noise is taken off). The visits are met in their order, prompts in batches of --prompts;
--steps: at most so many visits; --burn-in: of which so many are only learnt from; --replicates: splits. Rows: the error
of each baseline over the group mean's, over all scored visits, the first three, and visit by visit; drift by lag; mean,
intra-class correlation and silent groups by visit. Intervals: 95 %, bootstrap over prompts. A rule that learns from a
batch before it scores it, as dbb does, has the scored group in its baseline: less error, but a biased gradient.

recorded:NAME         a shipped run: qwen2.5-math-1.5b-grpo
recorded:FILE.csv     your own: columns prompt, visit, successes, rollouts, a row a visit; or prompt, rollouts and
                      successes, a digit a visit
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ebpo_sim import report
from ebpo_sim.counts.streams import Design
from ebpo_sim.errors import InputError
from ebpo_sim.labels import REFERENCE, label
from ebpo_sim.numbers import Array
from ebpo_sim.numbers.formulas import conservative_icc, critical_icc
from ebpo_sim.studies.base import Cost, Rows, Settings, Study, run
from ebpo_sim.studies.costs import PROGRAM
from ebpo_sim.studies.recorded import replay
from ebpo_sim.studies.recorded.plots import plot
from ebpo_sim.worlds import Recorded, recorded, recorded_names, recorded_source, variance_components

EARLY = 3  # scored visits of the short view: in a large data set a prompt is met a few times
STEP, ELEMENT = 3e-3, 1e-7  # s a rule takes for a batch, and for each of its rollouts
SETTINGS = Settings(
    worlds=("recorded:qwen2.5-math-1.5b-grpo",),
    group_sizes=(1, 2, 4),
    estimators=(
        "ebpo", "ebpo_debiased", "loo_table", "spo:retention=0.5", "spo", "spo:retention=0.96", "dbb",
        "dbb:retention=0.875", "regression:history=0.98", "anchor",
    ),
    design=Design(prompts=128, steps=64, burn_in=1, replicates=4),
)  # fmt: skip
QUICK = replace(
    SETTINGS,
    group_sizes=(4,),
    estimators=("ebpo", "spo", "dbb:retention=0.875", "anchor"),
    design=Design(prompts=128, steps=12, burn_in=1, replicates=2),
)


def run_of(text: str, settings: Settings) -> tuple[Recorded, int]:
    """The recorded run that a world names, and how many of its visits are met. Raises InputError for other worlds, and
    where no visit would be scored."""
    kind, _, name = text.partition(":")
    if kind != "recorded":
        known = ", ".join(f"recorded:{n}" for n in recorded_names())
        raise InputError(f"world {text!r} is no recorded run: name {known} or recorded:FILE.csv")
    found = recorded(name)
    visits = min(settings.design.steps, found.successes_PV.shape[1])
    if visits > 1 and settings.design.burn_in >= visits:
        raise InputError(f"--burn-in {settings.design.burn_in} leaves no visit of {visits} to score: lower it")
    return found, visits


def cost(settings: Settings, threads: int) -> Cost:
    """Of all replays. Raises InputError for what cannot be replayed."""
    memory, seconds, rules = 0.0, 0.0, [replay.bound(name) for name in settings.estimators]
    for text in settings.worlds:
        found, visits = run_of(text, settings)
        prompts, plan = float(len(found.prompts)), settings.design
        for size in settings.group_sizes:
            replay.check(found, size)
            steps = visits * np.ceil(prompts / plan.prompts) * STEP
            drawn = float(plan.replicates) * prompts * visits
            seconds += (1 + len(rules)) * (steps + drawn * size * ELEMENT)
            memory = max(memory, 40 * drawn + 16 * (replay.RESAMPLES + len(rules) * visits) * prompts)
    return Cost(PROGRAM + memory, 5.0 + seconds)


def simulate(settings: Settings, threads: int = 1) -> Rows:
    """Every row of every world."""
    rows: Rows = []
    work = len(settings.worlds) * len(settings.group_sizes) * (1 + len(settings.estimators))
    with report.progress(work, "recorded_study") as bar:
        for text in settings.worlds:
            found, visits = run_of(text, settings)
            weights_BP = replay.resampled(len(found.prompts), settings.design.seed)
            for size in settings.group_sizes:
                rows += _ratios(text, found, visits, size, settings, weights_BP, bar.update)
            rows += _described(text, found, visits, settings, weights_BP)
    return rows


def _row(world: str, quantity: str, value: replay.Interval, **where: Any) -> dict[str, Any]:
    at = {name: where.get(name) for name in ("group_size", "estimator", "visit", "until", "lag")}
    return {"world": world, "quantity": quantity, **at, **value._asdict()}


def _ratios(
    text: str, found: Recorded, visits: int, size: int, settings: Settings, weights_BP: Array, advance: Any
) -> Rows:
    plan = settings.design
    parts = replay.split(found, size, visits, plan.replicates, plan.seed)
    plain_PV, rows = replay.errors(replay.bound(REFERENCE), parts, plan.prompts), []
    advance()
    spans = [("error ratio", plan.burn_in, visits - 1)]
    early = min(plan.burn_in + EARLY, visits) - 1
    spans += [("error ratio, first visits", plan.burn_in, early)] if early < visits - 1 else []
    spans += [("error ratio by visit", visit, visit) for visit in range(plan.burn_in, visits)]
    for name in settings.estimators:
        mine_PV = replay.errors(replay.bound(name), parts, plan.prompts)
        for quantity, first, last in spans:
            mine_P, plain_P = (x[:, first : last + 1].sum(axis=1) for x in (mine_PV, plain_PV))
            value = replay.ratio(weights_BP, mine_P, plain_P)
            rows.append(_row(text, quantity, value, group_size=size, estimator=name, visit=first, until=last))
        advance()
    return rows


def _described(text: str, found: Recorded, visits: int, settings: Settings, weights_BP: Array) -> Rows:
    """The run itself: drift by lag against a group's sampling variance, mean, ICC and silent groups by visit."""
    rows: Rows = []
    ones_P, right_PV = np.ones(len(found.prompts)), found.successes_PV[:, :visits]
    for lag in range(1, visits):
        value = replay.ratio(weights_BP, replay.drift(found, lag, visits), ones_P)
        rows.append(_row(text, "drift", value, lag=lag))
    within_P = (right_PV * (found.rollouts - right_PV)).mean(axis=1) / (found.rollouts * (found.rollouts - 1))
    for size in (*settings.group_sizes, found.rollouts):
        value = replay.ratio(weights_BP, within_P / size, ones_P)
        rows.append(_row(text, "sampling variance of a group mean", value, group_size=size))
    for visit in range(visits):
        known = variance_components(found.counts(visit))
        rate_P = right_PV[:, visit] / found.rollouts
        rows.append(_row(text, "mean", replay.ratio(weights_BP, rate_P, ones_P), visit=visit))
        spread = 1.96 * known.icc_se
        value = replay.Interval(known.icc, known.icc - spread, known.icc + spread)
        rows.append(_row(text, "ICC", value, visit=visit))
        for size in (*settings.group_sizes, found.rollouts):
            silent_P = replay.silent(right_PV[:, visit], found.rollouts, size)
            value = replay.ratio(weights_BP, silent_P, ones_P)
            rows.append(_row(text, "silent groups", value, group_size=size, visit=visit))
    return [{k: None if v != v else v for k, v in row.items()} for row in rows]


def above_from(rows: Rows, limit: float) -> int | None:
    """The first visit from which the intra-class correlation stays above `limit`; None where it ends below."""
    below = [r["visit"] for r in rows if not (r["value"] is not None and r["value"] > limit)]
    first = max(below, default=-1) + 1
    return first if first < len(rows) else None


def score(settings: Settings, rows: Rows) -> dict[str, Any]:
    """By world and G: the best rule, where the ICC passes EBPO's limits for good, and after how many visits the drift
    alone is above a group mean's sampling variance."""
    found: Rows = []
    for text in settings.worlds:
        here = [r for r in rows if r["world"] == text]
        icc = [r for r in here if r["quantity"] == "ICC"]
        drift = [r for r in here if r["quantity"] == "drift"]
        for noise in (r for r in here if r["quantity"] == "sampling variance of a group mean"):
            size = noise["group_size"]
            ratios = [r for r in here if r["quantity"] == "error ratio" and r["group_size"] == size]
            best = min(ratios, key=lambda r: r["value"], default=None)
            found.append({
                "world": text, "group_size": size,
                "best": None if best is None else {k: best[k] for k in ("estimator", "value", "low", "high")},
                "conservative_icc": conservative_icc(size),
                "above_conservative": above_from(icc, conservative_icc(size)),
                "critical_icc": critical_icc(size), "above_critical": above_from(icc, critical_icc(size)),
                "drift_above_noise_at_lag": next((r["lag"] for r in drift if r["value"] > noise["value"]), None),
            })  # fmt: skip
    return {"cells": found, "conclusion": conclusion(found)}


def conclusion(cells: Rows) -> str:
    """The best rule at each G, in a line."""
    told = [
        f"G = {c['group_size']} {label(c['best']['estimator']).short} {c['best']['value']:.3f} "
        f"[{c['best']['low']:.3f}, {c['best']['high']:.3f}]"
        for c in cells
        if c["best"]
    ]
    return f"Least error over the group mean's: {'; '.join(told)}."


def show(settings: Settings, rows: Rows, summary: Mapping[str, Any]) -> str:
    """The ratios, where each limit is passed, and the conclusion."""

    def cell(row: Mapping[str, Any]) -> str:
        return f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"

    def early(row: Mapping[str, Any]) -> str:
        same = [r for r in rows if r["quantity"] == "error ratio, first visits"
                and all(r[k] == row[k] for k in ("world", "group_size", "estimator"))]  # fmt: skip
        return cell(same[0]) if same else "-"

    def passed(key: str, limit: str) -> Any:
        return lambda c: f"{c[limit]:.3f}: {'not passed' if c[key] is None else 'from visit ' + str(c[key])}"

    ratios = [r for r in rows if r["quantity"] == "error ratio"]
    columns: report.Columns = (
        "world", ("G", "group_size"), "estimator", ("visits", lambda r: f"{r['visit']} to {r['until']}"),
        ("error / group mean's", cell), ("first visits", early),
    )  # fmt: skip
    limits: report.Columns = (
        "world", ("G", "group_size"),
        ("shrinks too much above", passed("above_conservative", "conservative_icc")),
        ("loses to the group mean above", passed("above_critical", "critical_icc")),
        ("drift above a group's noise at lag", lambda c: str(c["drift_above_noise_at_lag"] or "none")),
    )  # fmt: skip
    return "\n".join((
        report.columns_table(ratios, columns),
        "\nThe intra-class correlation passes the limits of EBPO's Algorithm 1 for good; drift",
        report.columns_table(summary["cells"], limits),
        summary["conclusion"],
        *(f"Source of {text}: {recorded_source(text.partition(':')[2])}" for text in settings.worlds),
    ))  # fmt: skip


STUDY = Study("recorded_study", __doc__ or "", SETTINGS, QUICK, cost, simulate, score, show, plot)
main = partial(run, STUDY)
