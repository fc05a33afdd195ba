"""What noise says of methods: EBPO at small groups, skipped rows, one group size for all, what a denominator does."""

from __future__ import annotations

from functools import partial

import numpy as np

from ebpo_sim import rungs
from ebpo_sim.claims import noise_rules
from ebpo_sim.claims.base import Case, Check, Context, Finding, claim
from ebpo_sim.claims.baseline_error import estimator_name
from ebpo_sim.claims.family import cells, world
from ebpo_sim.claims.noise_rules import EXACT, NAMES, each, small_cells, study
from ebpo_sim.counts.exact import limit_risk, rule
from ebpo_sim.counts.noise import MODELS
from ebpo_sim.counts.sampled_noise import sampled_noise, scale_ratio
from ebpo_sim.counts.streams import Mean, paired_ratio, stream_seed
from ebpo_sim.numbers import Array
from ebpo_sim.worlds import intra_class_correlation

SMALL = {  # where EBPO has less noise than GRPO and RLOO, by score model
    "equal": "GS(1+(G-2)ρ) < 2(1-ρ)(G-1+S)",
    "one_logit": "G = 2",
    "softmax": "G = 2",
}
SKIPPING = ("ebpo", "table", "score_table")
GRID = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)  # group sizes to choose from
REGIMES = (0.03, 0.3, 3.0, 30.0)  # budgets: rollouts a step over the least noise scale
RISING = (0.1, 0.3, 0.5, 0.7, 0.9)  # mean pass rates of Beta worlds with a + b = 8
TRAINING = 1.0  # cost of training a row over sampling it
REGRET = 0.05  # of the cost that another group size would save


# What reaches the policy, as noise_study has it.
found = partial(noise_rules.found, raw=False)
table_of = partial(noise_rules.table_of, raw=False)


def sampled(context: Context, names: tuple[str, str], scores: str, exact: float, rows: float = 1.0) -> Check:
    """nu of one method, with a share of its rows, over another's on sampled groups of the reference world."""
    here, size, design = world(context.reference), context.reference_size, context.design
    tables = [table_of(name, context.reference, size, scores) for name in names]
    sizes = 2 * design.prompts, design.replicates, design.seed
    mine, plain = sampled_noise(here, tables, MODELS[scores], *sizes)
    if rows < 1:
        (mine,) = sampled_noise(here, tables[:1], MODELS[scores], *sizes, rows)
    return context.confirmed(exact, scale_ratio(mine, plain))


@claim(
    "N4",
    "EBPO (arXiv 2602.05165), small groups",
    "EBPO has less gradient noise than GRPO and RLOO at an equal number of rollouts",
    "long run, prompts that share nothing and are all in every batch",
    "At G = 2 it needs fewer rollouts, unless norms are equal and ρ > .73; from G = 3 on it depends on both.",
    (
        *each("holds holds_if holds_if", "idealised, "),
        *each("holds_if holds_if holds_if", "algorithm-1, "),
        *each("holds holds_if holds_if", "ebpo_debiased, "),
    ),
)
def small_groups(context: Context) -> list[Finding]:
    """N4: nu of EBPO below the smaller of GRPO's and RLOO's, at equal rollouts; effect 1 - ratio."""
    findings = []
    for variant in ("idealised", "algorithm-1", "ebpo_debiased"):
        name = estimator_name(variant)
        for scores in MODELS:
            cases = []
            for text, here, size in small_cells(context):
                rival = min(("grpo", "rloo"), key=lambda n: found(n, text, size, scores).nu)
                ratio = found(name, text, size, scores).nu / found(rival, text, size, scores).nu
                expected = _expected(name, text, size, scores)
                cases.append(Case(study(text, size, name, scores), 1 - ratio, expected, intra_class_correlation(here)))
            reference, size = context.reference, context.reference_size
            exact = found(name, reference, size, scores).nu / found("rloo", reference, size, scores).nu
            check = sampled(context, (name, "rloo"), scores, exact)
            effect = f"noise scale / RLOO's, {context.where}"
            named = f"{variant}, {NAMES[scores]}"
            findings.append(Finding(named, cases, SMALL[scores], effect, exact, check, "score_table"))
    return findings


