"""Exact policy updates against enumeration, automatic differentiation and closed forms; where P1 fails and holds."""

from __future__ import annotations

from itertools import combinations, pairwise, product
from math import comb, log, sqrt

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import betaln, digamma, softmax

from battery import build
from ebpo_sim.counts import updates as pg
from ebpo_sim.errors import InputError
from ebpo_sim.estimators import make
from ebpo_sim.numbers.mixing import Prior
from ebpo_sim.studies.entropy.study import ARMS, SETTINGS
from ebpo_sim.worlds import Points, parse_world

WORLD = parse_world("points:0.2@0.5,0.7@0.3,0.9@0.2")
P = np.array([0.0, 0.02, 0.3, 0.5, 0.85, 1.0])
ONE_SCALE = ("dr_grpo", "rloo", "grpo_batch_norm", "ebpo", "ebpo_released", "ebpo_within", "ebpo_debiased")
LOGITS = np.array([[0.3, -1.2, 0.8, 2.0], [0.0, 0.0, 0.0, 0.0], [-4.0, 1.0, 0.5, -0.5]])


def group_gap(p: float, size: int, advantage) -> float:
    """delta(p) with advantage(k, r): the own reward r, the other size - 1 Bernoulli(p)."""
    chance = [comb(size - 1, k) * p**k * (1 - p) ** (size - 1 - k) for k in range(size)]
    return sum(c * (advantage(k + 1, 1) - advantage(k, 0)) for k, c in enumerate(chance))


def grpo_advantage(k: int, r: int, size: int) -> float:
    """Theory item 17, without eps: (r - k/G)/std with ddof 1, 0 for equal groups."""
    spread = sqrt(k * (size - k) / (size * (size - 1)))
    return (r - k / size) / spread if spread > 0 else 0.0


def ebpo_scale(prior: Prior, size: int) -> tuple[float, float]:
    """(S, std of raw) of Algorithm 1 in the long run: S = 1/(2 + (G-1) rho); within and between group variances."""
    s = 1 / (2 + (size - 1) * prior.between / (prior.within + prior.between))
    return s, sqrt(prior.within * (1 - 1 / size) + s**2 * (prior.between + prior.within / size))


def ebpo_gap(prior: Prior, size: int) -> float:
    """r - (1-S) k/G - S mu: the own reward moves the group mean by 1/G, so the gap is (1 - (1-S)/G)/std."""
    s, std = ebpo_scale(prior, size)
    return (1 - (1 - s) / size) / std


def loss_ratio(prior: Prior, size: int, arms: int) -> float:
    """EBPO's entropy loss over GRPO's under the natural gradient, from the formulas alone."""
    mine = plain = 0.0
    for p, weight in zip(prior.nodes, prior.weights, strict=True):
        if 0 < p < 1:
            loss = weight * p * (1 - p) * (log(p) - log((1 - p) / (arms - 1)))
            mine += loss * ebpo_gap(prior, size)
            plain += loss * group_gap(p, size, lambda k, r: grpo_advantage(k, r, size))
    return mine / plain


@pytest.mark.parametrize("size", [2, 3, 5])
def test_limit_tables_have_their_closed_forms(size: int) -> None:
    """Guards A[k, r]: GRPO's by theory item 17, EBPO's (r - (1-S) k/G - S mean)/std, Dr. GRPO's r - k/G; to eps."""
    s, std = ebpo_scale(WORLD.prior, size)
    for name, expected in (
        ("grpo", lambda k, r: grpo_advantage(k, r, size)),
        ("dr_grpo", lambda k, r: r - k / size),
        ("ebpo", lambda k, r: (r - (1 - s) * k / size - s * WORLD.prior.mean) / std),
    ):
        table = pg.limit_advantages(make(name), WORLD, size)
        for k, r in [(k, 1) for k in range(1, size + 1)] + [(k, 0) for k in range(size)]:
            assert table[k, r] == pytest.approx(expected(k, r), abs=2e-5), (name, k, r)


