"""What is true of every prior: closed forms, the estimators' own limits, and brute-force sums side by side."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

import exact_forms
from ebpo_sim.counts.exact import limit_risk
from ebpo_sim.estimators import make
from ebpo_sim.numbers import formulas
from ebpo_sim.numbers.mixing import Prior
from ebpo_sim.worlds import Beta, Points
from strategies import worlds

RELATIVE = 1e-9


def moments(world: Points) -> tuple[float, float, float]:
    """(w, T2, rho) by plain sums."""
    pairs = list(zip(world.prior.nodes, world.prior.weights, strict=True))
    mean = math.fsum(w * p for p, w in pairs)
    within = math.fsum(w * p * (1 - p) for p, w in pairs)
    between = math.fsum(w * (p - mean) ** 2 for p, w in pairs)
    return within, between, between / (within + between)


def close(x: float, y: float) -> bool:
    return math.isclose(x, y, rel_tol=RELATIVE)


def limit(name: str, world: Points | Beta, group_size: int):
    needs = {"prior": world.quadrature(2 * group_size + 4)} if name.startswith("oracle") else {}
    return limit_risk(make(name, **needs), world, group_size)


def two_points(icc: float) -> Points:
    """Mean 1/2, nodes 1/2 -+ sqrt(rho)/2: T2 = rho/4, w = (1 - rho)/4."""
    half = math.sqrt(icc) / 2
    return Points("two points", Prior((0.5 - half, 0.5 + half), (0.5, 0.5)))


sizes = st.integers(1, 64)


@given(worlds(), sizes)
def test_oracle_shrinkage_beats_the_group_mean_for_every_prior(world: Points, group_size: int) -> None:
    """T2 with the oracle S*: the risk is (1 - S*) w/G, strictly below w/G, by formula and by enumeration."""
    within, between, rho = moments(world)
    best = formulas.oracle_shrinkage(within, between, group_size)
    assert close(best, (within / group_size) / (within / group_size + between))
    assert close(exact_forms.oracle_shrinkage_icc(rho, group_size), best)
    risk = exact_forms.linear_risk(best, within, between, group_size)
    assert close(risk, (1 - best) * within / group_size)
    assert risk < within / group_size
    found = limit("oracle_linear", world, group_size)
    assert close(found.mse, risk)
    assert close(found.shrinkage, best)


@given(worlds(), sizes, st.floats(-1, 2))
def test_the_oracle_weight_is_the_minimum(world: Points, group_size: int, other: float) -> None:
    """R(S) - R(S*) = (w/G + T2)(S - S*)^2: no weight, inside [0, 1] or not, has a lower risk."""
    within, between, _ = moments(world)
    best = formulas.oracle_shrinkage(within, between, group_size)
    excess = exact_forms.linear_risk(other, within, between, group_size) - (1 - best) * within / group_size
    scale = within / group_size + between
    assert math.isclose(excess, scale * (other - best) ** 2, rel_tol=1e-9, abs_tol=1e-12 * scale)


@given(worlds(), sizes)
def test_algorithm_1_stays_between_its_bounds(world: Points, group_size: int) -> None:
    """Algorithm 1's limit is 1/(2 + (G-1) rho), in [1/(G+1), 1/2], as formula and through the real estimator."""
    _, _, rho = moments(world)
    found = limit("ebpo", world, group_size).shrinkage
    assert close(found, 1 / (2 + (group_size - 1) * rho))
    assert close(exact_forms.algorithm1_shrinkage(rho, group_size), found)
    assert 1 / (group_size + 1) * (1 - RELATIVE) <= found <= 0.5 * (1 + RELATIVE)
    assert exact_forms.algorithm1_shrinkage(0, group_size) == 0.5
    assert close(exact_forms.algorithm1_shrinkage(1, group_size), 1 / (group_size + 1))
    assert close(limit("ebpo_released", world, group_size).shrinkage, found)


