"""Theorem 3.3 (lower error) and the remark that raw variances are conservative."""

from __future__ import annotations

import numpy as np

from ebpo_sim.claims import batches
from ebpo_sim.claims.base import Case, Context, Finding, Subject, claim
from ebpo_sim.claims.family import cells, preset, world
from ebpo_sim.counts.exact import limit_risk, rule
from ebpo_sim.counts.streams import (
    Design,
    mean_with_error,
    paired_ratio,
    simulate_errors,
    simulate_stream,
    stream_shrinkage,
)
from ebpo_sim.estimators import Estimator, make
from ebpo_sim.numbers import Array, formulas
from ebpo_sim.numbers.mixing import Prior
from ebpo_sim.worlds import intra_class_correlation

FINITE = "released"  # the variant whose memory is one batch: its batches of M prompts are cases too
LIMIT = float("inf")
SMALL = 16  # prompts a batch of the released code's effect
CRITICAL = "2(G-1)ρ² - (G-5)ρ - 3 < 0"
LEAVE_ONE_OUT = "ebpo_debiased, leave-one-out"
CONSERVATIVE = "ρ ≤ 1/(1+√G)"


@claim(
    "T2",
    "EBPO Theorem 3.3",
    "The shrunk baseline has a strictly lower error E(V - θ)² than the group mean",
    "known prior mean, true within and between variances",
    "Check your intra-class correlation: beyond ρ* the published baseline is worse than GRPO's.",
    (("algorithm-1", "holds_if"), ("released", "holds_if"), ("ebpo_debiased", "holds")),
)
def lower_error(context: Context) -> list[Finding]:
    """T2: exact ratio of errors in every cell; effect 1 - ratio. The released code in batches of M prompts as well.

    What an unbiased gradient costs: with leave-one-out the best line beats the group mean iff T2 < w, rho < 1/2.
    """
    subjects = {**context.subjects, LEAVE_ONE_OUT: leave_one_out}
    ratios: dict[str, list[tuple[float, Case]]] = {variant: [] for variant in subjects}
    for text, here, group_size in cells(context):
        prior = rule(here, group_size)
        icc = intra_class_correlation(here)
        for variant, subject in subjects.items():
            ratio = limit_risk(subject(prior), here, group_size).mse / (prior.within / group_size)
            below = icc < (0.5 - 1e-9 if variant == LEAVE_ONE_OUT else formulas.critical_icc(group_size))
            command = f"mse_study --world {text} --group-size {group_size} --estimator {estimator_name(variant)}"
            case = Case(f"{command}: ratio_exact", 1 - ratio, below, icc)
            if variant == FINITE:
                shown = case._replace(command=f"claims T2 --world {text} --group-size {group_size}: {variant}")
                ratios[variant] += batches.finite_cases(context, text, group_size, gain, shown)
            ratios[variant].append((LIMIT, case))
    reference, size = world(context.reference), context.reference_size
    prior = rule(reference, size)
    estimators = [make("grpo"), *(subject(prior) for subject in subjects.values())]
    errors = [e.mean(axis=1) for e in simulate_errors(reference, size, estimators, context.design, context.threads)]
    plain = limit_risk(estimators[0], reference, size).mse
    findings = []
    for (variant, found), estimator, error in zip(ratios.items(), estimators[1:], errors[1:], strict=True):
        simulated = paired_ratio(error, errors[0])
        exact = limit_risk(estimator, reference, size).mse / plain
        condition = "ρ < 1/2" if variant == LEAVE_ONE_OUT else CRITICAL
        name = f"error / group mean's, {context.where}"
        cases = [case for _, case in found]
        if variant == FINITE:
            cases, condition = batches.with_size(found, CRITICAL)
            exact = float(batches.error_ratio(_small(context), context.reference, size)[0])
            design = _small_design(context)
            error, other = (
                e.mean(axis=1) for e in simulate_errors(reference, size, [estimator, estimators[0]], design, 1)
            )
            simulated, name = paired_ratio(error, other), f"{name}, batches of {SMALL}"
        check = context.confirmed(exact, simulated)
        findings.append(Finding(variant, cases, condition, name, exact, check, "ebpo_debiased"))
    return findings


