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

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from ebpo_sim import cli, report
from ebpo_sim.errors import InputError
from ebpo_sim.estimators import Estimator, make, needs_prior
from ebpo_sim.estimators.beta_binomial import BetaBinomial
from ebpo_sim.estimators.components import Memory
from ebpo_sim.estimators.shrinkage import Shrinkage
from ebpo_sim.groups import Groups, binary_groups
from ebpo_sim.kernels import STATE_WORDS, count_successes
from ebpo_sim.montecarlo import Design, mean_with_error, stream_seed
from ebpo_sim.study import Settings
from ebpo_sim.worlds.observed import observed_source
from ebpo_sim.worlds.topics import (
    ORDERS,
    Topics,
    Tracking,
    Update,
    composition,
    own_batch_exact,
    parse_topics,
    prior_exact,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]
FAMILY_WISE = 1e-3  # false-fail rate of each joint comparison
SMALL = 0.02  # of P2's gain: a difference below it is not called one


class Keep(NamedTuple):
    """A memory of the prior: how much is kept from batch to batch, for all prompts together or one a topic."""

    memory: Memory
    per_cluster: bool

    @property
    def text(self) -> str:
        kept = f"retention {self.memory:g}" if isinstance(self.memory, float) else self.memory
        return f"per topic, {kept}" if self.per_cluster else kept


MEMORIES = (
    Keep("cumulative", False),
    Keep(0.9, False),
    Keep("batch", False),
    Keep("cumulative", True),
    Keep(0.9, True),
)


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


class Cell(NamedTuple):
    """One (world, G, order, memory, estimator): what was simulated (R, T) and what is exact (T,); NaN: no prior yet."""

    key: dict[str, Any]
    exact: Tracking
    prior_RT: Array
    static_RT: Array
    baseline_RT: Array
    group_mean_RT: Array
    lag_RT: Array
    shrinkage_RT: Array


def remember(name: str, keep: Keep) -> Estimator:
    """The preset with this memory. Raises InputError for presets without a running prior."""
    estimator = None if needs_prior(name) else make(name)
    if estimator is None or not isinstance(estimator.baseline, (Shrinkage, BetaBinomial)):
        raise InputError(f"estimator {name!r} has no running prior to study: use ebpo, ebpo_within or ebpo_debiased")
    return replace(estimator, baseline=replace(estimator.baseline, memory=keep.memory, per_cluster=keep.per_cluster))


def orders_of(text: str) -> tuple[str, ...]:
    return ("shuffled", "blocked") if text.startswith("drift:") else ORDERS


def memories_of(text: str) -> tuple[Keep, ...]:
    """All; under drift every batch is a topic of its own, so a memory per topic means nothing there."""
    return tuple(k for k in MEMORIES if not (k.per_cluster and text.startswith("drift:")))


def simulate_epochs(
    topics: Topics, orders: Sequence[str], group_size: int, design: Design, threads: int = 1
) -> dict[str, Array]:
    """Each order's stream as sums over groups, (R, T, 3, K, G+1): count, sum p, sum p^2 by topic and successes.

    Every order deals out the same prompts with the same rollouts. One seed a replicate, by name of the cell.
    """
    fixed = {o: composition(topics, o, design.prompts, design.steps) for o in {*orders, "blocked"}}
    size_K = fixed["blocked"].sum(axis=0).astype(np.intp)
    topic_N = np.repeat(np.arange(len(size_K)), size_K)
    batch_N = np.repeat(np.arange(design.steps), design.prompts)
    shape = (design.steps, len(size_K), group_size + 1)

    def deal(order: str, rng: np.random.Generator) -> NDArray[np.intp]:
        """Which prompt stands in each place of the stream."""
        if order == "shuffled":
            return rng.permutation(len(topic_N)).astype(np.intp)
        places = np.tile(np.arange(len(size_K)), design.steps).repeat(fixed[order].astype(np.intp).ravel())
        who = np.empty(len(topic_N), np.intp)
        who[np.argsort(places, kind="stable")] = np.arange(len(topic_N))
        return who

    def one(seed: np.random.SeedSequence) -> dict[str, Array]:
        prompt_seed, rollout_seed, order_seed = seed.spawn(3)
        rng = np.random.Generator(np.random.PCG64DXSM(prompt_seed))
        draws = [rng.permutation(part.sample(rng, int(n))) for part, n in zip(topics.parts, size_K, strict=True)]
        p_N, k_N = np.concatenate(draws), np.empty(len(topic_N), np.int64)
        words = rollout_seed.generate_state(STATE_WORDS, np.uint64).astype(np.uint64)
        count_successes(p_N, group_size, words, k_N)
        found = {}
        for order in orders:
            who = deal(order, np.random.Generator(np.random.PCG64DXSM(order_seed)))
            place = np.ravel_multi_index((batch_N, topic_N[who], k_N[who]), shape)
            sums = [np.bincount(place, p_N[who] ** power, int(np.prod(shape))).reshape(shape) for power in range(3)]
            found[order] = np.stack(sums, axis=1).astype(np.float64)
        return found

    with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
        runs = list(pool.map(one, stream_seed(design.seed, topics.name, group_size).spawn(design.replicates)))
    return {order: np.stack([run[order] for run in runs]) for order in orders}


