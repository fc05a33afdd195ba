"""One model's diagnosis, put together, and the same as JSON and as a long table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ebpo_sim.diagnose.advice import Advice, advise, of_error, of_filtered, of_parts, of_rewards
from ebpo_sim.diagnose.answers import METHODS, Answers, answers
from ebpo_sim.diagnose.breakdown import Part, by_cluster, by_step, cluster_gain
from ebpo_sim.diagnose.evidence import supported
from ebpo_sim.diagnose.intervals import MIXED, Components, Estimate, components, normal, proportion
from ebpo_sim.diagnose.libraries import difference, sentence
from ebpo_sim.diagnose.population import Population
from ebpo_sim.diagnose.ratios import Table, ratios
from ebpo_sim.diagnose.runs import Size, of_one_size
from ebpo_sim.diagnose.settings import of_batches, of_history, of_noise, paste
from ebpo_sim.diagnose.shape import Shape, advantage_gap, shape, zero_signal
from ebpo_sim.diagnose.traps import Component, Kept, Silence, kept, parts, silence
from ebpo_sim.labels import REFERENCE

USUAL = (2, 4, 8, 16, 32)
ASSUMED = 8  # the current G where the log does not show one


@dataclass(frozen=True)
class Plan:
    """What is asked for: group sizes beside the usual ones and estimators (empty: the default), bootstrap draws,
    breakdowns, seed. library: whose "grpo" is compared with ours. filtered: the log holds only groups with
    different rewards."""

    group_sizes: tuple[int, ...] = ()
    estimators: tuple[str, ...] = ()
    draws: int = 2000
    fits: int = 100
    by: tuple[str, ...] = ("cluster", "step")
    seed: int = 0
    filtered: bool = False
    library: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """All that the report says about one model. current: the G that the recommendation is for."""

    name: str
    columns: str
    prompts: int
    groups: int
    sizes: tuple[int, int, int]
    binary: bool
    components: Components
    saturated: tuple[Estimate, Estimate]
    length: Estimate | None
    group_sizes: tuple[int, ...]
    current: int
    zero: dict[int, tuple[Estimate, str]]
    table: Table
    shape: Shape | None
    rates: tuple[np.ndarray, np.ndarray]
    clusters: tuple[Part, ...]
    cluster_gain: Estimate | None
    steps: tuple[Part, ...]
    notes: tuple[str, ...]
    advice: Advice
    by_size: tuple[Size, ...] = ()
    silence: Silence | None = None
    kept: Kept | None = None
    parts: tuple[Component, ...] = ()
    answers: Answers | None = None
    paste: tuple[str, ...] = ()


def diagnose(population: Population, columns: str, plan: Plan, chosen: Sequence[str]) -> Diagnosis:
    """The diagnosis of a population with at least two prompts of at least two rollouts."""
    population, by_size, pooled = of_one_size(population, plan.seed)
    notes = [*population.notes, *([pooled] if pooled else [])]
    current, said = _current(population, plan)
    if said:
        notes.append(said)
    sizes = tuple(sorted({*USUAL, current, *plan.group_sizes}))
    found = components(population, plan.draws, plan.seed)
    if found.icc.low is None and found.within.value > 0:
        notes.append(f"fewer than {MIXED} groups have different rewards: no intervals, log more prompts")
    if population.prompts < 30:
        notes.append(f"{population.prompts} prompts: intervals are rough below 30")
    if population.prompts < population.groups:
        notes.append(
            "prompts recur at several steps: intervals that cannot keep their visits together count each prompt once, "
            "which makes them wide"
        )
    counts, alone = population.counts, population.independent
    shaped = None if counts is None or not found.within.value > 0 else shape(counts, plan.fits, plan.seed, alone)
    quiet = None if counts is None or shaped is None or plan.filtered else silence(counts, shaped, alone)
    seen = kept(counts, plan.fits, plan.seed, alone) if counts is not None and plan.filtered else None
    if plan.filtered:
        return _of_kept(population, columns, found, seen, by_size, notes, current)
    table = ratios(population, found, shaped, sizes, chosen, plan.draws, plan.seed)
    zero = {g: z for g in sizes if (z := zero_signal(counts, shaped, g, alone)) is not None}
    gap = [] if shaped is None else advantage_gap(shaped.prior, current)
    clusters = by_cluster(population, current, plan.draws, plan.seed) if "cluster" in plan.by else []
    steps = by_step(population, current, plan.draws, plan.seed) if "step" in plan.by else []
    gain = cluster_gain(found, clusters, current)
    ends = (steps[0].found.icc, steps[-1].found.icc) if len(steps) > 1 else (None, None)
    advice = advise(table, found, current, population.prompts, zero.get(current, (None, ""))[0], gap, tuple(notes))
    rewards = parts(population)
    told = None
    if shaped is not None:
        methods = plan.estimators or tuple(dict.fromkeys((*METHODS, advice.estimator or REFERENCE)))
        told = answers(population, shaped, sizes, current, methods, plan.fits, plan.seed)
        more = (*of_noise(told, current, advice.estimator or REFERENCE), *of_history(told.history))
        advice = advice._replace(sentences=(*advice.sentences, *more, *of_batches(told, current)))
    elif population.successes is None and advice.ratio is not None:
        advice = advice._replace(sentences=(*advice.sentences, of_error(advice.ratio, current)))
    advice = advice._replace(sentences=(*advice.sentences, *of_parts(gain, *ends), *of_rewards(rewards)))
    if plan.library:
        found_there = sentence(difference(population, plan.library))
        advice = advice._replace(sentences=(*advice.sentences, found_there))
    pasted = advice.estimator if advice.verdict.startswith("shrink") else REFERENCE  # nothing new where it is undecided
    lines = paste(pasted, current, population.step is not None)
    if quiet is not None and quiet.filtered:
        lines = ()
        others = (s for s in advice.sentences if not s.startswith("Confidence"))
        advice = advice._replace(certain=False, sentences=(of_filtered(quiet), *others))
    advice = advice._replace(sentences=supported(advice.sentences))
    return Diagnosis(
        population.name, columns, population.prompts, population.groups, _sizes(population),
        population.successes is not None, found, _saturated(population), _length(population), sizes, current, zero,
        table, shaped, (population.rate, population.weight), tuple(clusters), gain, tuple(steps), tuple(notes),
        advice, by_size, quiet, None, rewards, told,
        lines,
    )  # fmt: skip


def _of_kept(
    population: Population, columns: str, found: Components, seen: Kept | None, by_size: tuple[Size, ...],
    notes: list[str], current: int,
) -> Diagnosis:  # fmt: skip
    """What kept groups alone can tell: nothing of the moments of all groups, nor of errors over them."""
    none = Estimate(math.nan, None, None)
    advice = Advice("undecided", "", None, None, False, supported([of_filtered(None)]))
    hidden = Components(none, none, none, none, found.replicates[:0])
    return Diagnosis(
        population.name, columns, population.prompts, population.groups, _sizes(population),
        population.successes is not None, hidden, _saturated(population), _length(population), (), current, {},
        Table((), {}), None, (population.rate, population.weight), (), None, (), tuple(notes), advice, by_size, None,
        seen, parts(population),
    )  # fmt: skip


def _sizes(population: Population) -> tuple[int, int, int]:
    n = population.n
    return int(n.min()), int(n.max()), median(n, population.weight)


def median(n: np.ndarray, weight: np.ndarray) -> int:
    """The median of n, each standing for `weight` prompts, rounded down."""
    order = np.argsort(n, kind="stable")
    upto = np.cumsum(weight[order])
    middle = np.searchsorted(upto, [(upto[-1] - 1) // 2, upto[-1] // 2], side="right")
    return int(n[order][middle].mean())


def _current(population: Population, plan: Plan) -> tuple[int, str]:
    if plan.group_sizes:
        return plan.group_sizes[0], ""
    if population.step is not None:
        sizes, inverse = np.unique(population.n, return_inverse=True)
        return int(sizes[np.argmax(np.bincount(inverse, population.n * population.weight))]), ""
    return (
        ASSUMED,
        f"the log has no training steps, so the recommendation is for G = {ASSUMED}: --group-size changes it",
    )


def _length(population: Population) -> Estimate | None:
    """Mean length of a group's rollouts, with a normal interval over groups."""
    x, weight = population.length, population.weight
    if x is None:
        return None
    mean = float(weight @ x / weight.sum())
    return normal(mean, float(weight @ (x - mean) ** 2) / weight.sum() / max(weight.sum() - 1, 1))


