"""What batch centring does to shrinkage: the global mean cancels, and with it the memory of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ebpo_sim import Groups, group_rewards, make
from strategies import UNIT, matrices


def score(name: str, past: list[Groups], now: Groups, **settings: Any) -> tuple[np.ndarray, Any]:
    """Advantages and info of `now` after `past`, in the preset's own order."""
    estimator = make(name, **settings)
    state = estimator.init()
    for groups in past:
        state = estimator.update(state, groups)
    advantages, info, _ = estimator.step(state, now)
    return advantages, info


@given(st.lists(matrices(UNIT), max_size=3), matrices(UNIT))
def test_global_mean_cancels(past: list[np.ndarray], now: np.ndarray) -> None:
    """raw - mean(raw) = r - (1-S) group mean - S batch mean: nothing of mu is left, whatever the history."""
    advantages, info = score("ebpo", [group_rewards(r) for r in past], group_rewards(now))
    shrinkage = info.shrinkage_P[0]
    assert np.all(info.shrinkage_P == shrinkage)
    raw = now - info.baseline_PG
    expected = now - (1 - shrinkage) * now.mean(axis=1, keepdims=True) - shrinkage * now.mean()
    np.testing.assert_allclose(raw - raw.mean(), expected, rtol=0, atol=1e-14)
    if np.ptp(raw) > 0:
        np.testing.assert_allclose(advantages * info.scale_PG, expected, rtol=0, atol=2e-14)


def moved(name: str, now: Groups, by: float) -> np.ndarray:
    """Advantages when only the tracked global mean is moved, every variance (so S and the order) untouched."""
    estimator = make(name, order="score_then_update")
    state = estimator.update(estimator.init(), group_rewards([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]]))
    known = state[0][""]
    rewards, means = (m._replace(mean=m.mean + by) for m in (known.rewards, known.means))
    return np.asarray(estimator.score(({"": known._replace(rewards=rewards, means=means)}, *state[1:]), now)[0])


@pytest.mark.parametrize("by", [0.3, -5.0, 100.0])
def test_moving_the_global_mean_moves_nothing(by: float) -> None:
    """The tracked mean itself, moved by hand, leaves every centred advantage where it was; uncentred rules follow."""
    now = group_rewards([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    for name in ("ebpo", "ebpo_within"):
        np.testing.assert_allclose(moved(name, now, by), moved(name, now, 0.0), rtol=0, atol=1e-12)
    assert np.max(np.abs(moved("ebpo_debiased", now, by) - moved("ebpo_debiased", now, 0.0))) > 0.05


def test_ragged_groups_do_not_cancel() -> None:
    """Three rollouts are enough: a group of one and a mixed pair have two S, and mu stays in the difference."""
    now = group_rewards([1.0, 1.0, 0.0], [0, 1, 1])
    _, info = score("ebpo", [], now)
    sigma2, tau2 = 2 / 9, 1 / 16  # of the rewards 1, 1, 0, and of the means 1 and 1/2
    s = np.array([sigma2 / (sigma2 + tau2), (sigma2 / 2) / (sigma2 / 2 + tau2)])
    np.testing.assert_allclose(info.shrinkage_P, s, rtol=1e-13)
    raw = np.where(now.mask_PG, now.rewards_PG - info.baseline_PG, 0.0)
    identity = now.rewards_PG - (1 - s[:, None]) * now.mean_P[:, None] - s[:, None] * 2 / 3
    gap = (raw - raw.sum() / 3 - identity)[now.mask_PG]
    # mu is the batch mean here, so the gap is minus the mean of raw: sum_q n_q S_q (mean_q - mu) / 3.
    expected = -(s[0] * (1 - 2 / 3) + 2 * s[1] * (1 / 2 - 2 / 3)) / 3
    assert abs(expected) > 0.01
    np.testing.assert_allclose(gap, np.full(3, expected), rtol=1e-12)
    assert np.max(np.abs(moved("ebpo", now, 0.3) - moved("ebpo", now, 0.0))) > 0.01


HISTORY = [group_rewards([[1.0, 1.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 1.0, 0.0]])]


@given(st.lists(matrices((0.0, 1.0)), max_size=3), st.integers(1, 5), st.integers(1, 6))
def test_a_failing_batch_is_silent_under_ebpo(past: list[np.ndarray], n_groups: int, size: int) -> None:
    """Item 9: a batch without one success gives exactly 0, whatever was learnt before."""
    fails = group_rewards(np.zeros((n_groups, size)))
    advantages, _ = score("ebpo", [group_rewards(r) for r in past], fails)
    assert np.all(advantages == 0)


@pytest.mark.parametrize("name", ["ebpo_debiased", "ebpo_nonparametric", "global_mean"])
def test_a_failing_batch_speaks_under_the_repair(name: str) -> None:
    """After a history with successes the same batch gets one common negative advantage."""
    advantages, info = score(name, HISTORY, group_rewards(np.zeros((3, 4))))
    assert np.all(advantages == advantages[0, 0])
    assert advantages[0, 0] < -0.01
    assert np.all(info.degenerate_P)


def test_a_ragged_failing_batch_is_not_silent() -> None:
    """With unequal groups S differs and Theorem 1 of the paper holds after centring too, with either sign."""
    advantages, _ = score("ebpo", HISTORY, group_rewards([0.0] * 5, [0, 1, 1, 1, 1]))
    assert advantages[0] < -0.5  # the lone rollout shrinks most towards the successes of the past
    assert np.all(advantages[1:] > 0.1)


def test_penalty_follows_the_batch_mean() -> None:
    """An all-fail group gets -S batch mean / scale, an all-pass group +S (1 - batch mean) / scale."""
    now = np.array([[0.0, 0, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]])
    advantages, info = score("ebpo", HISTORY, group_rewards(now))
    s, scale = info.shrinkage_P[0], info.scale_PG[0, 0]
    np.testing.assert_allclose(advantages[0], np.full(4, -s * now.mean() / scale), rtol=1e-12)
    np.testing.assert_allclose(advantages[1], np.full(4, s * (1 - now.mean()) / scale), rtol=1e-12)


@given(st.lists(matrices(UNIT), max_size=2), matrices(UNIT))
def test_batch_variance_identity(past: list[np.ndarray], now: np.ndarray) -> None:
    """Item 10: Var(raw) = mean within variance + S^2 Var(group means), all ddof 0; the 1 in P1's proof is wrong."""
    _, info = score("ebpo", [group_rewards(r) for r in past], group_rewards(now))
    raw = now - info.baseline_PG
    within, between = now.var(axis=1).mean(), now.mean(axis=1).var()
    assert raw.var() == pytest.approx(within + info.shrinkage_P[0] ** 2 * between, rel=1e-11, abs=1e-15)


@given(matrices(UNIT))
def test_variance_identity_needs_the_square_of_s(now: np.ndarray) -> None:
    """With 1 in place of S^2 the identity overstates the variance wherever prompts differ."""
    assume(np.ptp(now.mean(axis=1)) > 0.01 and np.ptp(now, axis=1).max() > 0.01)
    _, info = score("ebpo", [], group_rewards(now))
    raw = now - info.baseline_PG
    assert raw.var() < now.var(axis=1).mean() + now.mean(axis=1).var()
