"""The golden batch: four binary groups of four, worked out by hand, for every preset that it lists."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
import pytest

from battery import full
from ebpo_sim import InputError, count_groups, group_rewards, make
from golden import GOLDEN, spread


def first_step(name: str, **settings: Any) -> tuple[np.ndarray, Any]:
    """Advantages and info of the golden batch, seen first."""
    estimator = make(name, **settings)
    advantages, info, _ = estimator.step(estimator.init(), full(GOLDEN, score_norms=np.tile(np.arange(1.0, 5), (4, 1))))
    return advantages, info


EBPO_FINAL = spread((1.632572, -0.711634), (0.962799, -1.381407), (0.0, -0.376747), (1.297685, -1.046520))
THIRD = 1 / 3


def group_scaled(eps: float) -> np.ndarray:
    """(r - mean)/(std ddof 1 + eps), from each group's mean and standard deviation."""
    moments = ((1 / 4, 1 / 2), (3 / 4, 1 / 2), (0, 0), (1 / 2, sqrt(THIRD)))
    return spread(*(((1 - m) / (s + eps), -m / (s + eps)) if s else (0.0, 0.0) for m, s in moments))


EXPECTED: dict[str, tuple[str, dict[str, Any], np.ndarray]] = {
    "grpo-ddof0": (
        "grpo",
        {"ddof": 0, "eps": 0.0},
        spread((1.732051, -0.577350), (0.577350, -1.732051), (0, 0), (1, -1)),
    ),
    "grpo-ddof1": ("grpo", {"eps": 0.0}, spread((1.5, -0.5), (0.5, -1.5), (0, 0), (0.866025, -0.866025))),
    "grpo-verl": ("grpo", {}, group_scaled(1e-6)),
    "grpo-trl": ("grpo", {"eps": 1e-4}, group_scaled(1e-4)),
    "dr_grpo": ("dr_grpo", {}, spread((0.75, -0.25), (0.25, -0.75), (0, 0), (0.5, -0.5))),
    "rloo": ("rloo", {}, spread((1, -THIRD), (THIRD, -1), (0, 0), (2 * THIRD, -2 * THIRD))),
    "ebpo_released": ("ebpo_released", {}, EBPO_FINAL),
    "ebpo": ("ebpo", {}, EBPO_FINAL),
    "ebpo-eps0": (
        "ebpo",
        {"eps": 0.0},
        spread((1.632576, -0.711636), (0.962801, -1.381410), (0, -0.376748), (1.297689, -1.046523)),
    ),
    "ebpo_within": (
        "ebpo_within",
        {"eps": 0.0},
        spread((1.649916, -0.707107), (0.942809, -1.414214), (0, -0.353553), (1.296362, -1.060660)),
    ),
    "opo": ("opo", {}, spread((0.75, -0.25), (0.25, -0.75), (0, 0), (0.5, -0.5))),  # all of one length
    "optimal_token_baseline": (  # weights 1, 2, 3, 4 along each group
        "optimal_token_baseline",
        {},
        spread((0.9, -0.1), (0.4, -0.6), (0, 0), (0.7, -0.3)),
    ),
    "loo_table": ("loo_table", {}, spread((1, -THIRD), (THIRD, -1), (0, 0), (2 * THIRD, -2 * THIRD))),  # nothing known
    "optimal": ("optimal", {}, GOLDEN - 0.5),  # nothing known: b = p = 1/2
    "regression": ("regression", {}, spread((1, -THIRD), (THIRD, -1), (0, 0), (2 * THIRD, -2 * THIRD))),
    "spo": ("spo", {}, spread(*4 * [(1.25, -0.75)])),  # the mean 3/8 and spread 1/2 of all rewards
    "dbb": ("dbb", {}, spread((1.527525, -0.654654), (0.654654, -1.527525), (0, -THIRD), (1, -1))),
    "dbb-plain": ("dbb", {"scale": "none"}, spread((0.7, -0.3), (0.3, -0.7), (0, -0.1), (0.5, -0.5))),
    "anchor": ("anchor", {}, spread((1, -THIRD), (THIRD, -1), (0, 0), (2 * THIRD, -2 * THIRD))),  # nothing known
    "v05": (  # weights .489796, 0, .826389, 0
        "v05",
        {"value": 0.6},
        spread((0.571429, -0.428571), (0.4, -0.6), (0, -0.104167), (0.4, -0.6)),
    ),
    "reinforce": ("reinforce", {}, GOLDEN),
    "raft": ("raft", {}, GOLDEN * 16 / 6),
    "james_stein": (
        "james_stein",
        {},
        spread((0.895833, -0.354167), (0.501603, -0.697115), (0, -0.234375), (0.666667, -0.591667)),
    ),
}