def _saturated(population: Population) -> tuple[Estimate, Estimate]:
    """Shares of groups whose logged rewards are all 0 and all 1 (binary), or all equal (then the second is 0)."""
    weight = population.weight * population.independent
    if population.successes is None:
        return _share(population.flat, weight), Estimate(0.0, 0.0, 0.0)
    return _share(population.successes == 0, weight), _share(population.successes == population.n, weight)


def _share(hit: np.ndarray, weight: np.ndarray) -> Estimate:
    return proportion(float(weight @ hit / weight.sum()), float(weight.sum()))


def as_json(d: Diagnosis) -> dict[str, Any]:
    """Everything but the curves of the prior, JSON-able; estimates as [value, low, high]."""
    c = d.components
    return {
        "model": d.name, "columns": d.columns, "prompts": d.prompts, "groups": d.groups, "rollouts": d.sizes,
        "mean": plain(c.mean), "within": plain(c.within), "between": plain(c.between), "icc": plain(c.icc),
        "never_rewarded" if d.binary else "all_equal": plain(d.saturated[0]),
        "length": plain(d.length),
        "always_rewarded": plain(d.saturated[1]) if d.binary else None,
        "current_group_size": d.current,
        "zero_signal": {str(g): {"probability": plain(z), "basis": how} for g, (z, how) in d.zero.items()},
        "clusters": [_part(p) for p in d.clusters], "cluster_prior_gain": plain(d.cluster_gain),
        "steps": [_part(p) for p in d.steps], "restrictions": d.notes,
        "answers": None if d.answers is None else _answers(d.answers),
        "paste": d.paste,
        "sizes": [{f: plain(x) if isinstance(x, Estimate) else x for f, x in s._asdict().items()} for s in d.by_size],
        "silent_groups": None if d.silence is None else {**d.silence._asdict(), "filtered": d.silence.filtered},
        "kept": None if d.kept is None else {f: plain(e) for f, e in d.kept._asdict().items()},
        "reward_columns": [{"name": c.name, "silent": plain(c.silent), "others": plain(c.others)} for c in d.parts],
        "recommendation": {
            "verdict": d.advice.verdict, "estimator": d.advice.estimator, "certain": d.advice.certain,
            "ratio": plain(d.advice.ratio), "matching_group_size": plain(d.advice.matching_size),
            "text": d.advice.sentences,
        },
    }  # fmt: skip


