"""Does presenting prompts by topic lower the error of the prior (EBPO's Proposition P2), and with which memory?

One epoch of T batches of M prompts, the same prompts and rollouts in every order: shuffled, blocked (topic after
topic as listed), alternating (one topic a batch, cycled), easy_to_hard, hard_to_easy. For every order and memory
the real estimators give E (mu_glob - p)^2, the prior's error, and the baseline's. --world names a population
with topics:

topics:M1,M2,...@C     topic k: p ~ Beta(M_k C, (1 - M_k) C)
observed:MODEL         LiveCodeBench pass rates, the three difficulties as topics
drift:START,STEP@C     the mean moves by STEP a batch ("blocked" is the drift, "shuffled" a stationary stream); for R3

gain = (E (mu - p)^2 - E (mu_glob - p)^2) / Var_k(topic means), on the same prompts, mu the true mean of all: 0 is a
perfect prior that ignores topics, 1 is P2's ideal E Var(p | topic), below 0 is worse than ignoring them.
--burn-in (default 0) leaves the first batches unscored; a batch without any prior is never scored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from scipy.special import stdtrit

from ebpo_sim import report
from ebpo_sim.counts.streams import Design, Mean, mean_with_error
from ebpo_sim.errors import InputError
from ebpo_sim.estimators import Estimator
from ebpo_sim.numbers import Array
from ebpo_sim.studies import costs
from ebpo_sim.studies.base import FAMILY_WISE, Rows, Settings, Study, agreement, agreement_text, run
from ebpo_sim.studies.clustering.plots import plot
from ebpo_sim.studies.clustering.simulation import (
    MEMORIES,
    Cell,
    Keep,
    memories_of,
    orders_of,
    remember,
    simulate_epochs,
    walk,
)
from ebpo_sim.worlds.observed import observed_source
from ebpo_sim.worlds.topics import Topics, own_batch_exact, parse_topics, prior_exact

SMALL = 0.02  # of P2's gain: a difference below it is not called one


SETTINGS = Settings(
    worlds=(
        "topics:0.4,0.05,0.8,0.2,0.6@20",
        "topics:0.45,0.3,0.6,0.4,0.55,0.25,0.5,0.35,0.65@2",
        "observed:GPT-4-0613/LiveCodeBench",
        "drift:0.3,0.01@10",
    ),
    group_sizes=(4, 16),
    estimators=("ebpo", "ebpo_debiased"),
    design=Design(prompts=512, steps=36, burn_in=0, replicates=24),
)
QUICK = Settings(
    worlds=("topics:0.4,0.05,0.8,0.2,0.6@20", "drift:0.3,0.01@10"),
    group_sizes=(4,),
    estimators=("ebpo", "ebpo_debiased"),
    design=Design(prompts=256, steps=12, burn_in=0, replicates=8),
)


def check(settings: Settings) -> list[tuple[str, Topics]]:
    """The worlds by their text. Raises InputError for anything that cannot be studied, before any work."""
    settings.design.check()
    if settings.design.steps < 2:
        raise InputError(f"steps must be at least 2, got {settings.design.steps}: a lagged prior needs a batch before")
    for name in settings.estimators:
        remember(name, MEMORIES[0])
    return [(text, parse_topics(text, settings.design.steps)) for text in settings.worlds]


def simulate(settings: Settings, threads: int = 1) -> list[Cell]:
    """Every cell; orders of one (world, G) share their prompts and rollouts."""
    worlds = check(settings)
    presets = {(name, keep): remember(name, keep) for name in settings.estimators for keep in MEMORIES}
    per_world = [len(orders_of(w)) * len(memories_of(w)) * len(settings.estimators) for w in settings.worlds]
    with report.progress(sum(per_world) * len(settings.group_sizes), "clustering_study") as bar:
        return [
            cell
            for text, topics in worlds
            for group_size in settings.group_sizes
            for cell in _cells(text, topics, group_size, settings, presets, threads, bar.update)
        ]


def _cells(
    text: str, topics: Topics, group_size: int, settings: Settings, presets: dict[tuple[str, Keep], Estimator],
    threads: int, advance: Callable[[], Any],
) -> Iterator[Cell]:  # fmt: skip
    streams = simulate_epochs(topics, orders_of(text), group_size, settings.design, threads)
    for name in settings.estimators:
        for keep in memories_of(text):
            estimator = presets[name, keep]
            for order, stream in streams.items():
                exact = prior_exact(
                    topics, order, keep.memory, per_cluster=keep.per_cluster, update=estimator.order,
                    group_size=group_size, prompts=settings.design.prompts, steps=settings.design.steps,
                )  # fmt: skip
                key = {"world": text, "group_size": group_size, "estimator": name, "memory": keep.text, "order": order}
                yield walk(estimator, topics, stream, exact, key)
                advance()


def table(settings: Settings, cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """One row a cell: averages over the epoch, standard errors over replicates, differences from "shuffled" paired."""
    worlds = {w: parse_topics(w, settings.design.steps) for w in settings.worlds}
    shuffled = {_but_order(c): c for c in cells if c.key["order"] == "shuffled"}
    compared = len(cells) - len(shuffled)
    limit = -float(stdtrit(settings.design.replicates - 1, FAMILY_WISE / 2 / max(compared, 1)))
    rows = []
    for cell in cells:
        first = max(settings.design.burn_in, int(np.isnan(cell.exact.error[0])))  # the first batch may have no prior
        rows.append(_row(cell, shuffled[_but_order(cell)], worlds[cell.key["world"]], first, settings, limit))
    return rows


def _but_order(cell: Cell) -> tuple[Any, ...]:
    return tuple(v for k, v in cell.key.items() if k != "order")


def _row(cell: Cell, other: Cell, topics: Topics, first: int, settings: Settings, limit: float) -> dict[str, Any]:
    unit = topics.between_topics if topics.between_topics > 1e-12 else float("nan")
    start = settings.design.burn_in
    gain_R, other_R = (np.mean((c.static_RT - c.prior_RT)[:, first:], axis=1) / unit for c in (cell, other))
    change = mean_with_error(gain_R - other_R)
    gain_exact = float(np.mean((cell.exact.static - cell.exact.error)[first:]) / unit)
    ratio, residual_R = _ratio(cell, start)
    other_ratio, other_residual_R = _ratio(other, start)
    moved = Mean(ratio - other_ratio, mean_with_error(residual_R - other_residual_R).se)
    return {
        **cell.key,
        "j_shuffle": topics.variance,
        "j_topic": topics.within_topics,
        **mean_with_error(np.mean(cell.prior_RT[:, first:], axis=1)).columns("prior_error"),
        "prior_error_exact": report.exists(float(np.mean(cell.exact.error[first:]))),
        **mean_with_error(gain_R).columns("gain"),
        "gain_exact": report.exists(gain_exact),
        **change.columns("gain_over_shuffled"),
        **mean_with_error(cell.lag_RT[:, -1]).columns("lag_last"),
        "lag_last_exact": report.exists(float(cell.exact.lag[-1])),
        **mean_with_error(np.mean(cell.shrinkage_RT[:, first:], axis=1)).columns("shrinkage"),
        **Mean(ratio, mean_with_error(residual_R).se).columns("baseline_ratio"),
        **moved.columns("ratio_over_shuffled"),
        "verdict": verdict(cell.key["order"], change.value, change.se, limit),
    }


def _ratio(cell: Cell, start: int) -> tuple[float, Array]:
    """Baseline error over the group mean's, and each replicate's influence on it (delta method)."""
    top_R, bottom_R = cell.baseline_RT[:, start:].mean(axis=1), cell.group_mean_RT[:, start:].mean(axis=1)
    ratio = float(top_R.mean() / bottom_R.mean())
    return ratio, (top_R - ratio * bottom_R) / bottom_R.mean()


def verdict(order: str, change: float, se: float, limit: float) -> str:
    """Does the order lower the prior's error against "shuffled"? |change| > limit se, and >= SMALL of P2's gain."""
    if order == "shuffled":
        return "reference"
    if np.isnan(change) or abs(change) <= limit * se:
        return "no difference seen"
    if abs(change) < SMALL:
        return f"less than {SMALL:.0%} of P2's gain"
    return "lowers" if change > 0 else "raises"


def claim_rows(settings: Settings = QUICK, threads: int = 1) -> list[dict[str, Any]]:
    """The table of a settings object, one dict a (world, G, estimator, memory, order); a pure function of it."""
    return table(settings, simulate(settings, threads))


def paths(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """The cells batch by batch: prior error and lag, mean over replicates, standard error, exact value."""
    rows = []
    for cell in cells:
        for step in range(cell.prior_RT.shape[1]):
            error, lag = mean_with_error(cell.prior_RT[:, step]), mean_with_error(cell.lag_RT[:, step])
            rows.append({
                **cell.key, "step": step + 1,
                **error.columns("prior_error"), "prior_error_exact": report.exists(float(cell.exact.error[step])),
                **lag.columns("lag"), "lag_exact": report.exists(float(cell.exact.lag[step])),
            })  # fmt: skip
    return rows


def score(settings: Settings, rows: Rows) -> dict[str, Any]:
    """The joint agreement test of exact and simulated gains."""
    return {"agreement": agreement(rows, "gain", "gain_exact", settings.design.replicates)}


def show(settings: Settings, rows: Rows, summary: Mapping[str, Any]) -> str:
    """The overview, then the notes."""
    return "\n".join([overview(rows), *notes(settings, summary), conclusion(rows)])


def conclusion(rows: Sequence[dict[str, Any]]) -> str:
    """By order of the stream: in how many cells the memory's prior is better, or worse, than one without topics."""
    parts = []
    for order in dict.fromkeys(r["order"] for r in rows):
        gains = [
            r["gain"] / r["gain_se"] for r in rows if r["order"] == order and r["gain"] is not None and r["gain_se"]
        ]
        parts.append(f"{order} {sum(z > 2 for z in gains)} and {sum(z < -2 for z in gains)} of {len(gains)}")
    return f"Conclusion: a memory gains from topics and loses by them (beyond 2 se), by order: {'; '.join(parts)}."


