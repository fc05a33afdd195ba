"""Finding (ii) of arXiv 2601.05002: Q1 to Q7. Published numbers: shared/reference/hidden_biases.md, section 4."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ebpo_sim.bias import adamw as aw
from ebpo_sim.bias import prefix as px
from ebpo_sim.errors import InputError
from ebpo_sim.numbers.adam import Adam, State, direction, init

ADAM, SGD = Adam(), aw.Sgd()
# Away from subnormal numbers, where a power of 2 is no longer exact.
values = st.one_of(st.just(0.0), st.floats(1e-12, 1e6), st.floats(-1e6, -1e-12))
histories = st.lists(st.tuples(values, values), min_size=1, max_size=30)
betas = st.floats(0.1, 0.9999) | st.just(0.0)
adams = st.builds(Adam, st.floats(1e-6, 1), betas, betas, st.floats(1e-10, 1e-2), st.floats(0, 0.5))


def trajectory(adam: Adam, gradients, state: State | None = None) -> np.ndarray:
    state = init([0.3, -1.7]) if state is None else state
    path = []
    for g in gradients:
        state = aw.update(adam, state, g)
        path.append(state.theta)
    return np.array(path)


def apart(a: aw.BanditRun, b: aw.BanditRun) -> float:
    return float(np.abs(a.theta_TK[-1] - b.theta_TK[-1]).max())


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_update_is_adamw_as_torch_runs_it(decay: float) -> None:
    """AdamW of torch, maximising, on one gradient history, to rounding."""
    adam = Adam(0.03, 0.8, 0.99, 1e-6, decay)
    theta = torch.tensor([0.3, -1.7], dtype=torch.float64, requires_grad=True)
    other = torch.optim.AdamW([theta], 0.03, (0.8, 0.99), 1e-6, decay, maximize=True)
    history = np.random.default_rng(0).normal(size=(30, 2))
    for g, mine in zip(history, trajectory(adam, history), strict=True):
        theta.grad = torch.tensor(g)
        other.step()
        np.testing.assert_allclose(mine, theta.detach().numpy(), rtol=1e-12)


@given(adams, histories, st.integers(-20, 20))
def test_q1_adam_phi_eps_conjugacy_bit_exact(adam: Adam, history, exponent: int) -> None:
    """Q1: Adam(phi g, phi eps) = Adam(g, eps) bit for bit, phi = 2^n, any betas, weight decay and history."""
    phi = 2.0**exponent
    scaled = trajectory(adam._replace(eps=phi * adam.eps), phi * np.array(history))
    assert np.array_equal(scaled, trajectory(adam, history))


@given(adams, histories, st.floats(1e-3, 1e3))
def test_q1_conjugacy_for_every_scale(adam: Adam, history, phi: float) -> None:
    """Q1: as above for any phi > 0, to rounding."""
    scaled = trajectory(adam._replace(eps=phi * adam.eps), phi * np.array(history))
    np.testing.assert_allclose(scaled, trajectory(adam, history), rtol=1e-9, atol=1e-9 * adam.lr)


def test_q1_bandit_phi_1024_bit_exact() -> None:
    scaled = aw.run_bandit(ADAM._replace(eps=1024e-8), scale=1024.0)
    assert np.array_equal(scaled.theta_TK, aw.run_bandit(ADAM).theta_TK)


@given(histories, st.floats(1e-3, 1e3), st.floats(1e-8, 1e-2))
def test_q2_ratio_for_every_history(history, phi: float, eps: float) -> None:
    """Q2 per coordinate, v-hat from its definition sum_t (1-b2) b2^(n-t) g_t^2/(1-b2^n)."""
    n, lr = len(history), 1.0
    squares = np.array(history) ** 2
    v = ((1 - 0.999) * 0.999 ** np.arange(n - 1, -1, -1)[:, None] * squares).sum(axis=0) / (1 - 0.999**n)
    adam, steps = Adam(lr=lr, eps=eps), []
    for s in (phi, 1.0):
        state = init([0.0, 0.0])
        for g in history:
            state = aw.update(adam, state, s * np.array(g))
        steps.append(direction(adam, state))
    formula = (np.sqrt(v) + eps) / (np.sqrt(v) + eps / phi)
    np.testing.assert_allclose(steps[0], formula * steps[1], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(aw.update_ratio(phi, np.sqrt(v), eps), formula, rtol=1e-12)


def test_q4_kl_breaks_invariance_threshold() -> None:
    """Q4: bandit difference 0.435 (published); one parameter's first step turns at phi* = beta g_R/g_A."""
    assert apart(aw.run_bandit(ADAM, scale=10.0, kl=0.1), aw.run_bandit(ADAM, kl=0.1)) == pytest.approx(0.435, abs=5e-4)
    for reward, kl, beta in ((0.3, 2.0, 0.1), (4.0, 0.5, 0.02)):
        star = beta * kl / reward
        assert aw.kl_threshold(reward, kl, beta) == pytest.approx(star)
        for phi, sign in ((star * 1.001, 1), (star * 0.999, -1)):
            state = aw.update(Adam(lr=0.5, eps=0.0), init([0.0]), [phi * reward - beta * kl])
            assert state.theta[0] == pytest.approx(0.5 * sign, rel=1e-12)