@given(worlds(), sizes)
@example(two_points(0.9), 4)
@example(two_points(0.3), 4)
def test_algorithm_1_wins_below_the_critical_icc_and_loses_above(world: Points, group_size: int) -> None:
    """T2 as printed FAILS above rho*(G): the error ratio is above 1 there, below 1 beneath it, iff S < 2 S*."""
    within, between, rho = moments(world)
    critical = formulas.critical_icc(group_size)
    assume(abs(rho - critical) > 1e-6)
    found = limit("ebpo", world, group_size)
    ratio = found.mse / (within / group_size)
    assert (ratio < 1) == (rho < critical)
    assert (ratio > 1) == (rho > critical)
    assert (found.shrinkage < 2 * formulas.oracle_shrinkage(within, between, group_size)) == (rho < critical)
    assert (2 * (group_size - 1) * rho**2 - (group_size - 5) * rho - 3 < 0) == (rho < critical)


@pytest.mark.parametrize("group_size", [1, 2, 3, 4, 5, 8, 16, 32, 64, 1024])
def test_the_critical_icc_is_the_root(group_size: int) -> None:
    """Equality exactly at rho*(G): ratio 1 and S = 2 S* to 1e-9, opposite signs beside it, 3/4 at G = 1."""
    critical = formulas.critical_icc(group_size)
    assert abs(2 * (group_size - 1) * critical**2 - (group_size - 5) * critical - 3) < 1e-9
    assert 0.5 < critical <= 0.75
    assert close(limit("ebpo", two_points(critical), group_size).mse, (1 - critical) / 4 / group_size)
    assert close(
        exact_forms.algorithm1_shrinkage(critical, group_size), 2 * (1 - critical) / (1 + (group_size - 1) * critical)
    )
    below, above = (limit("ebpo", two_points(x), group_size).mse * group_size / ((1 - x) / 4)
                    for x in (critical - 1e-3, critical + 1e-3))  # fmt: skip
    assert below < 1 < above
    if group_size == 1:
        assert critical == 0.75


@given(worlds(), sizes)
def test_conservative_holds_up_to_its_own_threshold(world: Points, group_size: int) -> None:
    """R2: Algorithm 1 shrinks no more than S* iff rho <= 1/(1 + sqrt(G)); beyond, it shrinks more (R2 fails)."""
    _, _, rho = moments(world)
    threshold = formulas.conservative_icc(group_size)
    assume(abs(rho - threshold) > 1e-6)
    found = limit("ebpo", world, group_size).shrinkage
    assert (found <= exact_forms.oracle_shrinkage_icc(rho, group_size)) == (rho <= threshold)


@pytest.mark.parametrize("group_size", [1, 2, 4, 9, 16, 25, 100])
def test_the_conservative_threshold_is_a_root(group_size: int) -> None:
    """At rho = 1/(1 + sqrt(G)) both weights are 1/(1 + sqrt(G)): exact rational check for square G."""
    threshold = formulas.conservative_icc(group_size)
    assert math.isclose(exact_forms.algorithm1_shrinkage(threshold, group_size), threshold, rel_tol=1e-12)
    assert math.isclose(exact_forms.oracle_shrinkage_icc(threshold, group_size), threshold, rel_tol=1e-12)
    if math.isqrt(group_size) ** 2 == group_size:
        rho = Fraction(1, 1 + math.isqrt(group_size))
        assert (
            exact_forms.algorithm1_shrinkage(rho, group_size)
            == exact_forms.oracle_shrinkage_icc(rho, group_size)
            == rho
        )


@given(worlds(), st.integers(2, 64))
def test_the_repaired_estimators_never_lose(world: Points, group_size: int) -> None:
    """ebpo_debiased is the oracle; EBPO-G's S*/(1+S*) and EBPO-BB's nu/(nu+G) shrink less than it: never above w/G."""
    within, between, rho = moments(world)
    best = exact_forms.oracle_shrinkage_icc(rho, group_size)
    debiased = limit("ebpo_debiased", world, group_size)
    assert close(debiased.shrinkage, best)
    assert close(debiased.mse, (1 - best) * within / group_size)
    nu = (group_size - 1) * best
    drafts = {"ebpo_within": best / (1 + best), "ebpo_beta_binomial": nu / (nu + group_size)}
    assert close(exact_forms.within_shrinkage(rho, group_size), drafts["ebpo_within"])
    assert close(exact_forms.beta_binomial_shrinkage(rho, group_size), drafts["ebpo_beta_binomial"])
    for name, weight in drafts.items():
        found = limit(name, world, group_size)
        assert close(found.shrinkage, weight)
        assert close(found.mse, (1 - weight) ** 2 * within / group_size + weight**2 * between)
        assert debiased.mse < found.mse < within / group_size
    assert drafts["ebpo_beta_binomial"] < drafts["ebpo_within"] <= 0.5