def walk(estimator: Estimator, topics: Topics, stream: Array, exact: Tracking, key: dict[str, Any]) -> Cell:
    """The estimator along the stream (R, T, 3, K, G+1), in its own order, all replicates in step."""
    per_cluster = bool(getattr(estimator.baseline, "per_cluster", False))
    if not per_cluster:
        stream = stream.sum(axis=3, keepdims=True)
    replicates, steps, _, _, counts = stream.shape
    state, found = estimator.init(), []
    for step in range(steps):
        sums = stream[:, step]
        here = np.flatnonzero(
            sums[:, 0].sum(axis=(0, 2))
        )  # topics of this batch: a group counted 0 times is still seen
        n, p, p2 = np.moveaxis(sums[:, :, here].reshape(replicates, 3, -1), 1, 0)
        labels = tuple(topics.labels[k] for k in here) if per_cluster else None
        batch = replace(_layout(labels, counts - 1), multiplicity_P=n)
        local_P = batch.mean_P
        if estimator.order == "update_then_score":
            state = estimator.update(state, batch)
        said = estimator.baseline.evaluate(state, batch)
        assert said.prior_mean_P is not None and said.shrinkage_P is not None
        prior_P = said.prior_mean_P if estimator.order == "update_then_score" or step else np.nan
        total = n.sum(axis=1)
        error = [_squared(b, n, p, p2) for b in (prior_P, topics.mean, said.baseline_PG[..., 0], local_P)]
        lag, shrinkage = np.sum(prior_P * n - p, axis=1), np.sum(said.shrinkage_P * n, axis=1)
        found.append([x / total for x in (*error, lag, shrinkage)])
        if estimator.order == "score_then_update":
            state = estimator.update(state, batch)
    return Cell(key, exact, *np.moveaxis(np.array(found), 0, -1))


def _squared(b: Any, n: Array, p: Array, p2: Array) -> Array:
    """Sum over prompts of (b - p)^2 from the counts and sums of their groups."""
    return np.asarray(np.sum(b * b * n - 2 * b * p + p2, axis=1))


