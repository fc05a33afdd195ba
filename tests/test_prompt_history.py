"""Baselines that know prompts again: by hand, bounded memory, and against their members on a stream with revisits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from battery import assert_same, full
from ebpo_sim import InputError, make
from ebpo_sim.estimators import Estimator, dump_state, load_state, memory

Array = NDArray[np.float64]
BOTH = pytest.mark.parametrize("name", ["optimal", "regression"])


def after(estimator: Estimator, *batches: Any) -> Any:
    state = estimator.init()
    for batch in batches:
        state = estimator.update(state, batch)
    return state


def told(estimator: Estimator, state: Any, now: Any) -> Array:
    evaluation = estimator.baseline_of(state, now)
    assert evaluation is not None
    return np.broadcast_to(evaluation.baseline_PG, now.rewards_PG.shape)


def test_optimal_by_hand() -> None:
    """p = (2 m + successes)/(2 + rollouts) of past visits alone, then p a/(p a + (1-p) c)."""
    estimator = make("optimal")
    first = full([[1.0, 1.0], [0.0, 0.0]], prompt_ids=["x", "y"], score_norms=[[1.0, 3.0], [4.0, 8.0]])
    now = full([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], prompt_ids=["x", "y", "z"])
    assert told(estimator, estimator.init(), now).tolist() == [[0.5, 0.5]] * 3
    # both prompts had p = 1/2, where a = (4 + 2)/3 and c = (12 + 6)/3; elsewhere the means of all bins, 2 and 6
    p = np.array([(1 + 2) / 4, 1 / 4, 1 / 2])
    np.testing.assert_allclose(told(estimator, after(estimator, first), now)[:, 0], 2 * p / (2 * p + 6 * (1 - p)))
    # five right and four wrong rollouts of equal norms, 1 and 2: their means, however many there are of each
    uneven = np.array([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    seen = after(estimator, full(uneven, prompt_ids=["u", "v", "w"], score_norms=2 - uneven))
    np.testing.assert_allclose(told(estimator, seen, now)[2, 0], 5 / 9 / (5 / 9 + 2 * 4 / 9), rtol=1e-14)
    plain = make("optimal:weights=none")
    np.testing.assert_allclose(told(plain, after(plain, first), now)[:, 0], p, rtol=1e-14)
    others = make("optimal:weights=none,others=true")
    expected = [[3 / 5, 4 / 5], [2 / 5, 1 / 5], [2 / 3, 2 / 3]]  # the other rollout is one more
    np.testing.assert_allclose(told(others, after(others, first), now), expected, rtol=1e-14)
    faded = make("optimal:weights=none,history=0.5,memory=0.5")
    second = full([[1.0, 1.0]], prompt_ids=["y"])
    # m = (2/2 + 2)/(4/2 + 2) = 3/4; of x 1 success of 1 rollout is left, of y 2 of 3
    np.testing.assert_allclose(told(faded, after(faded, first, second), now)[:, 0], [2.5 / 3, 3.5 / 5, 3 / 4])


def test_norms_are_those_of_the_bin() -> None:
    """Two kinds of prompts, in bins apart, keep norms apart: b = p a/(p a + (1-p) c) with those of the own kind."""
    rng, estimator = np.random.default_rng(1), make("optimal")
    rates, norms = np.repeat([0.05, 0.95], 20), np.repeat([[1.0, 2.0], [3.0, 60.0]], 20, axis=0)  # right, wrong
    seen = []
    for _ in range(60):
        rewards = (rng.random((40, 4)) < rates[:, None]) * 1.0
        seen.append(full(rewards, score_norms=np.where(rewards == 1, norms[:, :1], norms[:, 1:])))
    p = told(make("optimal:weights=none"), after(make("optimal:weights=none"), *seen), seen[-1])[:, 0]
    b = told(estimator, after(estimator, *seen), seen[-1])[:, 0]
    np.testing.assert_allclose(p * (1 - b) / (b * (1 - p)), norms[:, 1] / norms[:, 0], rtol=0.05)  # c/a, but for bins


@BOTH
def test_the_visit_itself_is_not_in_its_baseline(name: str) -> None:
    """With groups of one no reward of the batch reaches any baseline of it."""
    estimator = make(name)
    state = after(estimator, *(full(np.eye(3)[:, [k]], prompt_ids=["x", "y", "z"]) for k in range(3)))
    one, other = (full([[r], [1 - r], [r]], prompt_ids=["x", "y", "new"]) for r in (0.0, 1.0))
    np.testing.assert_array_equal(told(estimator, state, one), told(estimator, state, other))


def test_regression_without_evidence() -> None:
    """Before a batch the others' mean; after one, of which nothing could be learnt yet, the running mean."""
    estimator, now = make("regression"), full([[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    assert told(estimator, estimator.init(), now) == pytest.approx(np.array([[0.0, 0.5, 0.5], [1.0, 1.0, 1.0]]))
    np.testing.assert_allclose(told(estimator, after(estimator, now), now), np.full((2, 3), 4 / 6), rtol=1e-14)


@pytest.mark.parametrize("name", ["optimal", "regression", "spo", "anchor"])
def test_prompts_beyond_the_bound_are_forgotten(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those visited last stay, however little is known of them; what a dropped prompt taught all others stays."""
    estimator = make(name)
    monkeypatch.setattr(memory, "MOST_PROMPTS", 3)
    state = after(estimator, full([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]], prompt_ids=["d", "b"]),
                  full([[1.0], [1.0], [0.0]], prompt_ids=["a", "b", "c"]), full([[0.0]], prompt_ids=["e"]))  # fmt: skip
    spoken = [f"\0{i}" for i in "abc"] if name in ("optimal", "regression") else list("abc")
    assert state[0][0]["key"].tolist() == sorted(memory.keys(spoken).tolist())
    if name in ("optimal", "regression"):
        clusters = state[0][2]
        assert clusters[""].n + clusters[""].new_n == 10
    assert_same(load_state(estimator, dump_state(estimator, state)), state)


@BOTH
def test_faded_prompts_are_dropped(name: str) -> None:
    """Below a millionth of a rollout a past is no evidence."""
    estimator = make(f"{name}:history=0.009")
    state = after(estimator, *(full([[1.0]], prompt_ids=[i]) for i in "abcdef"))
    assert set(state[0][0]["key"]) == set(memory.keys(["\0e", "\0d", "\0c"])) and list(state[0][1]) == ["\0f"]


@pytest.mark.parametrize("text", ["optimal:prior_weight=0", "regression:prior_weight=0", "regression:ridge=0"])
def test_settings_out_of_range(text: str) -> None:
    with pytest.raises(InputError, match=r"must be above 0, got 0.0"):
        make(text)
    with pytest.raises(InputError, match="retention strictly between 0 and 1"):
        make(f"{text.partition(':')[0]}:history=1.5")


@pytest.mark.parametrize("group_size", [1, 4])
def test_regression_is_never_worse_than_its_members(group_size: int) -> None:
    """A stream of 150 batches of 64 of 640 prompts, rates Beta(1/2, 1/2): over the last 50 the squared error of p is
    below that of the running mean, of history alone and of the others alone, each by more than 4 standard errors
    (batches as the unit, t(49): false-fail 1e-4), and within a twentieth of the exact posterior's, which knows the
    prior."""
    rng = np.random.default_rng(4)
    p, estimator = rng.beta(0.5, 0.5, 640), make("regression")
    state, n, r, errors = estimator.init(), np.zeros(640), np.zeros(640), []
    for step in range(150):
        which = rng.permutation(640)[:64]
        rewards = (rng.random((64, group_size)) < p[which, None]) * 1.0
        groups = full(rewards, prompt_ids=which)
        if step >= 100:
            past, others = n[which][:, None], rewards.sum(axis=1, keepdims=True) - rewards
            known = [told(estimator, state, groups), np.full(rewards.shape, r.sum() / n.sum()),
                     (r / np.maximum(n, 1))[which][:, None],
                     (0.5 + r[which][:, None] + others) / (1 + past + group_size - 1)]  # fmt: skip
            known += [others / (group_size - 1)] if group_size > 1 else []
            errors.append([np.mean((b - p[which, None]) ** 2) for b in known])
        state = estimator.update(state, groups)
        n[which] += group_size
        r[which] += rewards.sum(axis=1)
    ours_T, *members, posterior_T = np.array(errors).T[[0, 1, 2, *([4] if group_size > 1 else []), 3]]
    for member_T in members:
        gain_T = member_T - ours_T
        assert gain_T.mean() > 4 * gain_T.std(ddof=1) / np.sqrt(50)
    assert ours_T.mean() < 1.05 * posterior_T.mean()
