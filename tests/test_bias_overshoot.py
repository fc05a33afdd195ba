"""Finding (iii) of arXiv 2601.05002: R1 to R9. Published numbers: shared/reference/hidden_biases.md, section 5."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from ebpo_sim.bias import adamw as aw
from ebpo_sim.bias import overshoot as ov
from ebpo_sim.bias.check_overshoot import measured_ratios
from ebpo_sim.bias.tokens import coefficient, worth
from ebpo_sim.errors import InputError
from ebpo_sim.numbers.adam import Adam, init
from ebpo_sim.objectives import CISPO, DPPO, MHPO, SAPO, Clip, Objective, R2VPOFixed

FAST, SLOW = (0.9, 0.95), (0.9, 0.999)
betas = st.tuples(st.floats(0.05, 0.99), st.floats(0.3, 0.999))


def adam(pair, eps: float = 0.0) -> Adam:
    return Adam(0.01, *pair, eps)


def eq36(b1: float, b2: float, T: int, k: int) -> float:
    """Eq. 36 as printed."""
    return (
        b1 ** (k + 1) * (1 - b1 ** (T - 1)) / (1 - b1 ** (T + k))
        * math.sqrt((1 - b2 ** (T + k)) / (b2 ** (k + 1) * (1 - b2 ** (T - 1))))
    )  # fmt: skip


def definition(pair, history, extra: int, eps: float) -> list[np.ndarray]:
    """Preconditioned steps T-1, T, ... from the moments' defining sums, no recursion."""
    b1, b2 = pair
    g = np.vstack([history, np.zeros((extra, history.shape[1]))])
    steps = []
    for n in range(len(history), len(g) + 1):
        age = np.arange(n - 1, -1, -1)[:, None]
        m = ((1 - b1) * b1**age * g[:n]).sum(axis=0) / (1 - b1**n)
        v = ((1 - b2) * b2**age * g[:n] ** 2).sum(axis=0) / (1 - b2**n)
        steps.append(m / (np.sqrt(v) + eps))
    return steps


def test_r1_post_clip_ratio_eq36() -> None:
    """R1: any history, every coordinate, hence norms; simulated error 2e-15 (published), betas (0.9, 0.95)."""
    for seed, T in ((0, 2), (1, 5), (2, 29), (3, 200)):
        history = np.random.default_rng(seed).normal(size=(T - 1, 4))
        measured = measured_ratios(adam(FAST), history, 30)
        expected = np.array([eq36(*FAST, T, k) for k in range(30)])
        np.testing.assert_allclose(measured, np.repeat(expected[:, None], 4, axis=1), rtol=0, atol=2e-15)


@given(betas, st.integers(2, 60), st.integers(0, 40), st.integers(0, 999))
def test_r1_for_every_beta_and_history(pair, T: int, k: int, seed: int) -> None:
    """R1: Eq. 36 against the moments' defining sums."""
    rng = np.random.default_rng(seed)
    history = rng.normal(size=(T - 1, 3)) * 10.0 ** rng.integers(-6, 6, size=(T - 1, 1))
    steps = definition(pair, history, k + 1, 0.0)
    assume(np.abs(steps[0]).min() > 1e-6)  # a first moment that cancels has no relative accuracy
    formula = float(ov.step_ratio(*pair, T, k))
    assert formula == pytest.approx(eq36(*pair, T, k), rel=1e-10)
    np.testing.assert_allclose(steps[-1] / steps[0], formula, rtol=1e-8)
    norms = np.linalg.norm(steps[-1]) / np.linalg.norm(steps[0])
    assert norms == pytest.approx(formula, rel=1e-8)


@pytest.mark.parametrize(
    ("pair", "T", "extra", "before", "after"), [(FAST, 29, 0.122815, 1.207, 1.303), (SLOW, 28, 0.102763, 1.200, 1.280)]
)
def test_r2_total_overshoot(pair, T: int, extra: float, before: float, after: float) -> None:
    """R2: published T, extra logit and ratios; the extra logit is lr u_{T-1} sum C."""
    run = ov.run_logit(adam(pair), ov.start(0.3))
    assert run.stop == T
    moved = run.logit_T[-1] - run.logit_T[T - 1]
    assert moved == pytest.approx(extra, abs=5e-7)
    formula = 0.01 * run.direction_T[T - 2] * sum(eq36(*pair, T, k) for k in range(81 - T))
    assert moved == pytest.approx(formula, rel=1e-12)
    assert ov.total_overshoot(adam(pair), run.direction_T[T - 2], T, 81 - T) == pytest.approx(formula, rel=1e-12)
    assert run.ratio_T[T - 1] == pytest.approx(before, abs=5e-4)
    assert run.ratio_T[-1] == pytest.approx(after, abs=5e-4)