def overview(rows: Sequence[dict[str, Any]]) -> str:
    """Smallest G: each memory's gain by order, and the baseline's error; the lag under drift."""
    smallest = min(r["group_size"] for r in rows)
    parts = []
    for world in dict.fromkeys(r["world"] for r in rows):
        cells: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
        for r in rows:
            if (r["world"], r["group_size"]) == (world, smallest):
                cells.setdefault((r["estimator"], r["memory"]), {})[r["order"]] = r
        orders = list(next(iter(cells.values())))
        headers = ["estimator", "memory", *orders, "baseline, shuffled", "baseline, blocked"]
        headers += ["lag at the end", "exact"] if world.startswith("drift:") else []
        lines = []
        for (estimator, memory), cell in cells.items():
            line = [estimator, memory, *(report.with_error(cell[o]["gain"], cell[o]["gain_se"]) for o in orders)]
            for order in ("shuffled", "blocked"):
                line.append(report.with_error(cell[order]["baseline_ratio"], cell[order]["baseline_ratio_se"]))
            last = cell["blocked"]
            lag = [report.with_error(last["lag_last"], last["lag_last_se"]), report.number(last["lag_last_exact"], 4)]
            lines.append(line + lag[: len(headers) - len(line)])
        align = ("left", "left", *("right",) * (len(headers) - 2))
        parts.append(f"{world}, G = {smallest}: gain of the prior\n{report.text_table(headers, lines, align)}")
    return "\n\n".join(parts)