@pytest.mark.parametrize("case", EXPECTED)
def test_golden_batch(case: str) -> None:
    """Each published variant, conventions included, reproduces its hand-worked row."""
    name, settings, expected = EXPECTED[case]
    np.testing.assert_allclose(first_step(name, **settings)[0], expected, rtol=0, atol=1e-6)


def test_trainers_rows_match_the_printed_digits() -> None:
    """TRL's eps of 1e-4 shows in the fourth digit, 1.4997 and not 1.5, and verl's 1e-6 in the sixth."""
    np.testing.assert_allclose(first_step("grpo")[0][0], [1.499997] + [-0.499999] * 3, rtol=0, atol=6e-7)
    advantages = first_step("grpo", eps=1e-4)[0]
    printed = spread((1.4997, -0.4999), (0.4999, -1.4997), (0, 0), (0.865875, -0.865875))
    assert np.max(np.abs(advantages - printed)) < 5e-5


def test_released_intermediates() -> None:
    """S = 3/7, mu = 3/8 and the raw advantages of the released code, before any standardisation."""
    raw, info = first_step("ebpo_released", standardise=False)
    sigma2, tau2 = 15 / 64, 5 / 64  # ddof-0 variances of all rewards (6 of 16) and of the means (1, 3, 0, 2)/4
    shrinkage = (sigma2 / 4) / (sigma2 / 4 + tau2)
    assert shrinkage == pytest.approx(3 / 7, abs=1e-15)
    np.testing.assert_allclose(info.shrinkage_P, np.full(4, shrinkage), rtol=1e-14)
    np.testing.assert_allclose(info.prior_mean_P, np.full(4, 0.375), rtol=1e-15)
    printed = spread((0.696429, -0.303571), (0.410714, -0.589286), (0, -0.160714), (0.553571, -0.446429))
    np.testing.assert_allclose(GOLDEN - info.baseline_PG, printed, rtol=0, atol=1e-6)
    centred = printed - printed.mean()  # the released code centres even where it does not scale
    np.testing.assert_allclose(raw, centred, rtol=0, atol=1e-6)


def test_released_scale() -> None:
    """The batch standard deviation is that of raw, ddof 1: 0.4265827."""
    info = first_step("ebpo_released")[1]
    np.testing.assert_allclose(info.scale_PG, np.full((4, 4), 0.4265827 + 1e-6), rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "shrinkage"), [("ebpo", 3 / 7), ("ebpo_within", 0.4), ("ebpo_debiased", 0.5), ("global_mean", 1.0)]
)
def test_shrinkage_weights(name: str, shrinkage: float) -> None:
    """The three versions of S differ on one batch: total, within, and within with the noise taken off tau2."""
    info = first_step(name, order="update_then_score")[1]
    np.testing.assert_allclose(info.shrinkage_P, np.full(4, shrinkage), rtol=1e-13)


def test_debiased_advantages() -> None:
    """S = 1/2 and mu = 3/8: baselines half-way; scale predicted from w = 5/24 and T2 = 5/96."""
    advantages, info = first_step("ebpo_debiased", order="update_then_score", eps=0.0)
    baseline = (np.array([0.25, 0.75, 0.0, 0.5]) + 0.375) / 2
    within, between = 5 / 24, 5 / 96
    variance = within * 3 / 4 + 0.25 * (between + within / 4)
    np.testing.assert_allclose(info.baseline_PG[:, 0], baseline, rtol=1e-13)
    np.testing.assert_allclose(advantages, (GOLDEN - baseline[:, None]) / sqrt(variance), rtol=1e-12)


def test_james_stein_weights() -> None:
    """The leave-one-out lambdas of the paper's form; its code leaves the factor 3/4 out."""
    printed = np.array([0.25, 0.403846, 0.46875, 0.225])
    np.testing.assert_allclose(first_step("james_stein")[1].shrinkage_P, printed, rtol=0, atol=1e-6)
    plain = first_step("james_stein", finite_sample_factor=False)[1].shrinkage_P
    np.testing.assert_allclose(plain, printed * 4 / 3, rtol=0, atol=1e-6)


@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("group_size", [2, 3, 4, 7, 8, 16, 33])
def test_binary_closed_forms(group_size: int, ddof: int) -> None:
    """A+ = sqrt((G-ddof)(G-k)/(Gk)), A- = -sqrt((G-ddof)k/(G(G-k))), and 0 at k = 0 and G, for every k at once."""
    estimator = make("grpo", ddof=ddof, eps=0.0)
    advantages, _ = estimator.score(estimator.init(), count_groups(group_size))
    g = group_size
    for k in range(g + 1):
        if k in (0, g):
            expected = [0.0] * g
        else:
            right = sqrt((g - ddof) * (g - k) / (g * k))
            wrong = -sqrt((g - ddof) * k / (g * (g - k)))
            expected = [right] * k + [wrong] * (g - k)
        np.testing.assert_allclose(advantages[k], expected, rtol=1e-13, atol=0)