@pytest.mark.parametrize("name", ["grpo", "ebpo", "ebpo_debiased", "ebpo_nonparametric", "james_stein", "rloo"])
@pytest.mark.parametrize("size", [1, 2, 4, 6])
def test_advantage_gap_by_enumeration(name: str, size: int) -> None:
    """Guards delta(p): E[A | r=1] - E[A | r=0] of the first rollout over all 2^G reward vectors."""
    table = pg.limit_advantages(build(name), WORLD, size)
    for p, found in zip(P, pg.advantage_gap(table, P), strict=True):
        side = [0.0, 0.0]
        for rest in product((0, 1), repeat=size - 1):
            chance = np.prod([p if r else 1 - p for r in rest])
            for own in (0, 1):
                side[own] += chance * table[own + sum(rest), own]
        assert found == pytest.approx(side[1] - side[0], abs=1e-12)


@pytest.mark.parametrize("size", [2, 4, 9])
def test_gap_is_constant_for_one_scale_and_falls_for_grpo(size: int) -> None:
    """Guards item 12: Dr. GRPO (G-1)/G at every p, EBPO (1 - (1-S)/G)/std; GRPO's is the finite sum."""
    gaps = {name: pg.advantage_gap(pg.limit_advantages(make(name), WORLD, size), P) for name in (*ONE_SCALE, "grpo")}
    assert gaps["dr_grpo"] == pytest.approx(1 - 1 / size, abs=1e-12)
    assert gaps["rloo"] == pytest.approx(1, abs=1e-12)
    assert gaps["ebpo"] == pytest.approx(ebpo_gap(WORLD.prior, size), rel=1e-5)
    for name in ONE_SCALE:
        assert np.ptp(gaps[name]) < 1e-12 * gaps[name][0]
    expected = [group_gap(p, size, lambda k, r: grpo_advantage(k, r, size)) for p in P]
    assert gaps["grpo"] == pytest.approx(expected, rel=1e-5)


def test_equal_groups_silence_grpo() -> None:
    """Guards "falls with small G": sqrt(p(1-p)) delta of GRPO rises with G towards 1, its value for infinite groups."""
    sigma = np.sqrt(P * (1 - P))[1:-1]
    gaps = [sigma * pg.advantage_gap(pg.limit_advantages(make("grpo"), WORLD, g), P)[1:-1] for g in (2, 4, 8, 32, 400)]
    assert all(np.all(a < b) for a, b in pairwise(gaps))
    assert gaps[0] == pytest.approx(sigma / sqrt(2), rel=1e-5)
    assert gaps[-1] == pytest.approx(1, abs=0.1)
    assert np.all(gaps[-1] < 1)


def moments_by_enumeration(table: np.ndarray, pi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """E g and E g^2 of g = (1/G) sum_i A_i (e_{a_i} - pi) over all action sequences."""
    size = len(table) - 1
    first, second = np.zeros(len(pi)), np.zeros(len(pi))
    for actions in product(range(len(pi)), repeat=size):
        k, g = actions.count(0), np.zeros(len(pi))
        for a in actions:
            g += table[k, int(a == 0)] * (np.eye(len(pi))[a] - pi) / size
        chance = np.prod(pi[list(actions)])
        first, second = first + chance * g, second + chance * g**2
    return first, second


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "ebpo", "ebpo_debiased", "ebpo_nonparametric"])
def test_expected_update_by_enumeration(name: str, size: int) -> None:
    """Guards E[A grad log pi] = delta grad p, and Adam's E g / sqrt(E g^2): all sequences of softmaxes of 3 arms."""
    table, p = pg.limit_advantages(make(name), WORLD, size), np.array([0.07, 0.5, 0.9])
    reward, change = pg.adam_directions(table, p, 3)
    for j, pi in enumerate(pg.policies(p, 3)):
        first, second = moments_by_enumeration(table, pi)
        assert first == pytest.approx(pg.advantage_gap(table, p[j])[0] * pg.success_gradient(pi), abs=1e-14)
        step = first / np.sqrt(second)
        assert reward[j] == pytest.approx(pg.success_gradient(pi) @ step, rel=1e-12)
        assert change[j] == pytest.approx(pg.entropy_gradient(pi) @ step, rel=1e-11, abs=1e-15)


