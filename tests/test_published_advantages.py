"""Published advantage rules: a row of the golden batch each, worked out by hand, and what tells them apart."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations
from math import comb, exp, sqrt
from typing import Any

import numpy as np
import pytest

from battery import full
from ebpo_sim import InputError, count_groups, group_rewards, make
from ebpo_sim.counts.updates import advantage_gap, advantages_by_count
from ebpo_sim.estimators.riskpo import Bundles
from golden import GOLDEN, spread

THIRD, ROOT = 1 / 3, 1 / sqrt(3)
FALL, RISE = 1.3 * exp(-0.25), 1.3 * exp(0.25)  # HA-DW's weights at a distance of 1/4 from its belief
RISK = np.array([0.0, -0.4, -1.4, -2.7])  # bundle rewards 3, 2, 1, 0; quantiles 0.6 and 2.4
FILTERED = np.array([  # drift 0, noise 1: after i rewards of sum S the estimate is S/(1+i), its variance 1/(1+i)
    [(r - total / (i + 2)) * sqrt(i + 2) for i, (r, total) in enumerate(zip(row, np.cumsum(row), strict=True))]
    for row in GOLDEN
])  # fmt: skip
ROWS: dict[str, tuple[str, dict[str, Any], np.ndarray]] = {
    "grpo_leave_one_out": (  # the others of a wrong one in row 1: 1, 0, 0 of mean 1/3 and std 1/sqrt(3)
        "grpo_leave_one_out", {"eps": 0.0}, spread((1, -ROOT), (ROOT, -1), (0, 0), (2 * ROOT, -2 * ROOT)),
    ),
    "lite_ppo": (  # 6 ones of 16: variance 16/15 * 6/16 * 10/16 = 1/4
        "lite_ppo", {"eps": 0.0}, spread((1.5, -0.5), (0.5, -1.5), (0, 0), (1, -1)),
    ),
    "grpo_whitened": (  # variance of GRPO's row 9/15
        "grpo_whitened", {"eps": 0.0, "batch_eps": 0.0},
        spread((1.5, -0.5), (0.5, -1.5), (0, 0), (1.5 * ROOT, -1.5 * ROOT)) / sqrt(0.6),
    ),
    "grpo_whitened-rloo": (  # 4/3 of Dr. GRPO's, which have variance 16/15 * (6 + 6 + 8)/(8 * 16) = 1/6, over its root
        "grpo_whitened", {"leave_one_out": True, "batch_eps": 0.0},
        spread((0.75, -0.25), (0.25, -0.75), (0, 0), (0.5, -0.5)) * sqrt(6),
    ),
    "reinforce_pp-baseline": (  # ddof 0: variance 5/32
        "reinforce_pp", {"eps": 0.0, "ddof": 0, "baseline": "group"},
        spread((0.75, -0.25), (0.25, -0.75), (0, 0), (0.5, -0.5)) * sqrt(32 / 5),
    ),
    "reinforce_pp": ("reinforce_pp", {"eps": 0.0}, (GOLDEN - 0.375) / 0.5),
    "gpg": ("gpg", {}, spread((1, -THIRD), (THIRD, -1), (0, 0), (2 * THIRD, -2 * THIRD))),  # times 16/12
    "gpg-verl": ("gpg", {"counted": "nonzero"}, spread((2, -2 / 3), (2 / 3, -2), (0, 0), (4 / 3, -4 / 3))),  # 16/6
    "maxrl": ("maxrl", {"eps": 0.0}, spread((3, -1), (THIRD, -1), (0, 0), (1, -1))),
    "maxrl-order-G": ("maxrl", {"eps": 0.0, "all_fail": -1.0}, spread((3, -1), (THIRD, -1), (0, -1), (1, -1))),
    "passk": ("passk", {}, spread((2, -2 / 3), (0, 0), (0, 0), (2 / 3, -2 / 3))),
    "passk-fewer": ("passk", {"baseline": "fewer"}, spread((2, 0), (2 / 3, 0), (0, 0), (4 / 3, 0))),
    "grpo_passk": ("grpo_passk", {"eps": 0.0}, spread((2, 0), (0, 0), (0, 0), (0, 0))),  # margin 1, std 1/2
    "bnpo": (  # m = 3/8, v = 5/48: a = 15/32, b = 25/32
        "bnpo", {}, spread((0.672980, -0.224327), (0.251525, -0.754575), (0, 0), (0.447437, -0.447437)),
    ),
    "ha_dw": (
        "ha_dw", {"eps": 0.0},
        spread((1.5 * RISE, -0.5 * FALL), (0.5 * FALL, -1.5 * RISE), (0, 0), (1.3 * 1.5 * ROOT, -1.3 * 1.5 * ROOT)),
    ),
    "gdpo": (  # the second function is constant; variance of what the first leaves 9/15
        "gdpo", {"eps": 0.0, "batch_eps": 0.0},
        spread((1.5, -0.5), (0.5, -1.5), (0, 0), (1.5 * ROOT, -1.5 * ROOT)) / sqrt(0.6),
    ),
    "riskpo": ("riskpo", {}, np.tile(RISK, (4, 1))),
    "krpo": ("krpo", {"drift": 0.0, "noise": 1.0, "eps": 0.0}, FILTERED),
}  # fmt: skip


@pytest.mark.parametrize("case", ROWS)
def test_golden_batch(case: str) -> None:
    """Each rule, conventions included, reproduces its hand-worked row."""
    name, settings, expected = ROWS[case]
    estimator = make(name, **settings)
    found, _, _ = estimator.step(estimator.init(), full(GOLDEN))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_greedy_rewards_are_subtracted() -> None:
    """ReMax: r - b of each prompt; without greedy rewards it is refused, naming them."""
    found, _ = make("remax").score((), group_rewards(GOLDEN, greedy=[1, 0, 0.5, 0]))
    np.testing.assert_array_equal(found, GOLDEN - np.array([[1], [0], [0.5], [0]]))
    for name, word in (("remax", "greedy="), ("copo", "answers="), ("gdpo", "components=")):
        with pytest.raises(InputError, match=f"{name} needs .*: pass {word}"):
            make(name).score((), group_rewards(GOLDEN))


def test_side_inputs_must_fit() -> None:
    """Shapes, one greedy reward a group, finite numbers; NaN is a function that did not score."""
    rewards, ids = [1.0, 0.0, 1.0], ["a", "a", "b"]
    wrong = [
        ({"answers": [1, 2]}, "answers has shape"), ({"components": [1.0, 2.0, 3.0]}, "components has shape"),
        ({"greedy": [1.0]}, "greedy has shape"), ({"greedy": [1.0, 0.0, 1.0]}, "greedy differ within a group"),
        ({"greedy": [float("nan")] * 3}, "greedy must be finite"),
        ({"components": [[float("inf")]] * 3}, "components must be finite"),
    ]  # fmt: skip
    for given, message in wrong:
        with pytest.raises(InputError, match=message):
            group_rewards(rewards, ids, **given)
    sides = group_rewards(rewards, ids, answers=["x", "y", "x"], greedy=[1, 1, 0], components=[[1, np.nan]] * 3).sides
    assert sides.answer_PG is not None and sides.greedy_P is not None and sides.component_PGK is not None
    assert sides.answer_PG[0, 0] == sides.answer_PG[1, 0] != sides.answer_PG[0, 1]
    assert sides.greedy_P.tolist() == [1, 0] and np.isnan(sides.component_PGK[0, 0, 1])


def test_lengths_open_the_gate() -> None:
    """ADORA: row 1's right answer is longer than the wrong ones' mean, row 2's as long, row 4's longer only below 9."""
    lengths = [[5, 4, 4, 6], [1, 1, 2, 2], [1, 1, 1, 1], [6, 1, 5, 9]]
    plain = np.asarray(make("grpo").score((), full(GOLDEN))[0])
    for limit, last in ((None, 0.1), (9, 1.0)):
        found, _ = make("adora", limit=limit).score((), full(GOLDEN, lengths=lengths))
        np.testing.assert_allclose(found, plain * np.array([[1.0], [0.1], [0.1], [last]]), rtol=1e-15)


def test_answers_mix_local_and_global() -> None:
    """COPO: entropies 3/2, 0.811278, 0, 3/2 bits; a row of one wrong answer gets a common push down, GRPO none."""
    answers = [list("abcb"), list("aaab"), list("bbbb"), list("aabc")]
    found, _ = make("copo").score((), full(GOLDEN, answers=answers))
    weight = np.array([0.731059, 0.577197, 0.377541, 0.731059])[:, None]
    local = np.asarray(make("grpo").score((), full(GOLDEN))[0])
    ranks = np.array([-0.458825, 1.376475, -0.945513, 0.027863])[:, None]
    np.testing.assert_allclose(found, weight * local + (1 - weight) * ranks, rtol=0, atol=2e-6)
    assert np.ptp(found[2]) == 0 and found[2, 0] < -0.5 and not local[2].any()


def test_functions_keep_apart() -> None:
    """GDPO: totals 0, 1 and 0, 2 are one to GRPO; weights tell functions apart, and one that is silent adds nothing."""
    parts = np.array([[[0, 0], [1, 0]], [[0, 0], [1, 1]]], dtype=float)
    grpo = np.asarray(make("grpo", eps=0.0).score((), group_rewards(parts.sum(axis=2)))[0])
    assert np.ptp(np.abs(grpo)) < 1e-12
    groups = full(parts.sum(axis=2), components=parts)
    found, _ = make("gdpo", eps=0.0, batch_eps=0.0).score((), groups)
    np.testing.assert_allclose(found[1], 2 * found[0], rtol=1e-12)
    weighted, _ = make("gdpo", weights="1/3", eps=0.0, batch_eps=0.0).score((), groups)
    np.testing.assert_allclose(weighted[1], 4 * weighted[0], rtol=1e-12)
    with pytest.raises(InputError, match="weights must hold 2 numbers"):
        make("gdpo", weights="1").score((), groups)


def test_risk_of_bundles() -> None:
    """RiskPO's printed values at quantiles 1 and 4, both forms, with and without the constant."""
    score = np.arange(6.0)
    assert Bundles().risk(score, (1.0, 4.0)).tolist() == [-4.5, -3, -2, -1, 0, 0]
    plain = Bundles(form="code", eps=0.0).risk(score, (1.0, 4.0)) * np.std(score, ddof=1)
    np.testing.assert_allclose(plain, [-5, -2, -4 / 3, -2 / 3, 0, 0], atol=1e-12)
    free = Bundles(form="code", eps=0.0, constant=False).risk(score, (1.0, 4.0)) * np.std(score, ddof=1)
    np.testing.assert_allclose(free, [-3, 0, 2 / 3, 4 / 3, 2, 2], atol=1e-12)