def test_eps_inside_the_root() -> None:
    """verl's whitening adds eps to the variance, not to the standard deviation; 1 makes the difference plain."""
    centred = GOLDEN - GOLDEN.mean(axis=1, keepdims=True)
    advantages, _ = first_step("reinforce_pp_baseline", eps=1.0)
    np.testing.assert_allclose(advantages, centred / sqrt(centred.var(ddof=1) + 1.0), rtol=1e-13)


@pytest.mark.parametrize(
    ("past", "alpha", "beta"),
    [
        (None, 1, 1),  # nothing seen: the uniform prior
        ([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0]], 2.5, 2.5),  # m = 1/2, v = 1/24: nu = 5
        ([[1, 1], [0, 0]], 1, 1),  # v = m (1 - m) is not a Beta's: nu = 2
        ([[1, 0, 0], [1, 0, 0]], 2 / 3, 4 / 3),  # nor is v = 0
    ],
)
def test_beta_binomial_posterior(past: list[list[int]] | None, alpha: float, beta: float) -> None:
    """V = (alpha + successes)/(alpha + beta + n) under the Beta prior fitted to the batches before."""
    estimator = make("ebpo_beta_binomial")
    state = estimator.init() if past is None else estimator.update(estimator.init(), group_rewards(past))
    _, info = estimator.score(state, group_rewards([1, 0, 1, 0, 0], [0, 0, 1, 2, 2]))
    posterior = [(alpha + k) / (alpha + beta + n) for k, n in ((1, 2), (1, 1), (0, 2))]
    np.testing.assert_allclose(info.baseline_PG[:, 0], posterior, rtol=1e-13)
    np.testing.assert_allclose(info.shrinkage_P, [(alpha + beta) / (alpha + beta + n) for n in (2, 1, 2)], rtol=1e-13)


def test_the_table_of_the_golden_batch() -> None:
    """f(0..3) = 1/5, 2/5, 3/5, 0: of the rows whose others had k successes, the share that was right."""
    estimator = make("loo_table")
    first, _, state = estimator.step(estimator.init(), full(GOLDEN))
    np.testing.assert_allclose(first, make("rloo").score((), full(GOLDEN))[0], rtol=1e-15)
    again, _, _ = estimator.step(state, full(GOLDEN))
    expected = spread((4 / 5, -2 / 5), (2 / 5, 0), (0, -1 / 5), (3 / 5, -3 / 5))
    np.testing.assert_allclose(again, expected, rtol=1e-14)


def test_weighted_means_of_a_group() -> None:
    """OPO counts a rollout once a token; a group of one, of equal rewards, or without weight is as a plain mean's."""
    rewards, ids = [1.0, 0.0, 0.0, 0.3, 0.1, 0.1, 1.0, 0.0], [0, 0, 0, 1, 2, 2, 3, 3]
    weights = [1.0, 2.0, 5.0, 4.0, 3.0, 1.0, 0.0, 0.0]
    expected = [7 / 8, -1 / 8, -1 / 8, 0, 0, 0, 0.5, -0.5]
    for name, column in (("opo", "lengths"), ("optimal_token_baseline", "score_norms")):
        groups = full(rewards, ids, **{column: weights})
        np.testing.assert_allclose(make(name).score((), groups)[0], expected, rtol=1e-15)
        raw, _ = make(f"{name}:singleton=raw").score((), groups)
        assert raw[3] == 0.3 and np.array_equal(np.delete(raw, 3), np.delete(make(name).score((), groups)[0], 3))
        with pytest.raises(InputError, match="group of one"):
            make(f"{name}:singleton=error").score((), groups)


def test_positive_answers_alone() -> None:
    """RAFT is silent on failures and divides by the share of successes; negative rewards are no answers to imitate."""
    rewards = [[1.0, -1.0, 0.5, 0.0], [-1.0, 0.0, -2.0, 0.0]]
    np.testing.assert_array_equal(make("raft").score((), group_rewards(rewards))[0][0], [4.0, 0, 2.0, 0])
    np.testing.assert_array_equal(
        make("raft", divisor="rollouts").score((), group_rewards(rewards))[0][0], [1, 0, 0.5, 0]
    )
    assert not np.any(make("raft").score((), group_rewards([[0.0, -1.0]]))[0])
    np.testing.assert_array_equal(make("reinforce", baseline=0.25).score((), group_rewards([[1.0]]))[0], [[0.75]])
