"""Exact risks against closed forms that are written out here, printed anchors, and independent integration."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad

import exact_forms
from ebpo_sim.counts.exact import count_distribution, limit_risk, rule, table_risk
from ebpo_sim.errors import InputError
from ebpo_sim.estimators import make
from ebpo_sim.numbers import formulas
from ebpo_sim.numbers.mixing import Prior
from ebpo_sim.worlds import Beta, LogitNormal, Mixture, Points, World, parse_world

SIZES = (1, 2, 3, 4, 8, 16, 32, 64)
BETAS = tuple(Beta(a, b) for a in (0.05, 0.3, 1.0, 4.0, 20.0) for b in (0.05, 0.7, 3.0, 20.0))
OTHERS = tuple(
    parse_world(text)
    for text in (
        "points:0.2@1,0.9@3",
        "points:0@1,1@1,0.5@0.5",
        "logitnormal:-1,2",
        "logitnormal:0.5,0.3",
        "logitnormal:2,6",
        "mix:0.25*beta:0.3,4+0.75*logitnormal:1,1",
        "mix:0.5*points:0+0.3*beta:5,5+0.2*points:1",
    )
)


def density_moments(world: World) -> tuple[float, float]:
    """(E p, E p^2) without the package's quadrature: closed form, finite sum, or adaptive integration."""
    if isinstance(world, Beta):
        first = world.a / (world.a + world.b)
        return first, first * (world.a + 1) / (world.a + world.b + 1)
    if isinstance(world, Mixture):
        parts = [density_moments(part) for part in world.parts]
        return tuple(math.fsum(w * m[i] for w, m in zip(world.weights, parts, strict=True)) for i in (0, 1))
    if isinstance(world, Points):
        pairs = list(zip(world.prior.nodes, world.prior.weights, strict=True))
        return tuple(math.fsum(w * p**power for p, w in pairs) for power in (1, 2))
    return logit_normal_mean(world, lambda p: p), logit_normal_mean(world, lambda p: p * p)


def logit_normal_mean(world: LogitNormal, f) -> float:
    """E f(p) by adaptive integration over the normal variable, split where the logistic is steep."""

    def integrand(z: float) -> float:
        return f(1 / (1 + math.exp(-(world.m + world.s * z)))) * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

    steep = min(max(-world.m / world.s, -8.0), 8.0)
    pieces = ((-10.0, steep), (steep, 10.0))
    return math.fsum(quad(integrand, low, high, epsabs=1e-14, epsrel=1e-13, limit=400)[0] for low, high in pieces)


def closed_forms(within: float, between: float, group_size: int) -> dict[str, tuple[float | None, float]]:
    """preset -> (weight, risk), written out from theory.md; leave-one-out rules need two rollouts."""
    rho = between / (within + between)
    best = (1 - rho) / (1 + (group_size - 1) * rho)
    nu = (group_size - 1) * best
    weights = {
        "grpo": 0.0,
        "dr_grpo": 0.0,
        "grpo_batch_norm": 0.0,
        "ebpo": 1 / (2 + (group_size - 1) * rho),
        "ebpo_released": 1 / (2 + (group_size - 1) * rho),
        "global_mean": 1.0,
        "oracle_linear": best,
    }
    if group_size > 1:
        weights |= {
            "reinforce_pp_baseline": 0.0,
            "ebpo_within": best / (1 + best),
            "ebpo_beta_binomial": nu / (nu + group_size),
            "ebpo_debiased": best,
        }
    risks = {n: (s, (1 - s) ** 2 * within / group_size + s**2 * between) for n, s in weights.items()}
    if group_size > 1:
        noise = within / group_size
        weight = noise / (2 * noise + between)
        risks["rloo"] = 0.0, within / (group_size - 1)
        risks["james_stein"] = weight, (1 - weight) ** 2 * within / (group_size - 1) + weight**2 * between
    return risks


def limit(name: str, world: World, group_size: int):
    needs = {"prior": rule(world, group_size)} if name.startswith("oracle") else {}
    return limit_risk(make(name, **needs), world, group_size)


@pytest.mark.parametrize("world", BETAS + OTHERS, ids=lambda w: w.name)
def test_every_linear_preset_has_its_closed_form(world: World) -> None:
    """Guards the long-run risk and weight of every linear preset to a relative 1e-9, G = 1 to 64."""
    first, second = density_moments(world)
    for group_size in SIZES:
        for name, (weight, risk) in closed_forms(first - second, second - first**2, group_size).items():
            found = limit(name, world, group_size)
            assert found.shrinkage == pytest.approx(weight, rel=1e-9, abs=1e-12), (name, group_size)
            assert found.mse == pytest.approx(risk, rel=1e-9), (name, group_size)
            assert abs(found.bias) < 1e-11, (name, group_size)


