"""Theorem 3.2 (non-vanishing signal), Corollary 3.5 (penalty grows with the global mean), and what a penalty is."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from ebpo_sim.claims.base import Case, Check, Context, Finding, claim
from ebpo_sim.claims.family import cells, world
from ebpo_sim.counts.exact import POPULATION, limit_state, rule
from ebpo_sim.counts.streams import Design, mean_with_error, simulate_stream
from ebpo_sim.counts.updates import limit_advantages
from ebpo_sim.estimators import Estimator, baseline_table
from ebpo_sim.groups import count_groups
from ebpo_sim.studies.failure.study import (
    ARMS,
    SNR_P,
    after_history,
    all_fail_advantages,
    direction,
    reference_batch,
    signal_to_noise,
)
from ebpo_sim.worlds import World

MEANS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
CONCENTRATION = 5.0  # a + b of the Beta worlds along which the mean moves: one intra-class correlation, so one S


def premise(estimator: Estimator, state: Any, counts: list[float], here: World, group_size: int) -> bool:
    """Theorem 3.2's assumptions: S > 0 in this batch, and mu > 0, the mean of the policy's rewards. Not the mu_glob
    that the rule makes of a batch without a success: then a rule that forgets would be excused where others fail."""
    batch = count_groups(group_size, counts)
    known = estimator.baseline_of(estimator.turn(state, batch)[0], batch)
    return (
        known is not None
        and known.shrinkage_P is not None
        and bool(np.min(known.shrinkage_P) > 0 and rule(here, group_size).mean > 0)
    )


@claim(
    "T1",
    "EBPO Theorem 3.2",
    "An all-fail group keeps a negative advantage where GRPO's is zero",
    "S > 0 and mu_glob > 0; stated before normalisation",
    "Small batches of hard prompts can still be silent: centring takes the signal away when nobody succeeds.",
    (("algorithm-1", "holds_if"), ("released", "holds_if"), ("ebpo_debiased", "holds")),
)
def non_vanishing(context: Context) -> list[Finding]:
    """T1: the advantage of an all-fail group after a long history, in three batches; effect -A."""
    reference, size = world(context.reference), context.reference_size
    stream = simulate_stream(reference, size, context.design, context.threads)
    findings = []
    for variant, subject in context.subjects.items():
        cases = []
        for text, here, group_size in cells(context):
            estimator = subject(rule(here, group_size))
            state = limit_state(estimator, here, group_size)
            icc = rule(here, group_size).mean
            command = f"failure_study --world {text} --group-size {group_size}"
            no_success = [8.0] + [0.0] * group_size
            for counts, name in ((no_success, "no_success_batch"), (reference_batch(group_size), "reference_batch")):
                if not premise(estimator, state, counts, here, group_size):
                    continue
                if variant == "idealised":  # the theorem speaks of the raw advantage
                    signal = float(baseline_table(estimator, state, group_size)[0, 0])
                    cases.append(Case(f"{command}: raw_exact", signal, True, icc))
                    break
                signal = -after_history(estimator, state, counts, group_size)
                cases.append(Case(f"{command}: {name}", signal, counts[0] < sum(counts), icc))
        estimator = subject(rule(reference, size))
        exact = float(limit_advantages(estimator, reference, size)[0, 0])
        simulated = mean_with_error(all_fail_advantages(estimator, stream, size, context.design.burn_in))
        findings.append(
            Finding(
                variant,
                cases,
                "the batch has a success",
                f"normalised advantage of an all-fail group, {context.where}",
                exact,
                context.confirmed(exact, simulated),
                "ebpo_debiased",
            )
        )
    return findings


@claim(
    "C1",
    "EBPO Corollary 3.5",
    "The penalty of an all-fail group grows with mu_glob: failing the easy costs more than failing the hard",
    "raw advantage, S fixed",
    "After batch centring the penalty follows the batch's mean, not the policy's history.",
    (("algorithm-1", "fails"), ("algorithm-1, batch of the same world", "holds"), ("released", "fails")),
)
def growing_penalty(context: Context) -> list[Finding]:
    """C1: Beta worlds of one intra-class correlation, mean rising; effect = the penalty's increase between neighbours.

    idealised: raw advantage. The others as they reach the policy: the same fixed batch after each history; and,
    as an option, a batch from the same world as the history.
    """
    findings = []
    for variant, subject in context.subjects.items():
        views = ("raw",) if variant == "idealised" else ("same batch", "batch of the same world")
        for view in views:
            cases = []
            for group_size in context.group_sizes:
                penalties = [(m, _penalty(subject, m, group_size, view)) for m in MEANS]
                for (m, low), (n, high) in pairwise(penalties):
                    a, b = _beta(m), _beta(n)
                    column = {"raw": "raw_exact", "same batch": "reference_batch"}.get(view, "normalised_exact")
                    command = f"failure_study --world {a} --world {b} --group-size {group_size}: {column}"
                    cases.append(Case(command, high - low, True, n))
            size = context.reference_size
            spread = _penalty(subject, MEANS[-1], size, view) - _penalty(subject, MEANS[0], size, view)
            named = f"{variant}, {view}" if view == "batch of the same world" else variant
            findings.append(
                Finding(
                    named,
                    cases,
                    "",
                    f"penalty at mu_glob 0.95 less penalty at 0.05, G={size}",
                    spread,
                    _simulated_spread(context, subject, view),
                    "ebpo_debiased",
                )
            )
    return findings


def _beta(mean: float) -> str:
    return f"beta:{CONCENTRATION * mean:g},{CONCENTRATION * (1 - mean):g}"


def _penalty(subject: Any, mean: float, group_size: int, view: str, groups: float = POPULATION) -> float:
    here = world(_beta(mean))
    estimator = subject(rule(here, group_size))
    state = limit_state(estimator, here, group_size, groups)
    if view != "batch of the same world":
        return _after(estimator, state, group_size, view)
    return -float(limit_advantages(estimator, here, group_size)[0, 0])


def _simulated_spread(context: Context, subject: Any, view: str) -> Check:
    """The same difference after simulated histories, beside the exact one for a history of that length."""
    design = context.design
    seen = float(design.prompts * design.steps) if view != "batch of the same world" else POPULATION
    size, found = context.reference_size, []
    low, high = (_penalty(subject, mean, size, view, seen) for mean in (MEANS[0], MEANS[-1]))
    for mean in (MEANS[0], MEANS[-1]):
        here = world(_beta(mean))
        estimator = subject(rule(here, size))
        stream = simulate_stream(here, size, context.design, context.threads)
        if view == "batch of the same world":
            found.append(-all_fail_advantages(estimator, stream, size, context.design.burn_in))
            continue
        values = []
        for replicate in stream:
            state = estimator.init()
            for sums in replicate:
                state = estimator.update(state, count_groups(size, sums[0]))
            values.append(_after(estimator, state, size, view))
        found.append(np.asarray(values))
    return context.confirmed(high - low, mean_with_error(found[1] - found[0]))


def _after(estimator: Estimator, state: Any, group_size: int, view: str) -> float:
    """The raw penalty in this state, or that of the reference batch."""
    if view == "raw":
        return float(baseline_table(estimator, state, group_size)[0, 0])
    return -after_history(estimator, state, reference_batch(group_size), group_size)


@claim(
    "O3",
    "this project",
    "The penalty of a failed group is a direction: its signal exceeds its noise",
    "constant penalty, wrong answers equally likely",
    "On hopeless prompts the penalty only flattens the policy; it does not point to the answer.",
    (("any constant penalty", "holds_if"),),
)
def direction_of_penalty(context: Context) -> list[Finding]:
    """Ours: does a penalty on a saturated failure say where to go? effect: signal to noise less 1, p -> 0."""
    cases = [
        Case(
            f"failure_study --world beta:1,1 --estimator ebpo --group-size {g}: snr_exact, p {p:g}",
            signal_to_noise(p, g, ARMS) - 1,
            p > np.sqrt((ARMS - 2) / ARMS) / np.sqrt(g),
            p,
        )
        for g in context.group_sizes
        for p in sorted(SNR_P)
    ]
    design = Design(context.design.prompts, 2, 0, context.design.replicates, context.design.seed)
    row = direction(0.05, context.reference_size, ARMS, design)
    check = Check(row["snr_exact"], row["snr_mc"], row["snr_mc_se"], design.replicates - 1)
    name = f"signal-to-noise ratio at p = 0.05, G={context.reference_size}, {ARMS} arms"
    return [
        Finding("any constant penalty", cases, f"p > √((K-2)/K)/√G, K = {ARMS} arms", name, row["snr_exact"], check)
    ]
