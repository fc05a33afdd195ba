"""Theorem 3.3 (lower error) and the remark that raw variances are conservative."""

from __future__ import annotations

from ebpo_sim import formulas
from ebpo_sim.claims.base import Case, Check, Claim, Context, Finding
from ebpo_sim.claims.family import cells, world
from ebpo_sim.estimators import Estimator, make
from ebpo_sim.exact import limit_risk, rule
from ebpo_sim.mixing import Prior
from ebpo_sim.montecarlo import mean_with_error, paired_ratio, simulate_errors, simulate_stream, stream_shrinkage
from ebpo_sim.worlds import intra_class_correlation

CRITICAL = "2(G-1)ρ² - (G-5)ρ - 3 < 0"
CONSERVATIVE = "ρ ≤ 1/(1+√G)"


def lower_error(context: Context) -> list[Finding]:
    """T2: exact ratio of errors in every cell; effect 1 - ratio."""
    ratios: dict[str, list[Case]] = {variant: [] for variant in context.subjects}
    for text, here, group_size in cells(context):
        prior = rule(here, group_size)
        icc = intra_class_correlation(here)
        below = icc < formulas.critical_icc(group_size)
        for variant, subject in context.subjects.items():
            ratio = limit_risk(subject(prior), here, group_size).mse / (prior.within / group_size)
            command = f"mse_study --world {text} --group-size {group_size} --estimator {_name(variant)}"
            ratios[variant].append(Case(command, 1 - ratio, below, icc))
    reference, size = world(context.reference), context.reference_size
    prior = rule(reference, size)
    estimators = [make("grpo"), *(subject(prior) for subject in context.subjects.values())]
    errors = [e.mean(axis=1) for e in simulate_errors(reference, size, estimators, context.design, context.threads)]
    plain = limit_risk(estimators[0], reference, size).mse
    findings = []
    for (variant, cases), estimator, error in zip(ratios.items(), estimators[1:], errors[1:], strict=True):
        simulated = paired_ratio(error, errors[0])
        exact = limit_risk(estimator, reference, size).mse / plain
        findings.append(
            Finding(
                variant,
                cases,
                CRITICAL,
                f"error / group mean's, {context.reference}, G={size}",
                exact,
                Check(exact, simulated.value, simulated.se),
                "ebpo_debiased",
            )
        )
    return findings


def conservative(context: Context) -> list[Finding]:
    """R2: exact S against S* in every cell; effect S* - S (zero counts as conservative)."""
    variants = {**context.subjects, "idealised": _within}
    findings = []
    reference, size = world(context.reference), context.reference_size
    stream = simulate_stream(reference, size, context.design, context.threads)
    for variant, subject in variants.items():
        cases = []
        for text, here, group_size in cells(context):
            prior = rule(here, group_size)
            icc = intra_class_correlation(here)
            best = formulas.oracle_shrinkage(prior.within, prior.between, group_size)
            used = limit_risk(subject(prior), here, group_size).shrinkage
            if used is None:
                continue
            command = f"mse_study --world {text} --group-size {group_size} --estimator {_name(variant)}"
            below = icc <= formulas.conservative_icc(group_size) * (1 + 1e-12)
            cases.append(Case(command, best - used + 1e-9, below, icc))
        estimator = subject(rule(reference, size))
        exact = limit_risk(estimator, reference, size).shrinkage or 0.0
        simulated = mean_with_error(stream_shrinkage(estimator, stream, size, context.design.burn_in))
        findings.append(
            Finding(
                variant,
                cases,
                CONSERVATIVE,
                f"shrinkage S, {context.reference}, G={size}",
                exact,
                Check(exact, simulated.value, simulated.se),
                "ebpo_debiased",
            )
        )
    return findings


def _within(prior: Prior) -> Estimator:
    """The remark's own reading: sigma2 is the within variance, tau2 the raw variance of means."""
    return make("ebpo_within")


def _name(variant: str) -> str:
    return {"idealised": "oracle_linear", "algorithm-1": "ebpo", "released": "ebpo_released"}.get(variant, variant)


CLAIMS = (
    Claim(
        "T2",
        "EBPO Theorem 3.3",
        "The shrunk baseline has a strictly lower error E(V - θ)² than the group mean",
        "known prior mean, true within and between variances",
        "Check your intra-class correlation: beyond ρ* the published baseline is worse than GRPO's.",
        lower_error,
    ),
    Claim(
        "R2",
        "EBPO remark after Algorithm 1",
        "Using the raw variance of group means is conservative: it only lowers the weight on the prior below S*",
        "none given",
        "Holds with the within-group variance; with the variance of all rewards saturated prompts are over-shrunk.",
        conservative,
    ),
)
