"""What is best in theory: the table of success counts, the baseline b*, error against noise, the prize 1/G."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from itertools import permutations
from typing import cast

import numpy as np

from ebpo_sim.claims.base import Case, Check, Context, Finding, Word, claim
from ebpo_sim.claims.family import cells, world
from ebpo_sim.counts.exact import rule, table_risk
from ebpo_sim.counts.noise import MODELS, Model, Noise, baseline_noise, best_baseline, equal, noise
from ebpo_sim.counts.sampled_noise import sampled_noise
from ebpo_sim.counts.streams import Mean, paired_ratio, stream_seed
from ebpo_sim.counts.updates import raw_table
from ebpo_sim.estimators import make
from ebpo_sim.numbers import Array
from ebpo_sim.studies.noise.study import TABLES, advantages
from ebpo_sim.worlds import World

EXACT = 1e-9  # two exact numbers that agree this well are equal
LEAVE_ONE_OUT = ("rloo", "james_stein", "ebpo_debiased:leave_one_out=True", "global_mean")
UNBIASED: dict[str, Model] = {**MODELS, "equal": partial(equal, share=0.0)}  # all |s|^2 = 1, no direction in common
NAMES = {"equal": "equal norms", "one_logit": "one logit", "softmax": "softmax"}


def small_cells(context: Context) -> Iterator[tuple[str, World, int]]:
    """(text, world, G) in search order, for groups of up to 8."""
    return (cell for cell in cells(context) if cell[2] <= 8)


@lru_cache(maxsize=32768)
def _table(name: str, text: str, group_size: int, scores: str, raw: bool) -> Array:
    if raw and name not in TABLES:
        return raw_table(make(name), world(text), group_size)
    return advantages(name, world(text), group_size, (UNBIASED if raw else MODELS)[scores])


def table_of(name: str, text: str, group_size: int, scores: str = "equal", raw: bool = True) -> Array:
    """A[k, r] = r - baseline, unscaled, or as it reaches the policy; `scores` matters to TABLES alone."""
    return _table(name, text, group_size, scores if name in TABLES else "equal", raw)


@lru_cache(maxsize=65536)
def found(name: str, text: str, group_size: int, scores: str, raw: bool = True, rows: float = 1.0) -> Noise:
    """The exact noise of `table_of`, with a share of its rows."""
    prior, model = rule(world(text), max(group_size, 32)), (UNBIASED if raw else MODELS)[scores]
    return noise(table_of(name, text, group_size, scores, raw), prior, model, rows)


def noise_of(name: str, text: str, group_size: int, scores: str) -> float:
    """The exact noise of a rollout."""
    return found(name, text, group_size, scores).noise


def error_of(name: str, text: str, group_size: int) -> float:
    """E (baseline - p)^2 of the baseline r - A[k, r]."""
    return table_risk(
        np.array([0.0, 1.0]) - table_of(name, text, group_size), rule(world(text), group_size), group_size
    )[0]


def study(text: str, group_size: int | str, name: str, scores: str, column: str = "nu_ratio") -> str:
    """The command that shows a rule's noise."""
    named = "" if name in TABLES else f" --estimator {name}"
    return f"noise_study --world {text} --group-size {group_size}{named}: {column}, {scores}"


def each(words: str, before: str = "", *after: str) -> tuple[tuple[str, Word], ...]:
    """The verdicts of a variant under every score model, one for each of `after`; words in that order."""
    variants = [f"{before}{name}{option}" for name in NAMES.values() for option in after or ("",)]
    return tuple(zip(variants, cast(list[Word], words.split()), strict=True))


def sampled_ratio(context: Context, mine: str, plain: str, scores: str, exact: float) -> Check:
    """The noise of one rule over another's on sampled groups of the reference world."""
    text, size, design = context.reference, context.reference_size, context.design
    tables = [table_of(name, text, size, scores) for name in (mine, plain)]
    drawn = sampled_noise(world(text), tables, UNBIASED[scores], 4 * design.prompts, design.replicates, design.seed)
    # Both are unbiased: the ratio of noises alone.
    return context.confirmed(exact, paired_ratio(drawn[0].noise_R, drawn[1].noise_R))


