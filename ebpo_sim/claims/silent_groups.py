"""Groups whose rewards are all equal: does drawing others in their place pay, and may their prompts be left out?

Exact from the shares of silent groups, replayed on the recorded run, and trained (`claims.allocation`)."""

from __future__ import annotations

from functools import lru_cache
from itertools import product

import numpy as np

from ebpo_sim.claims.allocation import DYNAMIC, redrawn, told, trained
from ebpo_sim.claims.base import Case, Claim, Context, Finding, enter
from ebpo_sim.claims.family import world
from ebpo_sim.claims.recorded import RUN
from ebpo_sim.numbers.formulas import degenerate_probability
from ebpo_sim.worlds import recorded

GROUPS = 64  # M, of a batch
RATIOS = (0.3, 3.0, 30.0)  # nu/N
COSTS = {"1:1": (1, 1), "4:1": (4, 1), "1:4": (1, 4)}  # a rollout : a row that is trained on
LOSS = 0.01  # of the signal: what "may be left out" allows
VISITS = 10  # in which a silent group leaves a prompt out


def dynamic_cost(live: float, noise: float, groups: int, sampling: float, training: float, skipped: bool) -> float:
    """Cost to any target with dynamic sampling over that without, by steps S_min (1 + nu/N) (arXiv 1812.06162).

    live: L, the share of groups that are not silent. noise: nu/N without it. groups: M of a batch. An estimator that
    scores groups by themselves and gives silent ones 0 has E|g|^2/L and |E g|^2/L^2 in a kept group, so nu, counted in
    groups, becomes L nu - (1 - L); a step draws M/L groups and trains on M, against M and L M (`skipped`) or M."""
    kept = live * noise - (1 - live) / groups
    spent = sampling + training * (live if skipped else 1.0)
    return (1 + kept) * (sampling / live + training) / ((1 + noise) * spent)


def live_share(text: str, group_size: int) -> float:
    """L of a world."""
    prior = world(text).quadrature(group_size)
    silent = degenerate_probability(np.array(prior.nodes), group_size)
    return float(1 - np.array(prior.weights) @ silent)


def dynamic_pays(context: Context) -> list[Finding]:
    """M4: 1 - cost to a target with it / without."""
    findings = []
    places = [(text, size) for size in context.group_sizes for text in context.worlds]
    shares = {(text, size): live_share(text, size) for text, size in places}
    asked = [("rollouts", (1, 0), True), ("seconds 1:1, silent rows not trained on", (1, 1), True)]
    asked += [(f"seconds {name}, silent rows trained on", cost, False) for name, cost in COSTS.items()]
    for variant, (a, b), skipped in asked:
        cases = []
        for (text, size), live in shares.items():
            for noise in RATIOS:
                if live < 1:
                    effect = 1 - dynamic_cost(live, noise, GROUPS, a, b, skipped)
                    expected = skipped or noise > (a - (a + b * live) / GROUPS) / (b * live)
                    command = f"claims M4 --world {text} --group-size {size}: {variant}, M = {GROUPS}, nu/N = {noise:g}"
                    cases.append(Case(command, effect, expected, live))
        rows = "L" if b == 1 else f"{b}L"
        condition = "" if skipped else f"ν/N > ({a} - ({a} + {rows})/M)/{rows}, L of M groups alive"
        cell = 1 - dynamic_cost(live_share(context.reference, context.reference_size), 3.0, GROUPS, a, b, skipped)
        named = f"saving, {context.where}, nu/N = 3"
        findings.append(Finding(variant, cases, condition, named, cell, strict=skipped))
    return findings + trained(DYNAMIC)


@lru_cache(maxsize=64)
def lost_signal(group_size: int, streak: int, kind: str) -> tuple[float, float]:
    """(share, its standard error) of the recorded run's later signal that lies in prompts left out after `streak`
    silent visits in a row, of groups of `group_size` of the recorded rollouts; kind: "any", "passed" or "failed"."""
    run, rng = recorded(RUN), np.random.default_rng([0, group_size])
    n, right_PV = run.rollouts, run.successes_PV
    signal_PV = right_PV * (n - right_PV) / (n * (n - 1))  # unbiased for p (1 - p)
    k_PV = rng.hypergeometric(right_PV, n - right_PV, group_size)
    silent_PV = {"any": (k_PV == 0) | (k_PV == group_size), "passed": k_PV == group_size, "failed": k_PV == 0}[kind]
    run_P, out_P = np.zeros(len(right_PV)), np.zeros(len(right_PV), dtype=bool)
    lost_P, all_P = np.zeros((2, len(right_PV)))
    for visit in range(right_PV.shape[1]):
        lost_P += signal_PV[:, visit] * out_P
        all_P += signal_PV[:, visit]
        run_P = np.where(silent_PV[:, visit], run_P + 1, 0)
        out_P |= run_P >= streak
    return told((redrawn() @ lost_P) / (redrawn() @ all_P))


def still_lost(text: str, group_size: int) -> float:
    """The share of a world's p (1 - p) that is left out within VISITS of a policy that stands still."""
    prior = world(text).quadrature(2 + group_size * VISITS)
    p, w = np.array(prior.nodes), np.array(prior.weights)
    live = 1 - degenerate_probability(p, group_size)
    return float(1 - (w * p * (1 - p)) @ live**VISITS / ((w * p * (1 - p)).sum()))


def leaving_out(context: Context) -> list[Finding]:
    """M5: 0.01 - share of the signal that is lost; on the recorded run by the silent visits in a row."""
    still = "a policy that stands still"
    cases = [
        Case(f"claims M5 --world {text} --group-size {size}: {still}", LOSS - still_lost(text, size),
             x=size)
        for size in context.group_sizes for text in context.worlds
    ]  # fmt: skip
    lost = still_lost(context.reference, context.reference_size)
    named = f"signal lost within {VISITS} visits, {context.where}"
    findings = [Finding(still, cases, "", named, lost)]
    for kind, size in product(("any", "passed", "failed"), (4, 8)):
        variant, cases = f"recorded run, {kind if kind != 'any' else 'silent'}, G = {size}", []
        for streak in (1, 2, 4, 8):
            lost, se = lost_signal(size, streak, kind)
            cases.append(Case(f"claims M5: {variant}", LOSS - lost, x=streak, se=se))
        findings.append(Finding(variant, cases, "", "signal lost after one silent visit", LOSS - cases[0].effect))
    return findings


enter(
    Claim(
        "M4",
        "DAPO (2503.14476)",
        "Sampling until every group is alive pays for what it draws",
        "an estimator that scores each group by itself, steps S_min (1 + nu/N), 64 groups a batch",
        "Never per rollout: it is a larger batch. Per second if silent rows were trained on and steps are noisy; so "
        "does leaving them out without drawing more.",
        dynamic_pays,
        (("rollouts", "fails"), ("seconds 1:1, silent rows trained on", "holds_if")),
    ),
    Claim(
        "M5",
        "practice (TRL issue 6367)",
        "A prompt whose group was silent may be left out from then on: at most 1 % of the signal is lost",
        "the signal of a prompt is p(1-p)",
        "No: a silent group is often chance, and prompts move. Skip with a chance that grows, and come back.",
        leaving_out,
        (("a policy that stands still", "fails"), ("recorded run, silent, G = 4", "fails")),
    ),
)