@pytest.mark.parametrize(("pair", "published"), [(FAST, 12.05), ((0.9, 0.99), 9.47), (SLOW, 9.05)])
def test_r3_total_overshoot_geometric_limit(pair, published: float) -> None:
    """R3: rho/(1-rho) steps for large T (published), also as the sum of Eq. 36."""
    rho = pair[0] / math.sqrt(pair[1])
    assert ov.limit_overshoot(adam(pair)) == pytest.approx(rho / (1 - rho), rel=1e-12)
    assert ov.limit_overshoot(adam(pair)) == pytest.approx(published, abs=5.1e-3)
    assert float(ov.step_ratio(*pair, 200_000, np.arange(2000)).sum()) == pytest.approx(rho / (1 - rho), rel=1e-9)


@given(betas, st.integers(0, 20))
def test_r3_large_t_limit_of_the_ratio(pair, k: int) -> None:
    """R3, Eq. 37: C_{T,k} -> rho^(k+1)."""
    rho = pair[0] / math.sqrt(pair[1])
    assert float(ov.step_ratio(*pair, 10**6, k)) == pytest.approx(rho ** (k + 1), rel=1e-10)


def test_r3_the_papers_own_numbers() -> None:
    """0.9/sqrt(0.95) = 0.923; the fifth clipped step is 0.671, which the paper rounds down to 0.66."""
    assert ov.limit_ratio(*FAST) == pytest.approx(0.923, abs=5e-4)
    assert float(ov.step_ratio(*FAST, 10**6, 4)) == pytest.approx(0.671, abs=5e-4)


def test_r5_beta1_sq_ge_beta2_never_decays() -> None:
    """R5: (0.95, 0.9), rho = 1.0014 (published): no step shrinks at large T; at T = 2 the first ratio is 0.708."""
    late = measured_ratios(adam((0.95, 0.9)), np.ones((199, 1)), 300)[:, 0]
    assert np.all(np.diff(late, prepend=1.0) >= 0)
    assert late[-1] / late[-2] == pytest.approx(1.0014, abs=5e-5)
    early = measured_ratios(adam((0.95, 0.9)), np.ones((1, 1)), 100)[:, 0]
    assert early[0] == pytest.approx(0.708, abs=5e-4)
    consecutive = np.append(early[0], early[1:] / early[:-1])
    assert 70 <= 2 + int(np.argmax(consecutive >= 1)) <= 71  # published: "about step 70"
    with pytest.raises(InputError, match=r"beta1 = 0.95, beta2 = 0.9 give .* 1.0014 >= 1: take beta1 below 0.9487"):
        ov.check_decays(adam((0.95, 0.9)))
    with pytest.raises(InputError):
        ov.limit_overshoot(adam((0.95, 0.9)))


@given(betas)
def test_r5_edge(pair) -> None:
    """R5: the limit grows iff beta1^2 > beta2; check_decays refuses from there on."""
    assume(abs(pair[0] ** 2 - pair[1]) > 1e-9)
    if pair[0] ** 2 < pair[1]:
        ov.check_decays(adam(pair))
    else:
        with pytest.raises(InputError, match="larger beta2"):
            ov.check_decays(adam(pair))


def test_r6_negative_advantage_mirrors() -> None:
    """R6: A = -1 stops below 1 - eps_low and goes on down by the same formula; -g gives -theta exactly."""
    run = ov.run_logit(adam(FAST), ov.start(0.3), advantages_G=(-1.0,))
    T = run.stop
    assert run.ratio_T[T - 1] < 0.8 <= run.ratio_T[T - 2]
    formula = 0.01 * run.direction_T[T - 2] * sum(eq36(*FAST, T, k) for k in range(81 - T))
    assert run.logit_T[-1] - run.logit_T[T - 1] == pytest.approx(formula, rel=1e-12)
    assert formula < 0
    state, mirror = init([0.0]), init([0.0])
    for g in (*np.random.default_rng(0).normal(size=20), *[0.0] * 20):
        state, mirror = aw.update(adam(FAST), state, [g]), aw.update(adam(FAST), mirror, [-g])
        assert mirror.theta[0] == -state.theta[0]