def test_gradients_against_differences_and_torch() -> None:
    """Guards grad p and grad H of softmax logits, equal wrong arms or not: central differences and autograd."""
    for found, function in ((pg.success_gradient, lambda pi: pi[..., 0]), (pg.entropy_gradient, pg.entropy)):
        for a in range(LOGITS.shape[1]):
            h = 1e-5 * np.eye(LOGITS.shape[1])[a]
            slope = (function(softmax(LOGITS + h, -1)) - function(softmax(LOGITS - h, -1))) / 2e-5
            assert found(softmax(LOGITS, -1))[:, a] == pytest.approx(slope, abs=1e-8)
    z = torch.tensor(LOGITS, requires_grad=True)
    log_pi = torch.log_softmax(z, -1)
    values = log_pi[:, 0].exp(), -(log_pi.exp() * log_pi).sum(-1)
    for value, found in zip(values, (pg.success_gradient, pg.entropy_gradient), strict=True):
        (slope,) = torch.autograd.grad(value.sum(), z, retain_graph=True)
        np.testing.assert_allclose(found(softmax(LOGITS, -1)), slope.numpy(), rtol=0, atol=1e-14)


@pytest.mark.parametrize("arms", [2, 3, 20])
def test_directions_against_the_fisher_matrix(arms: int) -> None:
    """Guards dp, dH per delta: natural by the pseudo-inverse of diag(pi) - pi pi', vanilla by autograd's gradients."""
    natural, vanilla = pg.natural_directions(P, arms), pg.vanilla_directions(P, arms)
    for j, pi in enumerate(pg.policies(P[1:-1], arms), start=1):
        z = torch.tensor(np.log(pi), requires_grad=True)
        log_pi = torch.log_softmax(z, 0)
        entropy_z = -(log_pi.exp() * log_pi).sum()
        up, slope = (torch.autograd.grad(v, z, retain_graph=True)[0].numpy() for v in (log_pi[0].exp(), entropy_z))
        step = np.linalg.pinv(np.diag(pi) - np.outer(pi, pi), hermitian=True) @ up
        assert (natural[0][j], natural[1][j]) == pytest.approx((up @ step, slope @ step), rel=1e-10, abs=1e-13)
        assert (vanilla[0][j], vanilla[1][j]) == pytest.approx((up @ up, slope @ up), rel=1e-12, abs=1e-15)
    for found in (*natural, *vanilla):
        assert found[0] == found[-1] == 0


def per_reward(name: str, size: int, optimiser: str) -> float:
    reward, change = pg.rates(make(name), WORLD, size, 5, optimiser)
    return change / reward


@pytest.mark.parametrize("optimiser", ["natural", "vanilla"])
def test_entropy_per_reward_of_one_scale(optimiser: str) -> None:
    """Guards "one scale is a learning rate": linear rules lose what Dr. GRPO loses per reward; GRPO only at G = 2."""
    for size in (2, 4, 7):
        plain = per_reward("dr_grpo", size, optimiser)
        assert [per_reward(name, size, optimiser) for name in ONE_SCALE] == pytest.approx([plain] * len(ONE_SCALE))
        assert (abs(per_reward("grpo", size, optimiser) / plain - 1) < 1e-9) == (size == 2)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0.01, 1)), max_size=4), st.floats(0.01, 0.99))
def test_the_proofs_ratio_is_at_most_one(points: list[tuple[float, float]], inner: float) -> None:
    """Guards P1's proof: E sigma / sqrt(E sigma^2 + Var p) <= 1 for every prior, by the formula; 1 for one point."""
    nodes, weights = zip(*points, (inner, 1.0), strict=True)
    share = [w / sum(weights) for w in weights]
    mean = sum(w * p for w, p in zip(share, nodes, strict=True))
    expected = sum(w * sqrt(p * (1 - p)) for w, p in zip(share, nodes, strict=True)) / sqrt(mean * (1 - mean))
    found = pg.proof_entropy_ratio(Points("drawn", Prior(nodes, tuple(share))))
    assert found <= 1 + 1e-12
    assert found == pytest.approx(expected, rel=1e-9)
    assert pg.proof_entropy_ratio(Points("one", Prior((inner,), (1.0,)))) == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("text", ["beta:5,5", "beta:0.5,0.7", "beta:0.1,0.1", "beta:0.1,5"])