def _expected(name: str, text: str, size: int, scores: str) -> bool:
    """SMALL, from the estimator's own weight S: as a leave-one-out line it has the weight S' = GS/(G-1+S) on the prior,
    and less error than RLOO iff S'(1+(G-2)rho) < 2(1-rho)."""
    if scores != "equal":
        return size == 2
    here = world(text)
    prior, rho = rule(here, size), intra_class_correlation(here)
    weight = limit_risk(rungs.bound(name, prior, rungs.COUNTS), here, size).shrinkage or 0.0
    return size * weight * (1 + (size - 2) * rho) < 2 * (1 - rho) * (size - 1 + weight)


@claim(
    "N5",
    "this project",
    "Rows skipped without bias down to GRPO's share leave less noise than GRPO",
    "kept with q = min(1, |A| |s|/tau), weighed 1/q",
    "Skipping pays where wrong answers carry the larger scores; with equal norms GRPO's silent groups cost less.",
    (
        ("unbiased", "holds"),
        *each("fails fails fails", "ebpo, "),
        *each("fails fails fails", "table, "),
        *each("fails holds fails", "score_table, "),
    ),
)
def skipped_rows(context: Context) -> list[Finding]:
    """N5: expected updates (`_unbiased`); nu at GRPO's share of rows against GRPO's, effect 1 - ratio."""
    findings = [_unbiased(context)]
    for name in SKIPPING:
        for scores in MODELS:
            cases = []
            for text, _, size in small_cells(context):
                plain = found("grpo", text, size, scores)
                ratio = found(name, text, size, scores, rows=plain.rows).nu / plain.nu
                cases.append(Case(study(text, size, name, scores, "nu_ratio_same_rows"), 1 - ratio))
            reference, size = context.reference, context.reference_size
            plain = found("grpo", reference, size, scores)
            exact = found(name, reference, size, scores, rows=plain.rows).nu / plain.nu
            check = sampled(context, (name, "grpo"), scores, exact, plain.rows)
            effect = f"noise scale / GRPO's at its share of rows, {context.where}"
            findings.append(Finding(f"{name}, {NAMES[scores]}", cases, "", effect, exact, check))
    return findings


def _unbiased(context: Context) -> Finding:
    """Mean update along the gradient with a quarter of the rows over that with all of the same rollouts, must be 1;
    effect: the p-value less 1e-5, in the reference world and the last ten."""
    cases, size, design, checks = [], context.reference_size, context.design, {}
    for text in dict.fromkeys((context.reference, *context.worlds[-10:])):
        tables, model = [table_of("table", text, size, "softmax")], MODELS["softmax"]
        sizes = design.prompts // 2, design.replicates, design.seed
        every, part = (sampled_noise(world(text), tables, model, *sizes, rows)[0] for rows in (1.0, 0.25))
        checks[text] = context.confirmed(1.0, paired_ratio(part.signal_R, every.signal_R))
        cases.append(Case(study(text, size, "table", "softmax", "cosine"), checks[text].p_value - 1e-5))
    name = f"update along the gradient, a quarter of the rows / all, {context.where}"
    return Finding("unbiased", cases, "", name, 1.0, checks[context.reference])


@claim(
    "N6",
    "arXiv 2603.01162",
    "One group size is best for all budgets",
    "prompts drawn anew; cost (N + nu)(1 + share of trained rows), a loss below 5 % forgiven",
    "With one right answer a small G is near the best throughout; with equal norms G depends on the budget.",
    (
        *each("fails holds holds holds fails fails", "rloo, ", ", all budgets", ", as pass rates rise"),
        *each("holds holds holds holds fails holds", "score_table, ", ", all budgets", ", as pass rates rise"),
    ),
)
def one_group_size(context: Context) -> list[Finding]:
    """N6: cost to a target (N + nu)(1 + rows) for N rollouts a step, of G in GRID; effect: REGRET less what the best
    single G loses, against the best G of each budget (at one world), or of each pass rate (at the smallest budget)."""
    findings = []
    for name, scores in ((n, s) for n in ("rloo", "score_table") for s in MODELS):
        cases = []
        for text in context.worlds:
            cost = _costs(name, text, scores)
            cases.append(Case(_best_sizes(text, cost, name, scores), REGRET - _regret(cost)))
        regret = _regret(_costs(name, context.reference, scores))
        effect = f"cost lost by the best single G, {context.reference}"
        findings.append(Finding(f"{name}, {NAMES[scores]}, all budgets", cases, "", effect, regret))
        texts = [f"beta:{8 * m:g},{8 * (1 - m):g}" for m in RISING]
        cost = np.stack([_costs(name, text, scores)[0] for text in texts])
        case = Case(_best_sizes(f"{texts[0]} --world {texts[-1]}", cost, name, scores), REGRET - _regret(cost))
        effect = "cost lost by the best single G, mean pass rate .1 to .9"
        findings.append(Finding(f"{name}, {NAMES[scores]}, as pass rates rise", [case], "", effect, _regret(cost)))
    return findings