@given(st.integers(-12, 12), st.floats(0.001, 1), st.integers(0, 99))
def test_q4_conjugate_symmetry_bit_exact(exponent: int, beta: float, seed: int) -> None:
    """Q4: (phi, beta, eps) is (1, beta/phi, eps/phi), bit for bit at phi = 2^n."""
    phi = 2.0**exponent
    one = aw.run_bandit(Adam(eps=1e-8), scale=phi, kl=beta, steps=25, seed=seed)
    other = aw.run_bandit(Adam(eps=1e-8 / phi), kl=beta / phi, steps=25, seed=seed)
    assert np.array_equal(one.theta_TK, other.theta_TK)


def test_q5_std_norm_is_invariant_under_sgd() -> None:
    """Q5: SGD scales by phi (difference 3.70, published); with sigma in alpha 4e-16 (published), eps_std = 0."""
    assert apart(aw.run_bandit(SGD, scale=10.0), aw.run_bandit(SGD)) == pytest.approx(3.70, abs=5e-3)
    one, ten = (aw.run_bandit(SGD, scale=s, normalise=True) for s in (1.0, 10.0))
    assert apart(one, ten) <= 5e-16
    first = [aw.run_bandit(SGD, scale=s, steps=1).theta_TK[1] for s in (1.0, 10.0)]
    np.testing.assert_allclose(first[1], 10 * first[0], rtol=1e-12, atol=1e-15)


def test_q6_clipping_breaks_conjugacy() -> None:
    """Q6: gradients 1, 4 and a clip at 2: (1, 2) at phi = 1, (2, 2) at phi = 10; a clip at 20 restores it.

    Second step, eps = 0: (b1 x + y)/(1 + b1) / sqrt((b2 x^2 + y^2)/(1 + b2)).
    """
    adam = Adam(lr=1.0, eps=0.0)

    def second(phi: float, limit: float) -> float:
        state = init([0.0])
        for g in (1.0, 4.0):
            state = aw.update(adam, state, aw.clip_by_norm([phi * g], limit))
        return float(direction(adam, state)[0])

    assert second(1, 2) == pytest.approx(2.9 / 1.9 / math.sqrt((0.999 + 4) / 1.999), rel=1e-12)
    assert second(10, 2) == pytest.approx(1, rel=1e-12)
    assert second(10, 20) == pytest.approx(second(1, 2), rel=1e-12)


def test_q6_initial_moments_break_it_and_warm_up_does_not() -> None:
    """Q6: m_0 = 0.1, g = 1: m-hat/sqrt(v-hat) = (0.09 + 0.1 phi)/(0.1 phi); warm-up is bit-exact."""
    adam = Adam(lr=1.0, eps=0.0)
    for phi in (1.0, 10.0):
        warm = State(np.zeros(1), np.array([0.1]), np.zeros(1), 0)
        step = direction(adam, aw.update(adam, warm, [phi]))[0]
        assert step == pytest.approx((0.09 + 0.1 * phi) / (0.1 * phi), rel=1e-12)
    scaled = aw.run_bandit(ADAM._replace(eps=1024e-8), scale=1024.0, warmup=50)
    assert np.array_equal(scaled.theta_TK, aw.run_bandit(ADAM, warmup=50).theta_TK)


rewards = st.lists(st.floats(-5, 5), min_size=2, max_size=12)
priors = st.builds(aw.GlobalPrior, st.floats(-2, 2), st.floats(0.01, 2), st.floats(0, 2))