@claim(
    "N1",
    "this project",
    "The table of success counts is the best of all leave-one-out rules",
    "long run; f(k) = E[r | k] for error, weighed by |s|^2 for noise, best_table with the group's coupling too",
    "Count f(k) instead of fitting a prior; weigh by score norms where noise counts.",
    (
        ("table, error", "holds"),
        *each("holds holds holds", "best_table, noise, "),
        *each("holds fails fails", "score_table, noise, "),
    ),
)
def best_table(context: Context) -> list[Finding]:
    """N1: error and noise of each leave-one-out rule less the table's; effect: the smallest, equality allowed."""
    cases = []
    for text, _, size in small_cells(context):
        least = error_of("table", text, size)
        excess = {name: error_of(name, text, size) - least for name in (*LEAVE_ONE_OUT, "constant")}
        name = min(excess, key=lambda n: excess[n])
        cases.append(Case(f"mse_study --world {text} --group-size {size} --estimator {name}", excess[name] + EXACT))
    reference, size = context.reference, context.reference_size
    ratio = error_of("table", reference, size) / error_of("rloo", reference, size)
    named = f"error / RLOO's, {context.where}"
    findings = [Finding("table, error", cases, "", named, ratio, _sampled_error(context, ratio), strict=False)]
    for rule_name, scores in ((r, s) for r in ("best_table", "score_table") for s in UNBIASED):
        rivals = (*LEAVE_ONE_OUT, *(name for name in TABLES if name != rule_name))
        cases = []
        for text, _, size in small_cells(context):
            mine = noise_of(rule_name, text, size, scores)
            excess = {name: noise_of(name, text, size, scores) - mine for name in rivals}
            name = min(excess, key=lambda n: excess[n])
            cases.append(Case(study(text, size, name, scores), excess[name] + EXACT))
        size = context.reference_size
        ratio = noise_of(rule_name, reference, size, scores) / noise_of("rloo", reference, size, scores)
        check = sampled_ratio(context, rule_name, "rloo", scores, ratio)
        named = f"gradient noise / RLOO's, {context.where}"
        findings.append(
            Finding(f"{rule_name}, noise, {NAMES[scores]}", cases, "", named, ratio, check, "best_table", False)
        )
    return findings


def _replicates(context: Context) -> Iterator[tuple[Array, np.random.Generator]]:
    """Success probabilities of the reference world's prompts and a generator, a replicate at a time."""
    here, size, design = world(context.reference), context.reference_size, context.design
    for seed in stream_seed(design.seed, f"rules {here.name}", size).spawn(design.replicates):
        rng = np.random.default_rng(seed)
        yield rng.permutation(here.sample(rng, 16 * design.prompts)), rng


def _sampled_error(context: Context, exact: float) -> Check:
    """(E[r | others] - p)^2 over (mean of the others - p)^2, the first counted: one half of the prompts teaches it."""
    size, found = context.reference_size, []
    for p, rng in _replicates(context):
        others, own = rng.binomial(size - 1, p), rng.random(len(p)) < p
        half = len(p) // 2
        taught = np.bincount(others[:half], own[:half], size) / np.maximum(
            np.bincount(others[:half], minlength=size), 1
        )
        k, truth = others[half:], p[half:]
        found.append((np.mean((taught[k] - truth) ** 2), np.mean((k / (size - 1) - truth) ** 2)))
    return context.confirmed(exact, paired_ratio(*np.array(found).T))


@claim(
    "N2",
    "Greensmith, Bartlett and Baxter 2004",
    "b* = pa/(pa + (1-p)c) has the least gradient noise of all baselines that leave the scored rollout out",
    "a, c: mean squared score norms of right and wrong answers; a baseline of the prompt alone",
    "Measure a and c before choosing a baseline: with a = c it is p, with a far below c close to 0.",
    each("holds holds holds"),
)
def best_independent(context: Context) -> list[Finding]:
    """N2: noise of other baselines of the prompt less that of b*; effect: the smallest, equality allowed."""
    rivals: dict[str, Callable[[Array], Array | float]] = {
        "b = p": lambda p: p,
        "b = 0": lambda p: 0.0,
        "b = 1/2": lambda p: 0.5,
        "b = p/2": lambda p: p / 2,
        "b = p(1-p)": lambda p: p * (1 - p),
        "b = 1-p": lambda p: 1 - p,
    }
    findings = []
    for scores, model in UNBIASED.items():
        cases = []
        for text in context.worlds:
            prior = rule(world(text), 64)
            p = np.asarray(prior.nodes)
            least = baseline_noise(best_baseline(p, model), prior, model)
            excess = {name: baseline_noise(b(p), prior, model) - least for name, b in rivals.items()}
            name = min(excess, key=lambda n: excess[n])
            cases.append(Case(f"noise_study --world {text}: {name}, {scores}", excess[name] + EXACT))
        prior = rule(world(context.reference), 64)
        p = np.asarray(prior.nodes)
        exact = baseline_noise(best_baseline(p, model), prior, model) / baseline_noise(p, prior, model)
        found = []
        for q, rng in _replicates(context):
            found.append([_sampled_second(q, b, model, rng) for b in (best_baseline(q, model), q)])
        simulated = paired_ratio(*np.array(found).T)
        if simulated.se < 1e-12:  # one logit: b* = 1-p leaves no noise, but rounding
            simulated = Mean(round(simulated.value, 12) + 0.0, 0.0)
        check = context.confirmed(exact, simulated)
        name = f"gradient noise of b* / of b = p, {context.reference}"
        findings.append(Finding(NAMES[scores], cases, "", name, exact, check, strict=False))
    return findings


