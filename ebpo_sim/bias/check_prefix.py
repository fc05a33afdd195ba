"""Finding (i) checked: closed forms against five-point differences of the surrogate and full enumeration."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ebpo_sim.bias import control
from ebpo_sim.bias import prefix as px
from ebpo_sim.bias.record import Cases
from ebpo_sim.numbers import Array
from ebpo_sim.numbers.softmax import softmax

LENGTHS = (20, 21, 30, 38, 4, 8, 33, 38)  # the reference's example group, p = 3/8
REWARDS = (1, 1, 1, 0, 0, 0, 0, 0)
OLD = np.array([0.3, -0.2, 0.5, 0.0, -0.4])  # K = 5 logits; any will do
TOKEN = 2
UNIFORM = ("dr_grpo", "gpg", "dapo", "cispo", "gcpo")
DIFFERENCES = 5e-11  # finite-difference error the reference reports
EXACT = 1e-12


def numeric_gradient(alpha_G: ArrayLike, A_G: ArrayLike, new: Array = OLD, **how: Any) -> Array:
    """The surrogate's gradient in the shared position's logits, by finite differences; how: see `px.surrogate`."""
    return px.numerical_gradient(lambda z: px.surrogate(z, OLD, TOKEN, alpha_G, A_G, **how), new)


def numeric_weight(alpha_G: ArrayLike, A_G: ArrayLike, new: Array = OLD, **how: Any) -> float:
    """W_agg measured: that gradient over (e_y - pi), at y."""
    return float(numeric_gradient(alpha_G, A_G, new, **how)[TOKEN] / (1 - softmax(new)[TOKEN]))


def _moved(ratio: float) -> Array:
    """Logits at which the shared token has pi = ratio pi_old."""
    old = float(softmax(OLD)[TOKEN])
    new = OLD.copy()
    new[TOKEN] += math.log(ratio * (1 - old) / (1 - ratio * old))
    return new


def check_prefix(seed: int) -> Cases:
    """P1 to P7, the control (N1 to N3) and the first-step loss of Proposition 4 (L1 to L3)."""
    A, p = px.advantages(REWARDS), 3 / 8
    rng = np.random.default_rng(seed)
    alpha = {m: px.token_weights(m, LENGTHS, REWARDS) for m in px.METHODS}
    new = _moved(1.1)
    step = 1.1 * (np.eye(5)[TOKEN] - softmax(new))
    worst = max(
        float(np.abs(numeric_gradient(alpha[m], A, new) - px.aggregate_weight(alpha[m], A) * step).max())
        for m in px.METHODS
    )
    yield (
        "P1", "max error of grad J = W s (e_y - pi), 9 methods, s = 1.1", 0, worst, DIFFERENCES, "no clipped branch"
    )  # fmt: skip
    for m, published in (("grpo", -0.023207), ("grpo_v3.2", -0.011235)):
        numeric = numeric_weight(alpha[m], A)
        closed = px.aggregate_weight_closed_form(m, LENGTHS, REWARDS)
        yield "P2", f"{m}: W of the example group, published", published, numeric, 5e-7, "all share y"
        yield "P2", f"{m}: W = closed form in 1/L", closed, numeric, DIFFERENCES, "all share y, s = 1"
    largest = max(abs(numeric_weight(alpha[m], A)) for m in UNIFORM)
    yield "P2", "weights equal over i: largest |W| of 5 methods", 0, largest, DIFFERENCES, "s = 1"
    equal = np.full(8, 20.0)
    cut = px.token_weights("cppo", equal, REWARDS, gamma=0.5)
    pruned = 3 * (1 - p) / (8 * 20 * math.sqrt(p * (1 - p)))
    yield (
        "P2", "CPPO: W = n+ (1-p)/(G L sigma), equal lengths", pruned, numeric_weight(cut, A), DIFFERENCES,
        "p < gamma < 1-p: only correct answers pass", "G = 8, p = 3/8, gamma = 0.5",
    )  # fmt: skip
    largest = max(abs(numeric_weight(px.token_weights(m, equal, REWARDS), A)) for m in px.METHODS if m != "cppo")
    yield "P3", "equal lengths: largest |W| of all methods but CPPO", 0, largest, DIFFERENCES, "all share y, s = 1"
    subset = np.array([1, 1, 0, 1, 1, 0, 0, 1], bool)
    for m, weighted, what in (("dr_grpo", False, "(n/G)(p_S - p)"), ("grpo_v3.2", True, "signal + length bias")):
        terms = px.subset_terms(LENGTHS, REWARDS, subset, weighted)
        numeric = numeric_weight(alpha[m] * subset, A)
        yield "P4", f"{m}, 5 of 8 share y: W = {what}", sum(terms), numeric, DIFFERENCES, "s = 1"
    uniform = np.full(8, 1 / 8)
    for s, sign, side in ((1.3, -1, "above 1+eps: W = -s p(1-p)"), (0.7, 1, "below 1-eps: W = s p(1-p)")):
        yield (
            "P5", f"clipping, s = {s} {side}", sign * s * p * (1 - p), numeric_weight(uniform, A, _moved(s)),
            DIFFERENCES, "uniform weights, all share y, binary rewards", f"uniform weights, s = {s}: W is not 0",
        )  # fmt: skip
    u = np.exp(rng.normal(0, 0.02, 8))
    for m, root, s_G in (("gcpo", 1.0, u), ("gspo", equal, u ** (1 / equal))):
        flat = px.token_weights(m, equal, REWARDS)
        numeric = numeric_weight(flat, A, suffix_ratio_G=u, root_G=root, clip=px.UNCLIPPED)
        yield (
            "P6", f"{m} off-policy: W = G Cov(alpha s, A)", 8 * np.cov(flat * s_G, A, ddof=0)[0, 1], numeric,
            DIFFERENCES, "ratio counted once per output, no clipping",
            "equal lengths and weights, suffix ratios differ",
        )  # fmt: skip
    literal = float(np.cov(A, LENGTHS, ddof=0)[0, 1]) / math.sqrt(p * (1 - p))
    S, mu, r = 0.4, 0.6, np.array(REWARDS)
    needs = "uniform weights, s = 1"
    yield from (
        ("P6", "gcpo, ratio counted at every token: W = Cov(L, A)/sigma, on-policy", literal,
         numeric_weight(alpha["gcpo"] * LENGTHS, A), DIFFERENCES, "Eq. 1's sum over t taken literally",
         "W = 0 of P2 needs the sequence ratio once per output"),
        ("P7", "baseline b = 0.2: W = mean(r) - b", p - 0.2, numeric_weight(uniform, r - 0.2), DIFFERENCES, needs,
         "any constant baseline other than the group mean"),
        ("P7", "shrinkage baseline: W = S (mu_group - mu_global)", S * (p - mu),
         numeric_weight(uniform, r - ((1 - S) * p + S * mu)), DIFFERENCES, needs,
         "S = 0.4, mu_group = 3/8, mu_global = 0.6: a shared prefix of a hard prompt is pushed down"),
        ("P7", "RLOO: W = 0", 0, numeric_weight(uniform, r - (sum(REWARDS) - r) / 7), DIFFERENCES, needs),
    )  # fmt: skip
    yield from _control()
    yield from _loss(A)


def _control() -> Cases:
    same, swap = control.FirstToken(0.6, (0.5, 0.5), (5, 20), (5, 20)), "G = 4, q = 0.6, exact enumeration"
    wrong_long = control.FirstToken(0.6, (0.4, 0.4), (10, 40), (10, 10))
    general = control.FirstToken(0.6, (0.5, 0.3), (8, 30), (12, 9))
    for m in ("grpo", "grpo_v3.2", "dapo"):
        yield (
            "N1", f"{m}: drift of a token that changes nothing", 0, control.expected_drift(same, 4, m), EXACT, swap,
            "E[W(1-q) | all f] is not 0 for the same world",
        )  # fmt: skip
    drift = control.conditional_drift(same, 4, "grpo_v3.2")
    yield "N1", "grpo_v3.2: E[W(1-q) | all f], published", 0.01125, drift, EXACT, swap
    sigma = f"no sigma; with DAPO's sigma {control.expected_drift(wrong_long, 4, 'dapo'):.5f}; G = 4, q = 0.6"
    zero = "1/sum|o| has W = 0 in every group, yet drifts"
    for m, published, tolerance, condition, counterexample in (
        ("grpo_v3.2", 0.00324, EXACT, swap, ""),
        ("dr_grpo", 0.0, EXACT, swap, ""),
        ("gpg", 0.00115, 5e-6, sigma, zero),
    ):
        drift, what = control.expected_drift(wrong_long, 4, m), f"{m}: f makes wrong answers long, drift, published"
        yield "N2", what, published, drift, tolerance, condition, counterexample
    for m, weighted, published in (("grpo_v3.2", True, 0.008535), ("dr_grpo", False, 0.036)):
        drift, closed = control.expected_drift(general, 4, m), control.expected_drift_closed_form(general, 4, weighted)
        yield "N3", f"{m}: drift of a general world = closed form", closed, drift, EXACT, swap
        yield "N3", f"{m}: drift of a general world, published", published, drift, EXACT, swap


def _loss(A: Array) -> Cases:
    covariance = float(np.cov(A, LENGTHS, ddof=0)[0, 1])
    share = 8 * covariance / (sum(LENGTHS) * math.sqrt(15 / 64))
    for id, m, closed, published, rounding in (
        ("L1", "grpo", 0.0, 0.0, 1e-16),
        ("L2", "dr_grpo", covariance, -0.125, 1e-15),
        ("L3", "dapo", share, -0.01076, 5e-6),
    ):
        J = sum(
            px.surrogate(OLD, OLD, TOKEN, weight * length, a)
            for weight, length, a in zip(px.token_weights(m, LENGTHS, REWARDS), LENGTHS, A, strict=True)
        )
        yield id, f"{m}: first-step J of the example group, published", published, J, rounding, "s = 1, no R"
        yield id, f"{m}: first-step J = length covariance", closed, J, EXACT, "s = 1, no R"