@given(betas, st.integers(2, 40), st.integers(0, 30), st.floats(1e-6, 10), st.integers(0, 999))
def test_r6_eps_replaces_the_root(pair, T: int, k: int, eps: float, seed: int) -> None:
    """R6, Eq. 38: b1 decay times (sqrt v_{T-1} + eps)/(sqrt v_{T+k} + eps), and steps shrink faster than with eps 0."""
    history = np.random.default_rng(seed).normal(size=(T - 1, 2))
    steps = definition(pair, history, k + 1, eps)
    assume(np.abs(steps[0]).min() > 1e-6)
    b2 = pair[1]
    root_v = np.sqrt(
        ((1 - b2) * b2 ** np.arange(T - 2, -1, -1)[:, None] * history**2).sum(axis=0) / (1 - b2 ** (T - 1))
    )
    formula = ov.step_ratio_with_eps(*pair, T, k, root_v, eps)
    np.testing.assert_allclose(steps[-1] / steps[0], formula, rtol=1e-8)
    assert np.all(formula < float(ov.step_ratio(*pair, T, k)) * (1 + 1e-12))
    np.testing.assert_allclose(ov.step_ratio_with_eps(*pair, T, k, root_v, 0.0), ov.step_ratio(*pair, T, k), rtol=1e-9)


CONTRAST: dict[str, Objective] = {
    "clip": Clip(),
    "variance_penalty": R2VPOFixed(2.5),
    "divergence_mask": DPPO(0.06),
    "soft_gate": SAPO(),
    "hazard_gate": MHPO(),
    "capped_weight": CISPO(),
}


def torch_value(kind: str, s, old: float, A: float):
    """The objectives of R7 with their stop-gradients, as torch programs."""
    held = s.detach()
    if kind == "clip":
        return torch.minimum(s * A, torch.clamp(s, 0.8, 1.2) * A)
    if kind == "variance_penalty":
        return s * A - 2.5 * (s - 1) ** 2
    if kind == "divergence_mask":
        far = (held * old - old).abs() > 0.06
        return s * A * (~(far & (A * (held - 1) > 0)))
    if kind == "soft_gate":
        tau = 1.0 if A > 0 else 1.05
        return 4 / tau * torch.sigmoid(tau * (s - 1)) * A
    if kind == "hazard_gate":
        psi = 1.5 * torch.tanh(torch.log(s) / 1.5)
        soft = torch.nn.functional.softplus
        zeta = (soft(psi) / 1.0) ** 1.5 + (soft(-psi) / 0.8) ** 2.0
        return torch.exp(psi - zeta.detach()) * A
    return torch.clamp(held, max=1.2) * A * torch.log(s * old)


@pytest.mark.parametrize("kind", CONTRAST)
@given(st.floats(0.2, 3), st.floats(0.05, 0.3), st.floats(-2, 2).filter(lambda A: abs(A) > 1e-3))
def test_r7_gradient_coefficients_by_autodiff(kind: str, ratio: float, old: float, A: float) -> None:
    """R7: w(s) is the coefficient of grad log pi of every contrast objective; its value agrees too."""
    objective = CONTRAST[kind]
    assume(min(abs(ratio - 1.2), abs(ratio - 0.8), abs(abs(ratio - 1) * old - 0.06)) > 1e-6)
    log_s = torch.tensor(math.log(ratio), dtype=torch.float64, requires_grad=True)
    value = torch_value(kind, torch.exp(log_s), old, A)
    value.backward()
    w = float(coefficient(objective, ratio, A, old))
    assert w == pytest.approx(float(log_s.grad), rel=1e-9, abs=1e-9)
    assert float(worth(objective, ratio, A, ratio, old)) == pytest.approx(float(value.detach()), rel=1e-9, abs=1e-9)


@given(st.floats(0.1, 2), st.floats(0.6, 10))
def test_r7_ratio_variance_penalty_has_a_fixed_point(A: float, penalty: float) -> None:
    """R7: w = 0 at s = 1 + A/(2 lambda), positive below, negative (pulling back) above."""
    fixed = 1 + A / (2 * penalty)
    below, at, above = coefficient(R2VPOFixed(penalty), fixed + np.array([-1e-3, 0, 1e-3]), A, 0.3)
    assert at == pytest.approx(0, abs=1e-12)
    assert below > 0 > above


def test_r7_fixed_point_is_reached_and_momentum_pulled_back() -> None:
    """R7: lambda = 2.5 gives s = 1.2; under Adam the ratio passes it and comes back, under clipping it does not."""
    penalty = CONTRAST["variance_penalty"]
    assert ov.run_logit(aw.Sgd(0.05), ov.start(0.3), objective=penalty, steps=400).ratio_T[-1] == pytest.approx(1.2)
    run = ov.run_logit(adam(FAST), ov.start(0.3), objective=penalty)
    assert run.ratio_T.max() > 1.22
    assert abs(run.ratio_T[-1] - 1.2) < 5e-3 < abs(ov.run_logit(adam(FAST), ov.start(0.3)).ratio_T[-1] - 1.2)


