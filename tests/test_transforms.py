"""Chains of transforms: each step's formula, what it needs, the order of learning, and states of several memories."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from battery import CASES, batch, history, rows
from ebpo_sim import InputError, group_rewards, make
from ebpo_sim.estimators import (
    Centre,
    Estimator,
    Rank,
    Reweigh,
    Scale,
    Subtract,
    Whiten,
    baseline_table,
    dump_state,
    load_state,
)
from ebpo_sim.estimators.group_mean import GroupMean
from ebpo_sim.estimators.shrinkage import Shrinkage
from ebpo_sim.estimators.transforms import Advantages, Evaluation, StatelessBaseline

every = pytest.mark.parametrize("estimator", CASES.values(), ids=CASES.keys())
REWARDS = hnp.arrays(np.float64, (3, 5), elements=st.floats(-3, 3, allow_subnormal=False).map(lambda x: round(x, 3)))


def chain(*steps: Any) -> Estimator:
    return Estimator("tried", tuple(steps))


@given(rewards=REWARDS)
def test_rank_counts_the_smaller_and_the_larger(rewards: np.ndarray) -> None:
    """Each value by counting; sums of a group are 0; any increasing map of the rewards changes nothing."""
    ranked, info = chain(Rank()).score((), group_rewards(rewards))
    for group, found in zip(rewards, ranked, strict=True):
        for r, value in zip(group, found, strict=True):
            assert value == pytest.approx((np.sum(group < r) - np.sum(group > r)) / 5, abs=1e-15)
    np.testing.assert_allclose(ranked.sum(axis=1), 0, atol=1e-14)
    np.testing.assert_array_equal(chain(Rank()).score((), group_rewards(np.exp(rewards)))[0], ranked)
    assert info.baseline_PG is None


@given(hits=hnp.arrays(np.bool_, (4, 6)))
def test_rank_of_binary_rewards_is_dr_grpo(hits: np.ndarray) -> None:
    """(n-k)/n for the right and -k/n for the wrong is r minus the group mean."""
    groups = group_rewards(hits)
    np.testing.assert_allclose(chain(Rank()).score((), groups)[0], make("dr_grpo").score((), groups)[0], atol=1e-15)


def test_masked_rollouts_have_no_rank() -> None:
    groups = group_rewards([[1.0, 5.0, 0.0, 1.0]], mask=[[True, False, True, True]])
    np.testing.assert_allclose(chain(Rank()).score((), groups)[0], [[1 / 3, 0.0, -2 / 3, 1 / 3]])


@given(rewards=REWARDS, positive=st.floats(0, 3), negative=st.floats(0, 3))
def test_reweighing_scales_the_two_signs_apart(rewards: np.ndarray, positive: float, negative: float) -> None:
    groups, plain = group_rewards(rewards), (Subtract(GroupMean()),)
    before = chain(*plain).score((), groups)[0]
    after = chain(*plain, Reweigh(positive, negative)).score((), groups)[0]
    np.testing.assert_array_equal(after, np.where(before > 0, positive, negative) * before)


@given(rewards=REWARDS)
def test_whitening_is_centring_and_scaling(rewards: np.ndarray) -> None:
    """One step and two agree up to rounding, and the result has mean 0 and, eps aside, spread 1."""
    groups, head = group_rewards(rewards), Subtract(GroupMean())
    one = chain(head, Whiten(1, 0.0)).score((), groups)[0]
    two = chain(head, Centre(), Scale("batch", 1, 0.0)).score((), groups)[0]
    if np.ptp(chain(head).score((), groups)[0]) < 1e-6:
        return
    np.testing.assert_allclose(one, two, rtol=1e-9, atol=1e-9)
    assert np.mean(one) == pytest.approx(0, abs=1e-12)
    assert np.std(one, ddof=1) == pytest.approx(1, rel=1e-12)


@every
def test_turn_is_the_order(estimator: Estimator) -> None:
    """`turn` gives the state to score with and the next; `step` is nothing but it; only there do the orders differ."""
    state, groups = history(estimator, 1), batch(estimator, 2)
    scoring, learnt = estimator.turn(state, groups)
    advantages, _, after = estimator.step(state, groups)
    assert after is not state or not estimator.init()
    np.testing.assert_array_equal(advantages, estimator.score(scoring, groups)[0])
    updated = estimator.update(state, groups)
    assert repr(learnt) == repr(updated) == repr(after)
    assert repr(scoring) == repr(updated if estimator.order == "update_then_score" else state)


@every
def test_the_baseline_is_that_of_the_score(estimator: Estimator) -> None:
    """`baseline_of` is what `score` subtracts."""
    state, groups = history(estimator, 1), batch(estimator, 2)
    evaluation = estimator.baseline_of(state, groups)
    assert evaluation is not None
    np.testing.assert_array_equal(evaluation.baseline_PG, estimator.score(state, groups)[1].baseline_PG)


def test_a_rule_without_a_baseline_says_so() -> None:
    ranked = chain(Rank())
    assert ranked.baseline is None and ranked.baseline_of((), group_rewards([[1.0, 0.0]])) is None
    with pytest.raises(InputError, match="subtracts no baseline"):
        baseline_table(ranked, (), 4)
    with pytest.raises(InputError, match="subtracts no baseline"):
        ranked.with_baseline(memory=0.9)


FIELDS = {name: name for name in ("clusters", "lengths", "score_norms", "answers", "components")}
FIELDS["greedy_reward"] = "greedy"


@every
def test_what_is_needed_is_declared(estimator: Estimator) -> None:
    """Without what it declares an estimator refuses, naming it; without the rest it works."""
    needed = {FIELDS[n] for n in estimator.needs if n in FIELDS}
    given_rows = rows(estimator, 2)
    bare = {k: v for k, v in given_rows.items() if k in {"rewards", "group_ids"} | needed}
    state = history(estimator, 1)
    estimator.step(state, group_rewards(**bare))
    for name in needed:
        without = {k: v for k, v in bare.items() if k != name}
        with pytest.raises(InputError, match=name):
            estimator.step(state, group_rewards(**without))


def test_some_need_something() -> None:
    assert {n for e in CASES.values() for n in e.needs} >= {"clusters", "lengths", "binary_rewards"}


class Seen(NamedTuple):
    """What `Damp` remembers."""

    batches: float = 0.0
    shift: float = 0.0  # may be negative


@dataclass(frozen=True)
class Damp:
    """Divides by how many batches were seen: a second memory in one chain."""

    domain = "real"
    needs = frozenset()

    def init(self) -> Seen:
        return Seen()

    def observe(self, groups: Any) -> Seen:
        return Seen(1.0, -0.5)

    def forget(self, state: Seen) -> Seen:
        return state

    def merge(self, a: Seen, b: Seen) -> Seen:
        return Seen(a.batches + b.batches, a.shift + b.shift)

    def apply(self, state: Seen, advantages: Advantages, groups: Any) -> Advantages:
        return advantages._replace(values_PG=advantages.values_PG / (1 + state.batches))


def test_two_memories_live_side_by_side_and_are_saved() -> None:
    """A chain of a user's own NamedTuple state and EBPO's: both advance, merge, and come back from text to the bit."""
    estimator = chain(Subtract(Shrinkage()), Damp())
    state = history(estimator, 1, 2, 3)
    assert state[1] == Seen(3.0, -1.5)
    assert load_state(estimator, dump_state(estimator, state)) == state
    alone = chain(Subtract(Shrinkage()))
    plain, _ = alone.score(history(alone, 1, 2, 3), batch(alone, 4))
    np.testing.assert_allclose(estimator.score(state, batch(estimator, 4))[0], plain / 4, rtol=1e-15)
    merged = estimator.merge(history(estimator, 1), history(estimator, 2))
    assert merged[1] == Seen(2.0, -1.0)


class Zero(StatelessBaseline):
    def evaluate(self, state: Any, groups: Any) -> Evaluation:
        return Evaluation(np.zeros((*groups.size_P.shape, 1)))


BAD: dict[str, Any] = {
    "tuple of transforms": lambda: Estimator("x", ()),
    "order must be": lambda: Estimator("x", (Rank(),), "sideways"),  # type: ignore[arg-type]
    "by must be": lambda: Scale("median"),  # type: ignore[arg-type]
    "eps must be >= 0": lambda: Whiten(eps=-1.0),
    "positive and negative": lambda: Reweigh(-1.0),
    "weights must be": lambda: Centre("letters"),  # type: ignore[arg-type]
    "start with init": lambda: chain(Subtract(Shrinkage())).score((), group_rewards([[1.0, 0.0]])),
    "is dict": lambda: chain(Subtract(Zero())).score({}, group_rewards([[1.0, 0.0]])),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("words", BAD)
def test_impossible_chains_and_states_are_refused(words: str) -> None:
    with pytest.raises(InputError, match=words):
        BAD[words]()