@pytest.mark.parametrize("group_size", SIZES)
def test_formulas_agree_with_the_estimators_at_every_group_size(group_size: int) -> None:
    """Guards `formulas`: each weight is what its preset does in the limit, group size 1 included."""
    world = Beta(0.5, 0.7)
    rho = 1 / 2.2
    stated = {
        "ebpo": exact_forms.algorithm1_shrinkage,
        "oracle_linear": exact_forms.oracle_shrinkage_icc,
    }
    if group_size > 1:  # a group of one shows no within variance, so nothing can be estimated of it
        stated |= {"ebpo_within": exact_forms.within_shrinkage, "ebpo_debiased": exact_forms.oracle_shrinkage_icc}
        stated |= {"ebpo_beta_binomial": exact_forms.beta_binomial_shrinkage}
    found = {name: limit(name, world, group_size).shrinkage for name in stated}
    assert found == pytest.approx({name: f(rho, group_size) for name, f in stated.items()}, rel=1e-9)


def test_the_two_headline_worlds() -> None:
    """Anchors at G = 4: beta:5,5 wins at ratio 0.391 (S 0.440), beta:0.1,0.1 loses at 1.593."""
    for world, rho, ratio, weight in ((Beta(5, 5), 1 / 11, "0.391", "0.440"), (Beta(0.1, 0.1), 1 / 1.2, "1.593", None)):
        found = limit("ebpo", world, 4)
        s = 1 / (2 + 3 * rho)
        exact = (1 - s) ** 2 + s**2 * 4 * rho / (1 - rho)
        within = (1 - rho) / 4  # both means are 1/2
        assert found.mse / (within / 4) == pytest.approx(exact, rel=1e-9)
        assert found.shrinkage == pytest.approx(s, rel=1e-9)
        assert f"{found.mse / limit('grpo', world, 4).mse:.3f}" == ratio
        assert weight is None or f"{found.shrinkage:.3f}" == weight


@pytest.mark.parametrize(("group_size", "printed"), [(4, ".6287"), (8, ".5823"), (16, ".5489"), (32, ".5273")])
def test_critical_icc_has_its_printed_values(group_size: int, printed: str) -> None:
    """Anchors of rho*(G), and the root of the quadratic by the textbook formula."""
    a, b, c = 2 * (group_size - 1), -(group_size - 5), -3
    assert formulas.critical_icc(group_size) == pytest.approx((-b + math.sqrt(b * b - 4 * a * c)) / (2 * a), rel=1e-13)
    assert f"{formulas.critical_icc(group_size):.4f}".lstrip("0") == printed


@pytest.mark.parametrize(
    ("world", "group_size", "measured"),
    [
        (Beta(0.5, 0.7), 4, (0.03315, 0.02613, 0.02576, 0.02549)),
        (Beta(2, 3), 4, (0.04995, 0.02438, 0.02573, 0.02222)),
        (Beta(0.05, 0.05), 4, (0.00568, 0.01371, 0.00554, 0.00554)),
        (Beta(0.05, 0.05), 8, (0.00287, 0.00547, 0.00283, 0.00283)),
    ],
)
def test_an_earlier_measurement(world: Beta, group_size: int, measured: tuple[float, ...]) -> None:
    """Loose cross-check on a Monte Carlo of 400,000 prompts made elsewhere.

    Var (b - p)^2 is below 8 mse^2 + mse/8 for these worlds, so an entry's relative standard error is below 1.5 %;
    5 of them, and half a unit of the last digit. False-fail rate below 1e-5 for all 16.
    """
    for name, value in zip(("grpo", "ebpo", "ebpo_within", "oracle_linear"), measured, strict=True):
        assert limit(name, world, group_size).mse == pytest.approx(value, rel=0.075, abs=5e-6), name