@given(rewards, priors, st.floats(0.01, 100), st.floats(-10, 10))
def test_q7_global_prior_must_move_with_the_rewards(r, prior: aw.GlobalPrior, phi: float, c: float) -> None:
    """Q7: A(phi r + c) = phi A(r) iff the prior is rescaled; left alone it adds S c, or S mu (phi - 1)."""
    G = len(r)
    S = (prior.noise / G) / (prior.noise / G + prior.between)
    r, A = np.array(r), aw.shrinkage_advantages(r, prior)
    close = {"rtol": 1e-9, "atol": 1e-9 * max(1, phi)}
    moved = aw.shrinkage_advantages(phi * r + c, aw.rescaled(prior, phi, c))
    np.testing.assert_allclose(moved, phi * A, **close)
    np.testing.assert_allclose(aw.shrinkage_advantages(r + c, prior), A + S * c, **close)
    np.testing.assert_allclose(aw.shrinkage_advantages(phi * r, prior), phi * A + S * prior.mean * (phi - 1), **close)
    np.testing.assert_allclose(px.advantages(phi * r + c), phi * px.advantages(r), **close)


@given(st.lists(st.lists(st.floats(0, 1), min_size=4, max_size=4), min_size=2, max_size=6), st.floats(0.1, 10))
def test_q7_constants_in_an_estimated_prior(batch, phi: float) -> None:
    """Q7: an estimated prior is equivariant; an initial mean (a constant) makes it scale-sensitive."""
    r, initial = np.array(batch), aw.GlobalPrior(0.5, 0.25, 0.05)
    np.testing.assert_allclose(
        aw.estimate_prior(phi * r + 3), aw.rescaled(aw.estimate_prior(r), phi, 3), rtol=1e-9, atol=1e-12
    )
    away = aw.estimate_prior(phi * r, initial, 0.5).mean - phi * aw.estimate_prior(r, initial, 0.5).mean
    assert away == pytest.approx(0.5 * (1 - phi) * 0.5 / 1.5, abs=1e-12)


def test_q7_on_the_bandit() -> None:
    """Q7: a rescaled prior is bit-exact under Adam; a constant one is not, even with eps rescaled."""
    prior = aw.GlobalPrior(0.5, 0.25, 0.05)
    big = ADAM._replace(eps=1024e-8)
    base = aw.run_bandit(ADAM, prior=prior)
    scaled = aw.run_bandit(big, scale=1024.0, prior=aw.rescaled(prior, 1024.0))
    assert np.array_equal(scaled.theta_TK, base.theta_TK)
    assert apart(aw.run_bandit(big, scale=1024.0, prior=prior), base) > 0.1
    assert apart(aw.run_bandit(ADAM, shift=2.0), aw.run_bandit(ADAM)) < 1e-9


def test_eps_to_zero_is_not_eps_zero_in_floating_point() -> None:
    """Arms that were not drawn have a gradient of rounding size: eps = 0 turns it into a whole step, 1e-12 does not."""
    step = [np.abs(aw.run_bandit(Adam(eps=eps), steps=1).theta_TK[1]) for eps in (0.0, 1e-12)]
    assert np.all((step[0] == 0) | (np.abs(step[0] - 1e-2) < 1e-12))
    assert (step[0] > 1e-3).sum() > (step[1] > 1e-3).sum()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: aw.update(Adam(lr=0.0), init([0.0]), [1.0]), "lr must be positive, got 0.0"),
        (lambda: aw.update(Adam(beta1=1.0), init([0.0]), [1.0]), r"beta1 must be in \[0, 1\), got 1.0"),
        (lambda: aw.update(Adam(eps=-1.0), init([0.0]), [1.0]), "eps must not be negative, got -1.0"),
        (lambda: aw.update(ADAM, init([0.0]), [1.0, 2.0]), "gradient must have the parameters' shape"),
        (lambda: aw.update_ratio(-1.0, 1.0, 1e-8), "scale must be positive, got -1.0"),
        (lambda: aw.run_bandit(ADAM, steps=0), "steps must be >= 1"),
        (lambda: aw.run_bandit(ADAM, scale=-2.0), "scale must be positive, got -2.0"),
        (lambda: aw.prior_shrinkage(aw.GlobalPrior(0.5, 0.0, 0.0), 8), "prior variances must be >= 0"),
    ],
)
def test_refusals_name_argument_value_and_remedy(call, words: str) -> None:
    with pytest.raises(InputError, match=words):
        call()
