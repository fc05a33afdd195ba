"""The leave-one-out table: by hand, its fallbacks, and that no function of the others' successes is better."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from battery import full
from ebpo_sim import InputError, make
from ebpo_sim.counts.exact import limit_risk
from ebpo_sim.groups import Groups, group_rewards
from ebpo_sim.numbers.mixing import Prior, count_pmf
from ebpo_sim.worlds import Beta, Points
from test_golden import GOLDEN, spread
from test_theorems import close, moments, worlds

Array = NDArray[np.float64]


def told(name: str, seen: list[Groups], now: Groups) -> Array:
    """The baselines of a batch after those seen."""
    estimator = make(name)
    state = estimator.init()
    for groups in seen:
        state = estimator.update(state, groups)
    return np.broadcast_to(estimator.baseline_of(state, now).baseline_PG, now.rewards_PG.shape)


def test_golden_batch_seen_twice() -> None:
    """f(0..3) = 1/5, 2/5, 3/5, 0: of the rows whose others had k successes, the share that was right."""
    estimator = make("loo_table")
    first, _, state = estimator.step(estimator.init(), full(GOLDEN))
    np.testing.assert_allclose(first, make("rloo").score((), full(GOLDEN))[0], rtol=1e-15)
    again, _, _ = estimator.step(state, full(GOLDEN))
    expected = spread((4 / 5, -2 / 5), (2 / 5, 0), (0, -1 / 5), (3 / 5, -3 / 5))
    np.testing.assert_allclose(again, expected, rtol=1e-14)


def test_weights_by_hand() -> None:
    """Each weight is that of its own rollout; lengths and score norms of the same size teach the same."""
    size = np.array([[2.0, 1.0], [5.0, 3.0], [1.0, 1.0]])
    rewards = [[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]]
    for name, column in (("length", "lengths"), ("score", "score_norms")):
        seen = full(rewards, **{column: size})
        found = told(f"loo_table:weights={name}", [seen], full([[1.0, 0.0]]))
        # others failed: the right row (2) and the second group (8); others right: the wrong row (1), the last two (2)
        np.testing.assert_allclose(found, [[2 / 10, 2 / 3]], rtol=1e-15)
        scaled = full(rewards, **{column: 1e-9 * size})
        np.testing.assert_allclose(told(f"loo_table:weights={name}", [scaled], full([[1.0, 0.0]])), found, rtol=1e-14)


def test_cells_that_were_not_seen() -> None:
    """Guards the fallbacks: cell, the cell of all clusters, constant of the size, of all sizes, the others' mean."""
    now = full([[1.0, 0.0, 0.0]])
    assert told("loo_table", [], now) == pytest.approx(np.array([[0.0, 0.5, 0.5]]), abs=1e-15)
    assert told("loo_table", [], full([[1.0]])).tolist() == [[1.0]]
    lone = full([[1.0], [0.0], [0.0], [0.0]])
    assert told("loo_table", [lone], full([[1.0]])).tolist() == [[0.25]]
    assert told("loo_table", [lone], now).tolist() == [[0.25] * 3]
    passed = full([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]])  # cells 1 and 2 of size 3: 1 and 3/4
    assert told("loo_table", [lone, passed], now).tolist() == [[5 / 6, 1.0, 1.0]]
    failed = full([[0.0, 0.0, 0.0]] * 2, clusters=["b", "b"])
    both = told("loo_table:per_cluster=true", [passed, failed], full([[0.0, 0.0, 0.0], [0.0, 1.0, 1.0]]))
    assert both.tolist() == [[0.0, 0.0, 0.0], [0.75, 1.0, 1.0]]  # of cluster a no group with k = 0, so that of b
    strangers = told("loo_table:per_cluster=true", [passed, failed], full([[0.0, 0.0, 0.0]], clusters=["c"]))
    assert strangers.tolist() == [[0.0, 0.0, 0.0]]
    weightless = full([[1.0, 0.0, 0.0]], score_norms=np.zeros((1, 3)))
    assert told("loo_table:weights=score", [weightless], now) == pytest.approx(np.array([[0.0, 0.5, 0.5]]), abs=1e-15)


def test_clusters_have_tables_of_their_own() -> None:
    """Each cluster's cells are those of its groups alone; beyond the bound a cluster takes those of all."""
    seen = full([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]], clusters=["a", "b", "a"])
    now = full([[0.0, 0.0], [0.0, 0.0]], clusters=["a", "b"])
    assert told("loo_table:per_cluster=true", [seen], now).tolist() == [[1 / 3, 1 / 3]] * 2
    now = full([[1.0, 1.0], [1.0, 1.0]], clusters=["a", "b"])
    assert told("loo_table:per_cluster=true", [seen], now).tolist() == [[0.0, 0.0], [1.0, 1.0]]


def test_what_it_needs_and_refuses() -> None:
    """Guards the refusals: weights that the batch has not, and rewards between 0 and 1."""
    needs = {text: make(f"loo_table:{text}").needs for text in ("weights=length", "weights=score", "per_cluster=true")}
    assert [set(n) - {"binary_rewards"} for n in needs.values()] == [{"lengths"}, {"score_norms"}, {"clusters"}]
    with pytest.raises(InputError, match="needs lengths: pass lengths="):
        told("loo_table:weights=length", [group_rewards([[1.0, 0.0]])], full([[1.0]]))
    with pytest.raises(InputError, match=r"needs score_norms: pass score_norms=.*weights=length needs only lengths"):
        told("loo_table:weights=score", [group_rewards([[1.0, 0.0]])], full([[1.0]]))
    with pytest.raises(InputError, match="memory must be"):
        make("loo_table", memory=1.5)