@pytest.mark.parametrize("degree", [2, 6, 20, 68])
@pytest.mark.parametrize(("a", "b"), [(0.01, 0.01), (0.05, 20), (0.5, 0.7), (1, 1), (5, 5), (1000, 3000)])
def test_beta_quadrature_is_exact_up_to_its_degree(a: float, b: float, degree: int) -> None:
    """Guards Gauss-Jacobi: E p^j = prod (a+i)/(a+b+i), and the same for 1 - p, to 1e-10 for j up to the degree."""
    prior = Beta(a, b).quadrature(degree)
    nodes, weights = np.array(prior.nodes), np.array(prior.weights)
    for j in range(degree + 1):
        assert weights @ nodes**j == pytest.approx(math.prod((a + i) / (a + b + i) for i in range(j)), rel=1e-10)
        expected = math.prod((b + i) / (a + b + i) for i in range(j))
        assert weights @ (1 - nodes) ** j == pytest.approx(expected, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize(("m", "s"), [(0, 0.01), (0, 1), (-1, 2), (2, 6), (0, 30), (-5, 1), (0.5, 0.3)])
def test_logit_normal_quadrature_against_adaptive_integration(m: float, s: float) -> None:
    """Guards the trapezoidal rule: moments up to 68 and the within variance to 1e-10."""
    world = LogitNormal(m, s)
    prior = world.quadrature(68)
    nodes, weights = np.array(prior.nodes), np.array(prior.weights)
    for j in (1, 2, 5, 20, 68):
        assert weights @ nodes**j == pytest.approx(logit_normal_mean(world, lambda p, j=j: p**j), rel=1e-9, abs=1e-10)
    assert prior.within == pytest.approx(logit_normal_mean(world, lambda p: p * (1 - p)), abs=1e-10)


@pytest.mark.parametrize("group_size", [1, 3, 17, 64])
def test_count_distribution_of_a_beta_world_is_beta_binomial(group_size: int) -> None:
    """Guards P(k of G): C(G,k) B(k+a, G-k+b)/B(a,b), and that it sums to 1."""
    a, b = 0.3, 2.5
    found = count_distribution(Beta(a, b), group_size)

    def log_beta(x: float, y: float) -> float:
        return math.lgamma(x) + math.lgamma(y) - math.lgamma(x + y)

    expected = [
        math.comb(group_size, k) * math.exp(log_beta(k + a, group_size - k + b) - log_beta(a, b))
        for k in range(group_size + 1)
    ]
    assert found == pytest.approx(expected, rel=1e-9)
    assert math.fsum(found) == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("group_size", [1, 2, 3, 4, 9, 32])
def test_risk_of_any_curve_is_exact(group_size: int) -> None:
    """Guards the rule's degree for curves in k: an arbitrary table over Beta(2, 3), its moments in closed form.

    E p^j C(G,k) p^k (1-p)^(G-k) = C(G,k) B(k+2+j, G-k+3)/B(2, 3), with B(x, y) = (x-1)! (y-1)!/(x+y-1)!.
    """
    curve = np.random.default_rng(group_size).random(group_size + 1).tolist()

    def moment(k: int, j: int) -> float:
        x, y = k + 2 + j, group_size - k + 3
        top = math.comb(group_size, k) * math.factorial(x - 1) * math.factorial(y - 1) * 12  # 1/B(2, 3) = 12
        return top / math.factorial(x + y - 1)

    mse = math.fsum(b * b * moment(k, 0) - 2 * b * moment(k, 1) + moment(k, 2) for k, b in enumerate(curve))
    table = np.repeat(np.array(curve)[:, None], 2, axis=1)
    assert table_risk(table, rule(Beta(2, 3), group_size), group_size)[0] == pytest.approx(mse, rel=1e-9)


def test_table_risk_is_the_sum_over_outcomes() -> None:
    """Guards the average over own rewards: an arbitrary table [k, r] against the sum over all 2^3 groups by hand."""
    prior = Prior((0.1, 0.6), (0.3, 0.7))
    table = np.random.default_rng(0).random((4, 2))
    mse = bias = 0.0
    for p, weight in zip(prior.nodes, prior.weights, strict=True):
        for rewards in np.ndindex(2, 2, 2):
            k = sum(rewards)
            for r in rewards:
                chance = weight * p**k * (1 - p) ** (3 - k) / 3
                mse += chance * (table[k, r] - p) ** 2
                bias += chance * (table[k, r] - p)
    assert table_risk(table, prior, 3) == pytest.approx((mse, bias), rel=1e-12)


def test_a_curve_has_no_shrinkage_weight_and_a_bad_group_size_is_refused() -> None:
    """Guards `shrinkage` of the posterior mean (None) and the refusal of G = 0."""
    assert limit("oracle_bayes", Points("two", Prior((0.2, 0.9), (0.5, 0.5))), 4).shrinkage is None
    with pytest.raises(InputError, match="group_size must be at least 1, got 0"):
        limit("ebpo", Beta(5, 5), 0)
