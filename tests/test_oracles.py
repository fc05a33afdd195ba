"""Our presets under the trainers' conventions: verl's recorded numbers, and TRL's written formulas."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from ebpo_sim import group_rewards, make
from ebpo_sim.estimators import Estimator, Subtract, Whiten
from ebpo_sim.estimators.group_mean import GroupMean
from strategies import REAL, Batch, batches

CASES = json.loads((Path(__file__).parent / "data" / "verl_oracle.json").read_text())["cases"]
VERL: dict[str, Estimator] = {
    "grpo": make("grpo", singleton="raw"),
    "dr_grpo": make("dr_grpo", singleton="raw"),
    "rloo": make("rloo", singleton="raw"),
    "rloo_vectorized": make("rloo", singleton="zero"),
    "reinforce_plus_plus_baseline": make("reinforce_pp_baseline"),
}


def advantages(estimator: Estimator, case: dict[str, Any]) -> np.ndarray:
    """Our advantages of one recorded batch, in its row order."""
    groups = group_rewards(case["rewards"], case["index"], lengths=case["lengths"])
    return np.asarray(estimator.score(estimator.init(), groups)[0])


@pytest.mark.parametrize("number", range(len(CASES)))
@pytest.mark.parametrize("name", VERL)
def test_verl_numbers(name: str, number: int) -> None:
    """Five batches with shuffled rows: equal and ragged groups, groups of one, a constant batch."""
    case = CASES[number]
    np.testing.assert_allclose(advantages(VERL[name], case), case["advantages"][name], rtol=0, atol=1e-6)


def test_verl_cases_are_the_five_that_matter() -> None:
    """The recorded batches hold ragged groups, singletons and a constant batch, or the test above proves little."""
    sizes = [sorted(np.unique(c["index"], return_counts=True)[1].tolist()) for c in CASES]
    assert sizes == [[4, 4, 4], [8] * 6, [1, 2, 3, 4, 5], [4, 4], [1, 1, 4]]
    assert np.ptp(CASES[3]["rewards"]) == 0
    assert all(len(set(c["lengths"])) > 1 for c in CASES)


def test_verl_contradicts_itself_on_groups_of_one() -> None:
    """verl's loop form leaves a lone reward as it is, its vectorised form makes it 0: two settings of ours."""
    case = CASES[4]
    lone = [i for i, name in enumerate(case["index"]) if case["index"].count(name) == 1]
    rewards = np.array(case["rewards"])[lone]
    assert sorted(rewards) == [0, 1]
    np.testing.assert_array_equal(np.array(case["advantages"]["rloo"])[lone], rewards)
    np.testing.assert_array_equal(np.array(case["advantages"]["rloo_vectorized"])[lone], [0, 0])
    np.testing.assert_array_equal(advantages(VERL["rloo"], case)[lone], rewards)
    np.testing.assert_array_equal(advantages(VERL["rloo_vectorized"], case)[lone], [0, 0])


def test_verl_whitens_over_tokens() -> None:
    """Weighting rollouts by length matters: leaving the lengths out misses verl's numbers by over 0.01."""
    case = CASES[1]
    plain = group_rewards(case["rewards"], case["index"], lengths=np.ones(len(case["rewards"])))
    estimator = VERL["reinforce_plus_plus_baseline"]
    unweighted = np.asarray(estimator.score((), plain)[0])
    assert np.max(np.abs(unweighted - case["advantages"]["reinforce_plus_plus_baseline"])) > 0.01


def trl(batch: Batch, scale: str) -> list[float]:
    """TRL's group-relative advantage, written out: eps 1e-4, standard deviations with ddof 1."""
    members = {i: [r for r, j in zip(batch.rewards, batch.ids, strict=True) if j == i] for i in batch.ids}
    out = []
    for r, i in zip(batch.rewards.tolist(), batch.ids, strict=True):
        centred = r - fmean(members[i])
        if scale == "group":
            centred /= (stdev(members[i]) if len(members[i]) > 1 else 0.0) + 1e-4
        if scale == "batch":
            centred /= (stdev(batch.rewards.tolist()) if len(batch.rewards) > 1 else 0.0) + 1e-4
        out.append(centred)
    return out


TRL = {
    "group": make("grpo", eps=1e-4),
    "batch": make("grpo_batch_norm", scale="batch_rewards", eps=1e-4),
    "none": make("dr_grpo"),
}


@pytest.mark.parametrize("scale", TRL)
@given(batch=batches(REAL))
def test_trl_scale_rewards(scale: str, batch: Batch) -> None:
    """scale_rewards = group, batch (std of ALL rewards) and none."""
    ours, _ = TRL[scale].score((), group_rewards(batch.rewards, batch.ids))
    np.testing.assert_allclose(ours, trl(batch, scale), rtol=1e-9, atol=1e-9)


def test_trl_batch_scale_is_not_the_std_of_the_centred_rewards() -> None:
    """TRL divides by the spread of the rewards, REINFORCE++ and EBPO by that of reward minus baseline."""
    groups = group_rewards([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 1.0, 1.0]])
    rewards, centred = make("grpo_batch_norm", scale="batch_rewards"), make("grpo_batch_norm")
    ratio = rewards.score((), groups)[0][0, 0] / centred.score((), groups)[0][0, 0]
    all_rewards = [1, 1, 0, 0, 0, 1, 1, 1, 1]
    raw = [r - m for r, m in zip(all_rewards, [2 / 3] * 3 + [1 / 3] * 3 + [1] * 3, strict=True)]
    assert ratio == pytest.approx((stdev(raw) + 1e-6) / (stdev(all_rewards) + 1e-6), rel=1e-12)
    assert ratio < 0.9


@given(batch=batches(REAL, min_groups=2))
def test_trl_rloo_with_normalised_advantages(batch: Batch) -> None:
    """RLOO with normalize_advantages: z-scored over the batch, ddof 1, eps 1e-4; a composition, not a preset."""
    estimator = Estimator("rloo_z", (Subtract(GroupMean(leave_one_out=True)), Whiten(1, 1e-4)))
    ours, _ = estimator.score((), group_rewards(batch.rewards, batch.ids))
    raw = []
    for n, (r, i) in enumerate(zip(batch.rewards.tolist(), batch.ids, strict=True)):
        others = [
            q for m, (q, j) in enumerate(zip(batch.rewards.tolist(), batch.ids, strict=True)) if j == i and m != n
        ]
        raw.append(r - fmean(others) if others else 0.0)
    expected = [(a - fmean(raw)) / (stdev(raw) + 1e-4) for a in raw]
    np.testing.assert_allclose(ours, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("scale", TRL)
def test_trl_unscored_rows(scale: str) -> None:
    """A rollout without a reward is left out of mean and spread, and its advantage is 0."""
    rewards = np.array([1.0, np.nan, 0.0, 0.0, 1.0, 1.0, np.nan, 0.0])
    ids = np.array(["a", "a", "a", "a", "b", "b", "b", "b"])
    scored = ~np.isnan(rewards)
    ours, _ = TRL[scale].score((), group_rewards(rewards, ids, mask=scored))
    assert ours[~scored].tolist() == [0.0, 0.0]
    np.testing.assert_allclose(ours[scored], trl(Batch(rewards[scored], ids[scored]), scale), rtol=1e-12)
