"""Hostile batches: magnitudes, layouts and ids that a sum of squares, a mask or an equality would silently betray."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from battery import CASES, build, full, history, leaves, rows
from ebpo_sim import InputError, group_rewards, make
from ebpo_sim.estimators import Estimator, components
from ebpo_sim.groups import LARGEST

every = pytest.mark.parametrize("estimator", CASES.values(), ids=CASES.keys())
REAL = {n: e for n, e in CASES.items() if e.domain == "real"}


@pytest.mark.parametrize("estimator", REAL.values(), ids=REAL.keys())
@given(exponent=st.floats(-320, 308), sign=st.sampled_from([-1.0, 1.0]))
def test_one_large_reward_never_silences_the_estimator(estimator: Estimator, exponent: float, sign: float) -> None:
    """A reward is refused, or the state after it is finite and the next batch has advantages of every sign."""
    reward = sign * 10.0**exponent
    start = history(estimator, 1)
    clusters = ["algebra", "geometry"]
    try:
        groups = full([[reward, 0, 0, 1], [0, 1, 1, 0]], clusters=clusters)
    except InputError as error:
        assert abs(reward) > LARGEST
        assert "(0, 0)" in str(error) or str(error).startswith("components must be finite")
        return
    advantages, _, state = estimator.step(start, groups)
    assert np.all(np.isfinite(advantages))
    assert all(np.all(np.isfinite(x)) for x in leaves(state).values())
    later, _, _ = estimator.step(state, full([[1.0, 0, 0, 1], [0, 1, 0, 0]], clusters=clusters))
    assert np.all(np.isfinite(later))
    assert np.any(later != 0)


@every
def test_whatever_would_lose_information_is_refused(estimator: Estimator) -> None:
    """Masks of masked arrays, imaginary parts, and values that the rewards' own dtype cannot hold."""
    state, r = history(estimator, 1), [[1.0, 0.0], [0.0, 1.0]]
    refused: dict[str, Any] = {
        "masked array": np.ma.masked_array(r, [[0, 0], [1, 0]]),
        "plain dense tensor": torch.tensor(r, dtype=torch.complex64),
        "on meta": torch.tensor(r, device="meta"),
        "sparse": torch.tensor(r).to_sparse(),
        "nested": torch.nested.nested_tensor([torch.ones(1), torch.ones(2)], layout=torch.jagged),
        "numeric": np.array(r) * 1j,
    }
    for words, rewards in refused.items():
        with pytest.raises(InputError, match=words):
            group_rewards(rewards)
    for groups in (r, None, np.array(r)):
        with pytest.raises(InputError, match=r"what group_rewards\(\) returns"):
            estimator.step(state, groups)  # type: ignore[arg-type]
    if estimator.init() is not None:
        with pytest.raises(InputError, match="start with init"):
            estimator.step(None, group_rewards(r, clusters=["a", "b"]))


@pytest.mark.parametrize("dtype", [np.float16, torch.float16])
def test_an_advantage_beyond_its_dtype_is_refused(dtype: Any) -> None:
    """Rewards of a narrow dtype may give wider advantages: infinities would come back."""
    values = [[60000.0, -60000.0, -60000.0, -60000.0]]
    rewards = torch.tensor(values, dtype=dtype) if dtype is torch.float16 else np.array(values, dtype)
    with pytest.raises(InputError, match="float32 or wider"):
        make("dr_grpo").step((), group_rewards(rewards))


def test_ids_are_compared_as_they_are_given() -> None:
    """Whole numbers beyond 2^53 stay apart beside a float; equal numbers of other types are one id."""
    groups = group_rewards([1.0, 0.0, 1.0], group_ids=[2**53, 2**53 + 1, 0.5])
    assert groups.size_P.tolist() == [1, 1, 1]
    tensors = [torch.tensor(3), np.int64(3), 3, 3.0]
    assert group_rewards([1.0, 0.0, 1.0, 1.0], group_ids=tensors).size_P.tolist() == [4]


@pytest.mark.parametrize(
    "ids", [[float("nan"), 1], [np.nan, np.float64("nan")], [[1], [2]], [{}, {}], [np.zeros(2), np.zeros(2)]], ids=str
)
def test_ids_that_equal_nothing_or_cannot_be_compared_are_refused(ids: list[Any]) -> None:
    with pytest.raises(InputError, match="group_ids"):
        group_rewards([1.0, 0.0], group_ids=ids)


CLUSTERED = ["ebpo_debiased", "ebpo_beta_binomial"]


@pytest.mark.parametrize("name", CLUSTERED)
def test_clusters_are_bounded_and_nothing_learnt_is_lost(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the bound the smallest clusters become unseen ones; all clusters together keep every reward."""
    monkeypatch.setattr(components, "MOST_CLUSTERS", 8)
    estimator, rng = build(name, per_cluster=True), np.random.default_rng(0)
    state, total = estimator.init(), 0
    for step in range(6):
        ids = [f"often{i}" for i in range(4)] + [f"once{step}-{i}" for i in range(5)]
        rewards = rng.integers(0, 2, (len(ids), 3)).astype(float)
        total += rewards.size
        _, _, state = estimator.step(state, group_rewards(rewards, clusters=ids))
        assert len(state[0]) <= 8
    assert {f"often{i}" for i in range(4)} <= set(state[0])
    assert sum(float(c.rewards.n) for c in state[0].values()) == pytest.approx(total, rel=1e-12)
    gone = next(i for i in (f"once0-{j}" for j in range(5)) if i not in state[0])
    strangers = [group_rewards([[1.0, 0.0]], clusters=[c]) for c in (gone, "never")]
    (a, _), (b, _) = (estimator.score(state, groups) for groups in strangers)
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", CLUSTERED)
def test_a_cluster_that_faded_is_new_again(name: str) -> None:
    """What was seen a thousand batches ago is not believed like a fresh observation."""
    estimator, rng = build(name, per_cluster=True, memory=0.5), np.random.default_rng(0)
    state = estimator.update(estimator.init(), group_rewards([[1.0, 1.0, 1.0, 0.0]] * 4, clusters=["old"] * 4))
    for _ in range(30):
        state = estimator.update(state, group_rewards(rng.integers(0, 2, (4, 4)) * 1.0, clusters=["a", "a", "b", "b"]))
    assert set(state[0]) == {"a", "b"}


def test_clusters_cost_time_in_proportion() -> None:
    """Statistics by cluster look at each row once: P one-prompt clusters give P observations of one group each."""
    batch = rows(build("ebpo_debiased", per_cluster=True), 1)
    groups = group_rewards(**batch)
    bank = components.observe_bank(groups, per_cluster=True)
    for name, found in bank.items():
        inside = np.array([c == name for c in groups.cluster_P or ()])
        assert float(found.means.n) == inside.sum()
        assert float(found.rewards.n) == groups.size_P[inside].sum()
        np.testing.assert_allclose(found.within_ss, groups.within_ss_P[inside].sum(), rtol=1e-15)