@lru_cache(maxsize=256)
def _layout(labels: tuple[str, ...] | None, group_size: int) -> Groups:
    """The G+1 binary groups, once for each topic; without labels once for all."""
    rows = 1 if labels is None else len(labels)
    k = np.tile(np.arange(group_size + 1), rows)
    groups = binary_groups(np.full(len(k), group_size), k)
    return groups if labels is None else replace(groups, cluster_P=tuple(np.repeat(labels, group_size + 1).tolist()))


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
    limit = float(student.isf(FAMILY_WISE / 2 / max(compared, 1), settings.design.replicates - 1))
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
    gain, change = mean_with_error(gain_R), mean_with_error(gain_R - other_R)
    gain_exact = float(np.mean((cell.exact.static - cell.exact.error)[first:]) / unit)
    ratio, residual_R = _ratio(cell, start)
    other_ratio, other_residual_R = _ratio(other, start)
    prior = mean_with_error(np.mean(cell.prior_RT[:, first:], axis=1))
    lag = mean_with_error(cell.lag_RT[:, -1])
    shrinkage = mean_with_error(np.mean(cell.shrinkage_RT[:, first:], axis=1))
    ratio_change = mean_with_error(residual_R - other_residual_R).se
    row = {
        **cell.key,
        "j_shuffle": topics.variance,
        "j_topic": topics.within_topics,
        "prior_error": prior.value,
        "prior_error_se": prior.se,
        "prior_error_exact": float(np.mean(cell.exact.error[first:])),
        "gain": gain.value,
        "gain_se": gain.se,
        "gain_exact": gain_exact,
        "gain_over_shuffled": change.value,
        "gain_over_shuffled_se": change.se,
        "lag_last": lag.value,
        "lag_last_se": lag.se,
        "lag_last_exact": float(cell.exact.lag[-1]),
        "shrinkage": shrinkage.value,
        "shrinkage_se": shrinkage.se,
        "baseline_ratio": ratio,
        "baseline_ratio_se": mean_with_error(residual_R).se,
        "ratio_over_shuffled": ratio - other_ratio,
        "ratio_over_shuffled_se": ratio_change,
    }
    found = {k: None if isinstance(v, float) and np.isnan(v) else v for k, v in row.items()}
    return found | {"verdict": verdict(cell.key["order"], change.value, change.se, limit)}


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


def prior_error_exact(
    world: str, order: str, memory: Memory, *, per_cluster: bool = False, update: Update = "update_then_score",
    group_size: int = 4, prompts: int = 512, steps: int = 36,
) -> float:  # fmt: skip
    """E (mu_glob - p)^2 averaged over the epoch's batches that have a prior: `prior_exact` of a world's text."""
    topics = parse_topics(world, steps)
    found = prior_exact(
        topics, order, memory, group_size=group_size, prompts=prompts, steps=steps,
        per_cluster=per_cluster, update=update,
    )  # fmt: skip
    return float(np.nanmean(found.error))


def claim_rows(settings: Settings = QUICK, threads: int = 1) -> list[dict[str, Any]]:
    """The table of a settings object, one dict a (world, G, estimator, memory, order); a pure function of it."""
    return table(settings, simulate(settings, threads))