def _sampled_second(p: Array, b: Array, model: Model, rng: np.random.Generator) -> float:
    """Mean of (r - b)^2 |s|^2 over one rollout of every prompt, less |grad p|^2."""
    scores, right = model(p), rng.random(len(p)) < p
    norm = np.where(right, scores.right_J, scores.wrong_J)
    return float(np.mean((right - b) ** 2 * norm - (p * (1 - p)) ** 2 * scores.apart_J))


@claim(
    "N3",
    "EBPO Theorem 3.3 as it is used",
    "Of two unbiased baselines the one with the lower error has the lower gradient noise",
    "leave-one-out or independent of the scored rollout, unscaled",
    "True where right and wrong answers have equal score norms; else error does not rank baselines.",
    each("holds fails fails"),
)
def error_orders_noise(context: Context) -> list[Finding]:
    """N3: all pairs of unbiased rules of which one has the lower error; effect: its noise below the other's, relative,
    the worst pair of the cell."""
    rules = ("rloo", "global_mean", "ebpo_debiased:leave_one_out=True", "table", "constant")
    findings = []
    for scores in UNBIASED:
        cases = []
        for text, _, size in small_cells(context):
            error = {name: error_of(name, text, size) for name in rules}
            own = {name: noise_of(name, text, size, scores) for name in rules}
            pairs = [(a, b) for a, b in permutations(rules, 2) if error[a] < error[b] * (1 - 1e-6)]
            if not pairs:
                continue
            gain = {(a, b): (own[b] - own[a]) / max(own[a], own[b]) for a, b in pairs}
            low, high = min(gain, key=lambda pair: gain[pair])
            cases.append(Case(f"{study(text, size, high, scores)}, {low} against {high}", gain[low, high]))
        reference, size = context.reference, context.reference_size
        exact = noise_of("table", reference, size, scores) / noise_of("rloo", reference, size, scores)
        check = sampled_ratio(context, "table", "rloo", scores, exact)
        name = f"gradient noise of the table of least error / RLOO's, {context.where}"
        findings.append(Finding(NAMES[scores], cases, "", name, exact, check, "rank baselines by their noise", False))
    return findings


@claim(
    "N8",
    "this project",
    "The whole prize of any value baseline over RLOO is 1/G of the gradient noise",
    "b = p, the perfect value; equal norms without a common direction",
    "With equal norms a perfect value saves 12.5 % at G = 8; with one right answer the prize is another.",
    each("holds fails fails"),
)
def whole_prize(context: Context) -> list[Finding]:
    """N8: noise of b = p, the best value baseline, over RLOO's; effect 1e-9 - |ratio - (1 - 1/G)|."""
    findings = []
    for scores, model in UNBIASED.items():

        def ratio(text: str, size: int, scores: str = scores, model: Model = model) -> float:
            prior = rule(world(text), max(size, 32))
            return baseline_noise(np.asarray(prior.nodes), prior, model) / noise_of("rloo", text, size, scores)

        cases = [
            Case(study(text, size, "rloo", scores), EXACT - abs(ratio(text, size) - (1 - 1 / size)), True, size)
            for text, _, size in small_cells(context)
        ]
        exact = ratio(context.reference, context.reference_size)
        name = f"gradient noise of b = p / RLOO's, {context.where}"
        check = _sampled_prize(context, scores, exact)
        findings.append(Finding(NAMES[scores], cases, "", name, exact, check, strict=False))
    return findings


def _sampled_prize(context: Context, scores: str, exact: float) -> Check:
    """Single rollouts against b = p, groups against RLOO."""
    text, size, design, model = context.reference, context.reference_size, context.design, UNBIASED[scores]
    plain = sampled_noise(
        world(text), [table_of("rloo", text, size, scores)], model, 16 * design.prompts, design.replicates, design.seed
    )
    mine = [_sampled_second(p, p, model, rng) for p, rng in _replicates(context)]
    return context.confirmed(exact, paired_ratio(np.array(mine), plain[0].noise_R))