sizes = st.integers(1, 16)
priors = worlds() | st.builds(Beta, st.floats(0.1, 5), st.floats(0.1, 5))


@given(priors, sizes)
def test_no_rule_of_the_others_has_a_lower_error(world: Points | Beta, group_size: int) -> None:
    """In the limit the table is E[p | k of G-1], by sums of its own; no leave-one-out rule has a lower error, for any
    prior, and under a Beta prior the best line of the others, which is that posterior mean, has the same."""
    found = limit_risk(make("loo_table"), world, group_size)
    prior = world.quadrature(2 * group_size + 4)
    p, weights = np.asarray(prior.nodes), np.asarray(prior.weights)
    joint = weights[:, None] * count_pmf(p, group_size - 1, np.arange(group_size))
    seen = joint.sum(axis=0)
    posterior = p @ joint / np.where(seen > 0, seen, 1.0)
    assert math.isclose(found.mse, np.sum(joint * (posterior - p[:, None]) ** 2), rel_tol=1e-9, abs_tol=1e-12)
    assert abs(found.bias) < 1e-9
    line = "ebpo_debiased:leave_one_out=true"
    for name in ("james_stein", line, "global_mean", "reinforce:baseline=0.5", *(["rloo"] if group_size > 1 else [])):
        assert found.mse <= limit_risk(make(name), world, group_size).mse * (1 + 1e-9) + 1e-12, name
    if isinstance(world, Beta):
        assert math.isclose(found.mse, limit_risk(make(line), world, group_size).mse, rel_tol=1e-7)


@given(worlds(), st.integers(1, 5), st.data())
def test_score_weights_give_the_least_noise(world: Points, group_size: int, data: st.DataObject) -> None:
    """E[W (r - g)^2] = E[W (r - f)^2] + E[W (g - f)^2] for every g of k, W any function of prompt and verdict."""
    prior: Prior = world.prior
    p, weights = np.asarray(prior.nodes), np.asarray(prior.weights)
    norms = st.lists(st.floats(0.01, 10), min_size=len(p), max_size=len(p))
    norm_R = np.array([data.draw(norms), data.draw(norms)])  # of a wrong answer and a right one, by prompt
    counts = np.arange(group_size + 1)
    rewards = np.tile(counts[:, None] > np.arange(group_size), (len(p), 1)).astype(float)
    which = np.repeat(np.arange(len(p)), group_size + 1)
    score_norms = np.where(rewards == 1, norm_R[1][which, None], norm_R[0][which, None])
    chance = (weights[:, None] * count_pmf(p, group_size, counts)).ravel()
    groups = group_rewards(rewards, score_norms=score_norms, multiplicity=chance)
    f = np.array([told("loo_table:weights=score", [groups], group_rewards((np.arange(group_size) < k)[None] * 1.0,
                  score_norms=np.ones((1, group_size))))[0, -1] for k in range(group_size)])  # fmt: skip
    pmf = weights[:, None] * count_pmf(p, group_size - 1, np.arange(group_size))  # the others, by prompt

    def noise(g: Array) -> float:
        return float(np.sum(pmf * (p[:, None] * norm_R[1][:, None] * (1 - g) ** 2
                                   + (1 - p)[:, None] * norm_R[0][:, None] * g**2)))  # fmt: skip

    weight = pmf * (p * norm_R[1] + (1 - p) * norm_R[0])[:, None]
    for g in (np.array(data.draw(st.lists(st.floats(-1, 2), min_size=group_size, max_size=group_size))),
              np.arange(group_size) / max(group_size - 1, 1)):  # fmt: skip
        assert math.isclose(noise(g), noise(f) + float(np.sum(weight * (g - f) ** 2)), rel_tol=1e-9, abs_tol=1e-12)


@pytest.mark.parametrize("name", ["loo_table", "loo_table:weights=score", "reinforce:baseline=0.3", "rloo"])
@pytest.mark.parametrize("group_size", [2, 3])
def test_the_gradient_is_unbiased_whatever_was_learnt(name: str, group_size: int) -> None:
    """All groups of a softmax bandit enumerated: E[mean of A grad log pi] = grad p, with any table in the state."""
    pi = np.array([0.2, 0.5, 0.3])  # the first arm is right
    estimator = make(name)
    norm = 1 - 2 * pi + np.sum(pi**2)
    past = np.random.default_rng(3).integers(0, 3, (6, group_size))
    state = estimator.update(estimator.init(), full((past == 0) * 1.0, score_norms=norm[past]))
    actions = np.array(list(itertools.product(range(3), repeat=group_size)))
    groups: Any = full((actions == 0) * 1.0, score_norms=norm[actions])
    advantages, _ = estimator.score(state, groups)
    score = np.eye(3)[actions] - pi
    found = np.einsum("n,ng,ngk->k", np.prod(pi[actions], axis=1), advantages, score) / group_size
    np.testing.assert_allclose(found, pi[0] * (np.eye(3)[0] - pi), rtol=0, atol=1e-15)


@given(worlds())
def test_groups_of_one_take_the_running_mean(world: Points) -> None:
    """k is always 0 there: the table is the mean reward, whose error is the variance between prompts."""
    assert close(limit_risk(make("loo_table"), world, 1).mse, moments(world)[1])