def notes(settings: Settings, summary: Mapping[str, Any]) -> list[str]:
    """What a reader of the table has to know."""
    design = settings.design
    keep = {m: own_batch_exact(m, design.steps) for m in ("cumulative", 0.9)}
    lines = [
        "",
        "gain: 0 = a perfect prior that ignores topics (error Var p), 1 = P2's ideal (error E Var(p | topic)), below 0 "
        f"worse than ignoring them; baseline: its error over the group mean's; ± one standard error, "
        f"{design.replicates} epochs of {design.steps} batches of {design.prompts} prompts.",
    ]
    lines += agreement_text("Gains, exact", summary["agreement"])
    lines.append(
        f"R3, stationary stream, batch {design.steps} against the prior that holds it, exact: cumulative covariance "
        f"{keep['cumulative'].covariance[-1]:.3f} (1/T), correlation {keep['cumulative'].correlation[-1]:.3f} "
        f"(1/sqrt T); retention 0.9 {keep[0.9].covariance[-1]:.3f} and {keep[0.9].correlation[-1]:.3f}, for ever."
    )
    observed = [w.partition(":")[2] for w in settings.worlds if w.startswith("observed:")]
    sources = (observed_source(f"{w.partition('/')[0]}/LiveCodeBench") for w in observed)
    return lines + [f"Source of {source}." for source in dict.fromkeys(sources)]


def tables(settings: Settings, cells: Sequence[Cell]) -> dict[str, Rows]:
    """The long table, and every cell batch by batch."""
    return {"table.csv": table(settings, cells), "path.csv": paths(cells)}


STUDY = Study(
    "clustering_study", __doc__ or "", SETTINGS, QUICK, costs.clustering, simulate, score, show,
    lambda rows, steps: {"clustering.png": plot(rows, steps)}, tables,
)  # fmt: skip
main = partial(run, STUDY)
