"""Do wrong answers carry larger scores than right ones? Exact under the score models and on the chains, measured on a
tiny language model (score_norms.csv: the bins of llm/measured/score_norms that have right and wrong answers)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ebpo_sim import tables
from ebpo_sim.chains.policy import right_probabilities, step_distributions
from ebpo_sim.chains.population import SkillChain, parse_population, success
from ebpo_sim.claims.base import Case, Context, Finding, claim, presumed
from ebpo_sim.claims.noise_rules import NAMES, each
from ebpo_sim.counts.noise import ARMS, MODELS
from ebpo_sim.numbers import Array

TABLE = Path(__file__).with_name("score_norms.csv")
CONDITIONS = {"one_logit": ("p > 1/2", 0.5), "softmax": (f"p > 1/K, K = {ARMS}", 1 / ARMS)}
RATES = np.arange(1, 20) / 20
PROMPTS = 512  # of a world on the chains


def chain_norms(people: SkillChain) -> tuple[Array, Array, Array]:
    """(p, a, c), each (P,), at the start, exactly: a = sum over steps of 1 - 2 pi(right) + sum pi^2, for in a right
    answer every action is right; c from E |s|^2 = sum over steps of 1 - sum pi^2 = p a + (1-p) c."""
    theta_SK, prompts = people.start_SK, people.prompts
    live_PL = prompts.live_PL
    squares_PL = np.sum(step_distributions(theta_SK, prompts) ** 2, axis=-1)
    p_P = success(theta_SK, prompts)
    right_P = np.where(live_PL, 1 - 2 * right_probabilities(theta_SK, prompts) + squares_PL, 0.0).sum(axis=-1)
    all_P = np.where(live_PL, 1 - squares_PL, 0.0).sum(axis=-1)
    return p_P, right_P, (all_P - p_P * right_P) / (1 - p_P)


@claim(
    "E8",
    "premise of score-weighted baselines",
    "Wrong answers carry larger scores than right ones",
    "squared norms in logits, means of an answer at a pass rate p",
    "Above chance with one right answer; not with equal norms, nor on the hard prompts of a trained model: measure.",
    each("fails holds_if holds_if")
    + presumed(
        "chains at the start = fails; tiny language model, start = holds; "
        "tiny language model, after 400 steps of GRPO = fails"
    ),
)
def wrong_answers(context: Context) -> list[Finding]:
    """E8: c - a by pass rate; effect: its mean over the cases."""
    findings = []
    for model, name in NAMES.items():
        condition, limit = CONDITIONS.get(model, ("", 0.0))
        scores = MODELS[model](RATES)
        cases = [
            Case(f"claims E8: {name}, p = {p:g}", float(c - a), bool(p > limit), float(p))
            for p, a, c in zip(RATES, scores.right_J, scores.wrong_J, strict=True)
        ]
        findings.append(_finding(name, cases, condition))
    cases = []
    for text in context.worlds[:1] + tuple(w for w in context.worlds if w.startswith("observed:")):
        p_P, right_P, wrong_P = chain_norms(parse_population(text, PROMPTS, 0, 4))
        for low in (0.0, 0.2, 0.4, 0.6, 0.8):
            inside = (p_P >= low) & (p_P < low + 0.2)
            if inside.any():
                gap = float(np.mean(wrong_P[inside] - right_P[inside]))
                cases.append(Case(f"claims E8: chains, {text}, p from {low:g} to {low + 0.2:g}", gap, x=low + 0.1))
    findings.append(_finding("chains at the start", cases))
    lines = [row for _, row in tables.rows(TABLE)]
    for policy in dict.fromkeys(x["policy"] for x in lines):
        name = f"tiny language model, {policy}"
        cases = [
            Case(
                f"claims E8: {name}, pass rates {x['pass_rate']}", float(x["wrong"]) - float(x["right"]),
                x=float(x["mean_pass_rate"]), se=float(np.hypot(float(x["wrong_se"]), float(x["right_se"]))),
            )
            for x in lines if x["policy"] == policy
        ]  # fmt: skip
        findings.append(_finding(name, cases))
    return findings


def _finding(variant: str, cases: list[Case], condition: str = "") -> Finding:
    mean = float(np.mean([case.effect for case in cases]))
    return Finding(variant, cases, condition, "mean of c - a over the cases", mean)