def _answers(found: Answers) -> dict[str, Any]:
    noise = [
        {"group_size": n.group_size, "method": n.method,
         **{f: {m: plain(e) for m, e in getattr(n, f).items()} for f in ("effective", "scale")}}
        for n in found.noise
    ]  # fmt: skip
    past = found.history
    return {
        "budget": found.budget, "logged": found.logged, "score_norms": found.norms_of or None, "noise": noise,
        "batches": [b._asdict() for b in found.batches],
        "history": past and {**past._asdict(), "ratio": {r: plain(e) for r, e in past.ratio.items()}},
    }  # fmt: skip


def as_rows(d: Diagnosis) -> list[dict[str, Any]]:
    """The long table of error ratios."""
    return [
        {
            "model": d.name, "group_size": r.group_size, "estimator": r.estimator, "same_as": r.same_as,
            "shrinkage": r.shrinkage, **_columns("ratio", r.long_run), "basis": r.basis,
            **_columns("model_free", r.split), "missing": r.why,
        }
        for r in d.table.rows
    ]  # fmt: skip


def plain(e: Estimate | None) -> list[float | None] | None:
    """[value, low, high]; None for what does not exist or is not finite."""
    if e is None or not math.isfinite(e.value):
        return None
    return [e.value, *(x if x is not None and math.isfinite(x) else None for x in (e.low, e.high))]


def _columns(name: str, e: Estimate | None) -> dict[str, float | None]:
    return dict(zip((name, f"{name}_low", f"{name}_high"), plain(e) or (None,) * 3, strict=True))


def _part(p: Part) -> dict[str, Any]:
    return {
        "name": p.name, "groups": p.groups, "mean": plain(p.found.mean), "icc": plain(p.found.icc),
        "zero_signal": plain(p.zero_signal), "ratio": {n: plain(e) for n, e in p.ratio.items()},
    }  # fmt: skip