def gain(found: batches.Batches, text: str, group_size: int) -> Array:
    return 1 - batches.error_ratio(found, text, group_size)


def _room(found: batches.Batches, text: str, group_size: int) -> Array:
    """S* - E S."""
    prior = rule(world(text), group_size)
    best = formulas.oracle_shrinkage(prior.within, prior.between, group_size)
    return np.asarray(best - batches.mean_weight(found, text, group_size))


def _small(context: Context) -> batches.Batches:
    return batches.exact(context.reference, context.reference_size, SMALL)


def _small_design(context: Context) -> Design:
    """As many prompts as the context's, in batches of SMALL."""
    plan = context.design
    return plan._replace(prompts=SMALL, steps=plan.prompts // SMALL, burn_in=0)


@claim(
    "R2",
    "EBPO remark after Algorithm 1",
    "Using the raw variance of group means is conservative: it only lowers the weight on the prior below S*",
    "none given",
    "Holds with the within-group variance; with the variance of all rewards saturated prompts are over-shrunk.",
    (("idealised", "holds"), ("algorithm-1", "holds_if"), ("released", "holds_if"), ("ebpo_debiased", "holds")),
)
def conservative(context: Context) -> list[Finding]:
    """R2: exact S against S* in every cell; effect S* - S (zero counts as conservative). The released code in batches
    of M prompts as well: S* - E S, which is below 0 in every finite batch where the limit is 0."""
    # The remark's own reading: sigma2 is the within variance, tau2 the raw variance of means.
    variants: dict[str, Subject] = {**context.subjects, "idealised": lambda prior: preset("ebpo_within")}
    findings = []
    reference, size = world(context.reference), context.reference_size
    stream = simulate_stream(reference, size, context.design, context.threads)
    for variant, subject in variants.items():
        found: list[tuple[float, Case]] = []
        for text, here, group_size in cells(context):
            prior = rule(here, group_size)
            icc = intra_class_correlation(here)
            best = formulas.oracle_shrinkage(prior.within, prior.between, group_size)
            used = limit_risk(subject(prior), here, group_size).shrinkage
            if used is None:
                continue
            command = f"mse_study --world {text} --group-size {group_size} --estimator {estimator_name(variant)}"
            bound = formulas.conservative_icc(group_size)
            case = Case(f"{command} --estimator oracle_linear: shrinkage", best - used, icc <= bound * (1 + 1e-12), icc)
            if variant == FINITE:
                shown = case._replace(
                    command=f"claims R2 --world {text} --group-size {group_size}: {variant}",
                    expected=icc < bound * (1 - 1e-12),
                )
                found += batches.finite_cases(context, text, group_size, _room, shown)
            found.append((LIMIT, case))
        estimator = subject(rule(reference, size))
        cases, condition = [case for _, case in found], CONSERVATIVE
        name = f"shrinkage S, {context.where}"
        if variant == FINITE:
            cases, condition = batches.with_size(found, "ρ < 1/(1+√G)", strict=False)
            exact = float(batches.mean_weight(_small(context), context.reference, size)[0])
            short = simulate_stream(reference, size, _small_design(context), context.threads)
            weights, name = stream_shrinkage(estimator, short, size, 0), f"{name}, batches of {SMALL}"
        else:
            exact = limit_risk(estimator, reference, size).shrinkage or 0.0
            weights = stream_shrinkage(estimator, stream, size, context.design.burn_in)
        check = context.confirmed(exact, mean_with_error(weights))
        findings.append(Finding(variant, cases, condition, name, exact, check, "ebpo_debiased", strict=False))
    return findings


def leave_one_out(prior: Prior) -> Estimator:
    return preset("ebpo_debiased", leave_one_out=True)


def estimator_name(variant: str) -> str:
    """The registered estimator behind a variant, for commands that a reader types."""
    if variant.endswith(", leave-one-out"):
        return estimator_name(variant.removesuffix(", leave-one-out")) + ":leave_one_out=True"
    plain = variant.partition(",")[0]
    return {"idealised": "oracle_linear", "algorithm-1": "ebpo", "released": "ebpo_released"}.get(plain, plain)