def test_beta_worlds_against_closed_forms(text: str) -> None:
    """Guards "exact": Dr. GRPO's rates and the proof's ratio under Beta(a, b), by digamma and Beta functions, to 1e-4.

    E p(1-p) log(p/(1-p)) = w (digamma(a+1) - digamma(b+1)); E sqrt(p(1-p)) = B(a+1/2, b+1/2)/B(a, b)."""
    a, b = map(float, text.partition(":")[2].split(","))
    within = a * b / ((a + b) * (a + b + 1))
    found = pg.rates(make("dr_grpo"), parse_world(text), 4, ARMS, "natural")
    loss = within * (digamma(a + 1) - digamma(b + 1) + log(ARMS - 1))
    assert found.reward == pytest.approx(0.75 * within, rel=1e-9)
    assert found.entropy == pytest.approx(-0.75 * loss, rel=1e-4)
    ratio = np.exp(betaln(a + 0.5, b + 0.5) - betaln(a, b)) * (a + b) / sqrt(a * b)
    assert pg.proof_entropy_ratio(parse_world(text)) == pytest.approx(ratio, rel=1e-4)


def rates_ratio(text: str, size: int, arms: int = ARMS) -> float:
    ebpo, grpo = (pg.rates(make(n), parse_world(text), size, arms, "natural") for n in ("ebpo", "grpo"))
    assert max(ebpo.entropy, grpo.entropy) < 0
    return ebpo.entropy / grpo.entropy


@pytest.mark.parametrize("text", [w for w in SETTINGS.worlds if w.startswith("beta:")])
@pytest.mark.parametrize("size", SETTINGS.group_sizes)
def test_p1_fails_in_the_beta_worlds(text: str, size: int) -> None:
    """P1 fails: at one learning rate EBPO loses more entropy than GRPO, by the study's code and by the formulas."""
    found = rates_ratio(text, size)
    assert found > 1.004
    assert found == pytest.approx(loss_ratio(parse_world(text).quadrature(130), size, ARMS), rel=1e-4)


def test_p1_can_hold_in_large_groups() -> None:
    """Where P1 does not fail: easy and hard prompts mixed, large G. The first of all pairs of tenths is 0.3 and 0.9 at
    G = 23 (20 arms), G = 5 (2 arms); a Beta world at G = 72. So "fails in every population" is too strong."""
    tenths = [x / 10 for x in range(11)]
    pairs = [Prior(pair, (0.5, 0.5)) for pair in combinations(tenths, 2) if pair != (0.0, 1.0)]
    assert min(loss_ratio(prior, size, ARMS) for prior in pairs for size in range(2, 23)) > 1
    assert [prior.nodes for prior in pairs if loss_ratio(prior, 23, ARMS) < 1] == [(0.3, 0.9)]
    for text, size, arms in (("points:0.3,0.9", 23, 20), ("points:0.3,0.9", 5, 2), ("beta:4,2", 72, 20)):
        assert rates_ratio(text, size, arms) < 1 - 1e-4
        prior = parse_world(text).quadrature(148)
        assert rates_ratio(text, size, arms) == pytest.approx(loss_ratio(prior, size, arms), abs=1e-5)
    assert min(rates_ratio("points:0.3,0.9", 22), rates_ratio("beta:4,2", 64)) > 1.001


def test_refusals() -> None:
    """Guards refusals: what is not a softmax bandit or an optimiser is named."""
    with pytest.raises(InputError, match="arms must be at least 2"):
        pg.policies(0.5, 1)
    with pytest.raises(InputError, match="optimiser must be 'natural', 'vanilla' or 'adam', got 'sgd'"):
        pg.rates(make("grpo"), WORLD, 4, 3, "sgd")