def test_a_belief_follows_the_accuracy_at_its_own_pace() -> None:
    """HA-DW: to the first two batches' accuracies, 3/4 and 0, then by a spread of 3/8 towards 1, then sqrt(3/32)."""
    estimator = make("ha_dw")
    state, weight, beliefs = estimator.init(), estimator.chain[-1], []
    for rewards in ([[1, 1], [1, 0]], [[0, 0]], [[1, 1]], [[1, 1]]):
        state = estimator.update(state, group_rewards(np.array(rewards, dtype=float)))
        beliefs.append(float(weight.belief(state[-1])[0]))  # type: ignore[attr-defined]
    np.testing.assert_allclose(beliefs, [0.75, 0.0, 0.375, 0.375 + sqrt(3 / 32) * 0.625], rtol=1e-14)


@pytest.mark.parametrize("baseline", ["others", "fewer"])
@pytest.mark.parametrize(("n", "k"), [(4, 1), (4, 2), (5, 3), (6, 4), (4, 3)])
def test_sets_of_k_by_enumeration(n: int, k: int, baseline: str) -> None:
    """pass@k: the mean over all sets that hold a rollout, times k, less the baseline's, over every batch of counts."""
    found, _ = make("passk", k=k, baseline=baseline).score((), count_groups(n))
    for c in range(n + 1):
        rewards = [1] * c + [0] * (n - c)
        for i in range(n):
            others = [r for j, r in enumerate(rewards) if j != i]
            with_i = [max(rewards[i], *s, 0) for s in combinations(others, k - 1)]
            without = list(combinations(others, k)) if baseline == "others" else list(combinations(others, k - 1))
            base = Fraction(sum(max(*s, 0, 0) for s in without), len(without))
            expected = k * (Fraction(sum(with_i), comb(n - 1, k - 1)) - base)
            assert found[c, i] == pytest.approx(float(expected), abs=1e-12)


@pytest.mark.parametrize(("name", "power"), [("maxrl:eps=0", -1), ("maxrl:eps=0,all_fail=-1", 0)])
@pytest.mark.parametrize("size", [2, 3, 8])
def test_the_order_of_maxrl(name: str, power: int, size: int) -> None:
    """As shipped it is the log-likelihood's gradient cut after term G - 1; all_fail=-1 makes that G."""
    estimator, p = make(name), np.array([0.01, 0.3, 0.8])
    table = advantages_by_count(estimator, estimator.init(), count_groups(size), size)
    np.testing.assert_allclose(advantage_gap(table, p), (1 - (1 - p) ** (size + power)) / p, rtol=1e-12)


def test_thin_sets() -> None:
    """Groups too small for a set of k, a lone best answer, equal bundles: 0 and no more."""
    assert not np.any(make("passk", k=4).score((), group_rewards([[1.0, 0.0, 1.0, 0.0]]))[0])
    assert not np.any(make("grpo_passk").score((), group_rewards([[1.0]]))[0])
    assert not np.any(make("riskpo", form="code").score((), group_rewards([[1.0, 0.0], [0.0, 1.0]]))[0])