def paths(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """The cells batch by batch: prior error and lag, mean over replicates, standard error, exact value."""
    rows = []
    for cell in cells:
        for step in range(cell.prior_RT.shape[1]):
            error, lag = mean_with_error(cell.prior_RT[:, step]), mean_with_error(cell.lag_RT[:, step])
            values = (*error, float(cell.exact.error[step]), *lag, float(cell.exact.lag[step]))
            names = ("prior_error", "prior_error_se", "prior_error_exact", "lag", "lag_se", "lag_exact")
            known = (None if np.isnan(v) else v for v in values)
            rows.append({**cell.key, "step": step + 1, **dict(zip(names, known, strict=True))})
    return rows


def agreement(rows: Sequence[dict[str, Any]], replicates: int) -> dict[str, Any]:
    """All simulated gains against the exact ones at once: the largest |z| and its Bonferroni limit (t, R - 1)."""
    z = [(r["gain"] - r["gain_exact"]) / r["gain_se"] for r in rows if r["gain_se"]]
    if not z:
        return {"comparisons": 0, "max_abs_z": None, "limit": None, "passes": None}
    limit, worst = float(student.isf(FAMILY_WISE / 2 / len(z), replicates - 1)), max(map(abs, z))
    return {"comparisons": len(z), "max_abs_z": worst, "limit": limit, "passes": worst <= limit}


def score(settings: Settings, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The summary: settings, the joint agreement test, rows."""
    return {
        "settings": {**asdict(settings), "design": settings.design._asdict()},
        "agreement": agreement(rows, settings.design.replicates),
        "rows": list(rows),
    }


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


def notes(settings: Settings, summary: dict[str, Any]) -> list[str]:
    """What a reader of the table has to know."""
    design, checked = settings.design, summary["agreement"]
    keep = {m: own_batch_exact(m, design.steps) for m in ("cumulative", 0.9)}
    lines = [
        "",
        "gain: 0 = a perfect prior that ignores topics (error Var p), 1 = P2's ideal (error E Var(p | topic)), below 0 "
        f"worse than ignoring them; baseline: its error over the group mean's; ± one standard error, "
        f"{design.replicates} epochs of {design.steps} batches of {design.prompts} prompts.",
    ]
    if checked["comparisons"]:
        lines.append(
            f"Gains, exact against simulated: largest |z| {checked['max_abs_z']:.2f} of {checked['comparisons']}, "
            f"limit {checked['limit']:.2f} at a family-wise false-fail rate of {FAMILY_WISE:g}: "
            f"{'agree' if checked['passes'] else 'DISAGREE'}."
        )
    lines.append(
        f"R3, stationary stream, batch {design.steps} against the prior that holds it, exact: cumulative covariance "
        f"{keep['cumulative'].covariance[-1]:.3f} (1/T), correlation {keep['cumulative'].correlation[-1]:.3f} "
        f"(1/sqrt T); retention 0.9 {keep[0.9].covariance[-1]:.3f} and {keep[0.9].correlation[-1]:.3f}, for ever."
    )
    observed = [w.partition(":")[2] for w in settings.worlds if w.startswith("observed:")]
    sources = (observed_source(f"{w.partition('/')[0]}/LiveCodeBench") for w in observed)
    return lines + [f"Source of {source}." for source in dict.fromkeys(sources)]


COLOURS = dict(zip(ORDERS, ("black", "tab:red", "tab:purple", "tab:green", "tab:blue"), strict=True))
SHOWN = {"cumulative": "tab:red", "retention 0.9": "tab:orange", "batch": "tab:green"}


def plot(rows: Sequence[dict[str, Any]], steps: Sequence[dict[str, Any]]) -> Figure:
    """First world, smallest G: error of the first estimator's prior by memory; every gain; the lag under drift."""
    from matplotlib.figure import Figure

    first = rows[0]
    same = ("world", "group_size")
    here = [r for r in rows if all(r[k] == first[k] for k in same)]
    path = [r for r in steps if all(r[k] == first[k] for k in (*same, "estimator"))]
    estimators, memories = (list(dict.fromkeys(r[k] for r in here)) for k in ("estimator", "memory"))
    drift = [r for r in steps if r["world"].startswith("drift:") and r["order"] == "blocked"]
    drift = [r for r in drift if all(r[k] == drift[0][k] for k in (*same, "estimator"))]
    count = len(memories) + len(estimators) + bool(drift)
    height = -(-count // 4)
    figure = Figure(figsize=(18, 4.3 * height), layout="constrained")
    panels = figure.subplots(height, 4, squeeze=False).ravel()
    top = 1.08 * max(r["prior_error"] for r in path if r["prior_error"] is not None)
    for panel, memory in zip(panels, memories, strict=False):
        _path_panel(panel, memory, [r for r in path if r["memory"] == memory], first, top)
    for panel, name in zip(panels[len(memories) :], estimators, strict=False):
        _gain_panel(panel, name, memories, [r for r in here if r["estimator"] == name])
    if drift:
        _drift_panel(panels[count - 1], drift)
    for panel in panels[count:]:
        panel.axis("off")
    handles, texts = panels[0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside lower center", ncols=len(texts), frameon=False, markerscale=2)
    figure.suptitle(
        f"Error of the prior by order and memory: {first['world']}, G = {first['group_size']}; "
        "dots: simulated (bands and bars 2 se), dashes: exact"
    )
    return figure


def _path_panel(axis: Axes, memory: str, path: list[dict[str, Any]], first: dict[str, Any], top: float) -> None:
    for order, colour in COLOURS.items():
        line = [r for r in path if r["order"] == order and r["prior_error"] is not None]
        if line:
            step, value, se, exact = (
                np.array([r[k] for r in line]) for k in ("step", "prior_error", "prior_error_se", "prior_error_exact")
            )
            axis.fill_between(step, value - 2 * se, value + 2 * se, color=colour, alpha=0.25, lw=0)
            axis.plot(step, value, ".", ms=4, color=colour, label=order)
            axis.plot(step, exact, "--", lw=0.6 if order == "alternating" else 1.2, color=colour)
    for level, text in ((first["j_shuffle"], "Var p"), (first["j_topic"], "E Var\n(p|topic)")):
        axis.axhline(level, color="gray", lw=0.8)
        axis.annotate(text, (1.01, level), xycoords=("axes fraction", "data"), va="center", fontsize=8, rotation=0)
    axis.set(title=f"{first['estimator']}, memory: {memory}", xlabel="batch", ylim=(0, top))
    axis.set_ylabel("E (prior - p)²")


def _gain_panel(axis: Axes, name: str, memories: list[str], rows: list[dict[str, Any]]) -> None:
    low = -0.6
    for i, (order, colour) in enumerate(COLOURS.items()):
        for r in (r for r in rows if r["order"] == order and r["gain"] is not None):
            x = memories.index(r["memory"]) + 0.15 * (i - 2)
            if r["gain"] < low:
                axis.annotate(f"{r['gain']:.1f}", (x, low + 0.02), color=colour, fontsize=8, ha="center")
                continue
            axis.errorbar(x, r["gain"], 2 * r["gain_se"], fmt="o", ms=4.5, color=colour, lw=1)
            axis.plot([x - 0.06, x + 0.06], [r["gain_exact"]] * 2, color=colour, lw=1)
    for level in (0, 1):
        axis.axhline(level, color="gray", lw=0.8)
    ticks = [m.replace(", ", "\n").replace(" 0", "\n0") for m in memories]
    axis.set_xticks(range(len(memories)), labels=ticks, fontsize=8)
    axis.set(ylim=(low - 0.06, 1.12), title=f"{name}: average over the epoch", ylabel="gain (1: P2's ideal)")


def _drift_panel(axis: Axes, path: list[dict[str, Any]]) -> None:
    for memory, colour in SHOWN.items():
        line = [r for r in path if r["memory"] == memory and r["lag"] is not None]
        step, value, se, exact = (np.array([r[k] for r in line]) for k in ("step", "lag", "lag_se", "lag_exact"))
        axis.errorbar(step, value, 2 * se, fmt=".", ms=4, lw=1, color=colour, label=memory)
        axis.plot(step, exact, "--", lw=1.1, color=colour)
    axis.axhline(0, color="gray", lw=0.8)
    axis.legend(frameon=False, fontsize=8, loc="lower left")
    axis.set(title=f"{path[0]['estimator']}: {path[0]['world']}", xlabel="batch")
    axis.set_ylabel("lag: prior - mean of the batch")


def settings_from(args: cli.StudyArguments) -> Settings:
    """The default (or quick) settings with what the command line names in their place."""
    base = QUICK if args.quick else SETTINGS
    names = ("prompts", "steps", "burn_in", "replicates")
    given = {k: v for k in names if (v := getattr(args, k)) is not None}
    return Settings(
        args.worlds or base.worlds,
        args.group_sizes or base.group_sizes,
        args.estimators or base.estimators,
        base.design._replace(**given, seed=args.seed),
    )


def main(argv: Sequence[str]) -> None:
    args = cli.parse_study("clustering_study", __doc__ or "", argv)
    settings = settings_from(args)
    check(settings)
    out = report.writable_folder(args.out)
    cells = simulate(settings, args.threads)
    rows, steps = table(settings, cells), paths(cells)
    summary = score(settings, rows)
    report.write_csv(out / "table.csv", rows)
    report.write_csv(out / "path.csv", steps)
    report.write_bytes(out / "summary.json", report.to_json(summary).encode())
    report.save_figure(out / "clustering.png", plot(rows, steps))
    if args.json:
        report.say(report.to_json(summary))
        return
    report.say(overview(rows))
    for line in notes(settings, summary):
        report.say(line)
    report.say(
        f"All {len(rows)} rows: {out / 'table.csv'}; batch by batch: {out / 'path.csv'}; {out / 'clustering.png'}"
    )


if __name__ == "__main__":
    cli.run(main)