def _best_sizes(text: str, cost: Array, name: str, scores: str) -> str:
    """The command that shows the best G of the first and of the last row."""
    first, last = (GRID[i] for i in np.argmin(cost[[0, -1]], axis=1))
    return study(text, f"{first} --group-size {last}", name, scores, "nu_drawn and rows")


def _costs(name: str, text: str, scores: str) -> Array:
    """Cost of a target relative to the best G's, (budgets, GRID): steps are proportional to 1 + nu/N."""
    cells = [found(name, text, size, scores) for size in GRID]
    nu, rows = np.array([c.nu_drawn for c in cells]), np.array([c.rows for c in cells])
    cost = (np.array(REGIMES)[:, None] * nu.min() + nu) * (1 + TRAINING * rows)
    return np.asarray(cost / cost.min(axis=1, keepdims=True))


def _regret(cost: Array) -> float:
    """What the G loses whose largest loss over the rows of `cost` is least."""
    return float((cost.max(axis=0) - 1).min())


@claim(
    "N7",
    "Dr. GRPO (arXiv 2503.20783) as it is read",
    "Leaving out the denominator is a change of the step size",
    "binary rewards, prompts that share nothing",
    "A group's own spread turns the update as well, by little; a batch's spread only rescales it.",
    (("group's spread", "holds_if"), ("batch's spread", "holds")),
)
def denominators(context: Context) -> list[Finding]:
    """N7: cosine of the expected updates with and without the division; effect 1e-9 - (1 - cosine)."""
    findings = []
    for variant, name in (("group's spread", "grpo"), ("batch's spread", "grpo_batch_norm")):
        cases = []
        for text, here, size in cells(context):
            p = np.asarray(rule(here, size).nodes)
            spreads = {round(v, 9) for v in p * (1 - p) if v > 1e-12}
            expected = size <= 3 or len(spreads) == 1
            cosine = found(name, text, size, "softmax").cosine
            cases.append(Case(study(text, size, name, "softmax", "cosine"), EXACT - (1 - cosine), expected, size))
        reference, size = context.reference, context.reference_size
        exact = found(name, reference, size, "softmax").cosine
        check = _sampled_cosine(context, name, exact)
        effect = f"cosine with dr_grpo's expected update, {context.where}"
        findings.append(Finding(variant, cases, "G ≤ 3 or one p(1-p)", effect, exact, check, strict=False))
    return findings


def _sampled_cosine(context: Context, name: str, exact: float) -> Check:
    """Products of two groups of every prompt: (E g . E g')/sqrt(|E g|^2 |E g'|^2) over prompts that share nothing."""
    here, size, design = world(context.reference), context.reference_size, context.design
    tables = [table_of(n, context.reference, size, "softmax") for n in (name, "dr_grpo")]
    moments = []
    for seed in stream_seed(design.seed, f"cosine {here.name}", size).spawn(design.replicates):
        rng = np.random.default_rng(seed)
        p = here.sample(rng, 16 * design.prompts)
        k = rng.binomial(size, np.broadcast_to(p, (2, len(p))))
        first, second = (t[k, 1] * k * (1 - p) - t[k, 0] * (size - k) * p for t in tables)
        cross = np.mean(first[0] * second[1] + first[1] * second[0]) / 2
        moments.append((cross, np.mean(first[0] * first[1]), np.mean(second[0] * second[1])))
    parts = np.array(moments)
    mean = parts.mean(axis=0)
    influence = parts @ (np.array([1, -0.5, -0.5]) / mean)
    value = float(mean[0] / np.sqrt(mean[1] * mean[2]))
    spread = float(np.std(influence, ddof=1))
    se = value * spread / len(parts) ** 0.5 if spread > 1e-9 else 0.0  # one rule up to a scale: rounding alone
    return context.confirmed(exact, Mean(value, se))