@given(worlds(), sizes)
def test_the_posterior_mean_is_best_then_the_best_line_then_the_group_mean(world: Points, group_size: int) -> None:
    """Bayes <= best line < group mean for every prior, and no bias of either oracle."""
    within, _, _ = moments(world)
    bayes, line = limit("oracle_bayes", world, group_size), limit("oracle_linear", world, group_size)
    assert bayes.mse <= line.mse * (1 + RELATIVE)
    assert line.mse < within / group_size
    assert close(limit("grpo", world, group_size).mse if group_size > 1 else within, within / group_size)
    assert abs(bayes.bias) < 1e-12
    assert abs(line.bias) < 1e-12


@given(st.floats(0.05, 20), st.floats(0.05, 20), sizes)
@settings(max_examples=50)
def test_for_beta_priors_the_line_is_the_posterior_mean(a: float, b: float, group_size: int) -> None:
    """Conjugacy: rho = 1/(a+b+1), S* = (a+b)/(a+b+G), and both oracles have the risk ab/((a+b)(a+b+1)(a+b+G))."""
    bayes, line = (limit(name, Beta(a, b), group_size) for name in ("oracle_bayes", "oracle_linear"))
    nu = a + b
    assert close(bayes.mse, a * b / (nu * (nu + 1) * (nu + group_size)))
    assert close(line.mse, bayes.mse)
    assert close(line.shrinkage, nu / (nu + group_size))
    assert close(exact_forms.oracle_shrinkage_icc(1 / (nu + 1), group_size), nu / (nu + group_size))


@given(worlds(), st.integers(2, 64))
def test_baselines_without_the_own_reward(world: Points, group_size: int) -> None:
    """RLOO's risk is w/(G-1); the James-Stein limit is the leave-one-out line with weight v/(v+s); T2 at S = 1."""
    within, between, _ = moments(world)
    assert close(limit("rloo", world, group_size).mse, within / (group_size - 1))
    assert close(exact_forms.leave_one_out_risk(0, within, between, group_size), within / (group_size - 1))
    noise = within / group_size
    weight = noise / (noise + between + noise)  # v/(v + s), s the raw variance of the other prompts' means
    james_stein = limit("james_stein", world, group_size)
    assert close(james_stein.shrinkage, weight)
    assert close(james_stein.mse, (1 - weight) ** 2 * within / (group_size - 1) + weight**2 * between)
    assert close(exact_forms.leave_one_out_risk(weight, within, between, group_size), james_stein.mse)
    assert close(limit("global_mean", world, group_size).mse, between)
    assert limit("global_mean", world, group_size).shrinkage == 1


@given(worlds())
def test_groups_of_one(world: Points) -> None:
    """G = 1: the group mean is the reward (risk w), Algorithm 1 pools half, EBPO-BB has nu = 2, S* = 1 - rho."""
    within, between, rho = moments(world)
    for name in ("grpo", "dr_grpo", "rloo"):
        assert close(limit(name, world, 1).mse, within)
    assert close(limit("ebpo", world, 1).shrinkage, 0.5)
    assert close(limit("oracle_linear", world, 1).shrinkage, 1 - rho)
    assert close(limit("ebpo_beta_binomial", world, 1).shrinkage, 2 / 3)  # v = m(1-m) is not admissible: nu = 2
    assert close(limit("ebpo_debiased", world, 1).mse, between)  # within and between cannot be told apart: REINFORCE