def test_r7_divergence_mask_overshoots_like_ppo() -> None:
    """R7: delta = eps_up pi_old = 0.06 is the same switch, so the same run; published 1e-5 -> 1e-3 is not masked."""
    masked = ov.run_logit(adam(FAST), ov.start(0.3), objective=DPPO(0.06))
    assert np.array_equal(masked.logit_T, ov.run_logit(adam(FAST), ov.start(0.3)).logit_T)
    assert coefficient(DPPO(0.15), 100.0, 1.0, 1e-5) == pytest.approx(100.0)
    assert coefficient(Clip(), 100.0, 1.0, 1e-5) == 0


def test_r7_soft_gates_and_cispo_never_stop() -> None:
    """R7: no zero gradient in 80 steps, and a larger ratio than with clipping."""
    for kind in ("soft_gate", "hazard_gate", "capped_weight"):
        run = ov.run_logit(adam(FAST), ov.start(0.3), objective=CONTRAST[kind])
        assert run.stop is None
        assert run.ratio_T[-1] > 1.6


def test_r7_soft_gates_rise_before_they_decay() -> None:
    """ "Decays smoothly" (R7) holds for the gates, not for the gradient near s = 1.

    SAPO: w = s sech^2((s-1)/2), w' = 0 at s tanh((s-1)/2) = 1, s = 2.06. MHPO: M(1) = 0.26506 and max 0.3958
    (published in methods_objectives.md, section 6, which puts the maximum at 1.779; it lies at 1.782).
    """
    grid = np.linspace(1, 4, 30001)
    soft = coefficient(SAPO(), grid, 1.0, 0.3)
    top = grid[soft.argmax()]
    assert top * math.tanh((top - 1) / 2) == pytest.approx(1, abs=1e-3)
    assert np.all(np.diff(soft[grid < top - 0.01]) > 0)
    hazard = coefficient(MHPO(), grid, 1.0, 0.3)
    assert hazard[0] == pytest.approx(0.26506, abs=5e-6)
    assert hazard.max() == pytest.approx(0.3958, abs=5e-5)
    assert grid[hazard.argmax()] == pytest.approx(1.782, abs=5e-4)


def test_r8_other_samples_push_back() -> None:
    """R8: 3 right and 1 wrong of 8 share the token: above 1.2 the gradient is -s/16 (1-pi), and the ratio returns."""
    run = ov.run_logit(adam(FAST), ov.start(0.3), (0.5, 0.5, 0.5, -0.5), weight=1 / 8, steps=200)
    above = run.ratio_T[:-1] > 1.2
    s = run.ratio_T[:-1][above]
    np.testing.assert_allclose(run.gradient_T[above], -s / 16 * (1 - 0.3 * s), rtol=1e-12)
    alone = ov.run_logit(adam(FAST), ov.start(0.3), steps=200)
    assert run.ratio_T.max() < alone.ratio_T[-1]
    assert run.ratio_T[100:].mean() == pytest.approx(1.2, abs=5e-3)


def test_r8_kl_pushes_back() -> None:
    """R8: with a KL term to pi_old a lone sample comes back too."""
    run = ov.run_logit(adam(FAST), ov.start(0.3), kl=0.5, steps=200)
    assert run.ratio_T[120:].max() < 1.23 < ov.run_logit(adam(FAST), ov.start(0.3)).ratio_T[-1]


def test_r9_momentum_crosses_group_boundaries() -> None:
    """R9: the next group has A = 0 throughout; kept, the state moves pi_old by lr u sum_{k>=1} C; reset, not at all."""
    first = ov.run_logit(adam(FAST), ov.start(0.3), steps=29)
    kept = ov.run_logit(adam(FAST), first.state, advantages_G=(0.0,) * 8, steps=51)
    formula = 0.01 * first.direction_T[27] * sum(eq36(*FAST, 29, k) for k in range(1, 52))
    assert kept.logit_T[-1] - kept.logit_T[0] == pytest.approx(formula, rel=1e-12)
    whole = ov.run_logit(adam(FAST), ov.start(0.3))
    assert kept.logit_T[-1] == pytest.approx(whole.logit_T[-1], rel=1e-12)
    reset = ov.run_logit(adam(FAST), init(first.state.theta), advantages_G=(0.0,) * 8, steps=51)
    assert np.all(reset.logit_T == reset.logit_T[0])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ov.step_ratio(1.0, 0.9, 5, 0), "beta1 must be in .* got 1.0 and 0.9"),
        (lambda: ov.step_ratio(0.9, 0.95, 1, 0), "stop must be >= 2 and k >= 0, got 1 and 0"),
        (lambda: ov.start(1.0), r"probability must be inside \(0, 1\), got 1.0"),
        (lambda: ov.run_logit(aw.Sgd(), ov.start(0.3), steps=0), "steps must be at least 1, got 0"),
    ],
)
def test_refusals_name_argument_value_and_remedy(call, words: str) -> None:
    with pytest.raises(InputError, match=words):
        call()
