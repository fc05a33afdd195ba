"""The contract: one battery for every registered estimator, so that a new one is covered by registering it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from battery import CASES, PRIOR, assert_close, build, full, history, leaves, rows
from ebpo_sim import InputError, count_groups, group_rewards, make, names
from ebpo_sim.estimators import Estimator
from ebpo_sim.estimators.shrinkage import Shrinkage
from ebpo_sim.groups import binary_groups
from strategies import BINARY, UNIT, Batch, batches

every = pytest.mark.parametrize("estimator", CASES.values(), ids=CASES.keys())
ORDERED = {n: e for n, e in CASES.items() if "rollout_order" in e.needs}
UNORDERED = {n: e for n, e in CASES.items() if n not in ORDERED}
COUNTED = {n: e for n, e in CASES.items() if e.exchangeable}
ZERO = ("grpo", "dr_grpo", "rloo", "opo", "optimal_token_baseline", "grpo_leave_one_out", "gpg", "adora")
LEARNT = {n: e for n, e in CASES.items() if isinstance(e.baseline, Shrinkage) and e.baseline.prior is None}


def scored(estimator: Estimator, state: Any, **arguments: Any) -> np.ndarray:
    """Advantages of one batch given as the arguments of `group_rewards`."""
    return np.asarray(estimator.score(state, group_rewards(**arguments))[0])


@pytest.mark.parametrize("estimator", UNORDERED.values(), ids=UNORDERED.keys())
@settings(max_examples=15)
@given(data=st.data())
def test_row_order_does_not_matter(estimator: Estimator, data: st.DataObject) -> None:
    """Permuting rows together with their ids permutes the advantages and leaves the next state alone."""
    past, now = (data.draw(batches(BINARY if estimator.domain == "binary" else UNIT)) for _ in range(2))
    order = np.array(data.draw(st.permutations(range(len(now.rewards)))))
    clusters = {f"p{i}": f"c{i % 2}" for i in range(5)}

    def arranged(b: Batch) -> Any:
        return full(b.rewards, b.ids, clusters=[clusters[i] for i in b.ids.tolist()])

    state = estimator.update(estimator.init(), arranged(past))
    plain, _, after = estimator.step(state, arranged(now))
    shuffled, _, after_shuffled = estimator.step(state, arranged(Batch(now.rewards[order], now.ids[order])))
    np.testing.assert_allclose(shuffled, plain[order], rtol=1e-9, atol=1e-9)
    assert_close(after, after_shuffled)


@pytest.mark.parametrize("estimator", ORDERED.values(), ids=ORDERED.keys())
def test_rules_that_need_the_order_depend_on_it(estimator: Estimator) -> None:
    """KRPO, RiskPO: the same rollouts in another order get other advantages, so the need is no formality."""
    assert {e.name for e in ORDERED.values()} == {"krpo", "riskpo"}
    rewards, shuffled = [[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0]], [1, 0, 2, 3]
    plain = scored(estimator, (), rewards=rewards)
    other = scored(estimator, (), rewards=[rewards[0], [rewards[1][i] for i in shuffled]])
    assert np.max(np.abs(np.sort(plain, axis=1) - np.sort(other, axis=1))) > 0.05


@every
@pytest.mark.parametrize("junk", [np.nan, np.inf, -7.5, 1e9])
def test_masked_rollouts_do_not_count(estimator: Estimator, junk: float) -> None:
    """A masked rollout gets 0 and changes nothing, whatever its reward; nor does a group with none left."""
    state, clean = history(estimator, 1), rows(estimator, 2)
    new_id = clean["group_ids"].max() + 1
    extra = {
        "rewards": np.array([junk, junk, junk]),
        "group_ids": np.array([clean["group_ids"][0], new_id, new_id]),
        "lengths": np.array([3, 5, 0]),
        "score_norms": np.array([0.3, 0.0, 1e9]),
        "answers": np.array([7, 8, 9]),
        "greedy": np.array([clean["greedy"][0], 1, 1]),
        "components": np.array([[np.nan, 7.0], [5.0, 5.0], [-3.0, np.nan]]),
        "clusters": np.array([clean["clusters"][0]] * 3),
    }
    dirty = {name: np.concatenate([values, extra[name]]) for name, values in clean.items()}
    order = np.arange(len(dirty["rewards"]))
    if "rollout_order" not in estimator.needs:
        order = np.random.default_rng(5).permutation(order)
    mask = order < len(clean["rewards"])
    groups = group_rewards(**{name: values[order] for name, values in dirty.items()}, mask=mask)
    ours, _, after = estimator.step(state, groups)
    expected, _, expected_after = estimator.step(state, group_rewards(**clean))
    assert np.all(ours[~mask] == 0)
    np.testing.assert_allclose(ours[mask], expected[order[mask]], rtol=1e-10, atol=1e-12)
    assert_close(after, expected_after)


@every
def test_masked_cluster_leaves_no_trace(estimator: Estimator) -> None:
    """A cluster of which only masked rollouts were seen is an unseen cluster to the next batch."""
    clean = rows(estimator, 3)
    ghost = {"rewards": [0.0, 1.0], "group_ids": [-1, -1], "lengths": [1, 1], "score_norms": [1, 1]}
    ghost |= {"clusters": ["logic", "logic"], "answers": [1, 2], "greedy": [1, 1], "components": [[0.0, 1.0]] * 2}
    dirty = {name: np.concatenate([values, ghost[name]]) for name, values in clean.items()}
    mask = dirty["clusters"] != "logic"
    state = estimator.update(estimator.init(), group_rewards(**clean))
    haunted = estimator.update(estimator.init(), group_rewards(**dirty, mask=mask))
    later = {**rows(estimator, 4), "clusters": np.array(["logic"] * len(clean["rewards"]))}
    np.testing.assert_allclose(scored(estimator, haunted, **later), scored(estimator, state, **later), rtol=1e-10)


@every
def test_replicates_are_separate_runs(estimator: Estimator) -> None:
    """A leading axis advances independent replicates: each slice is the run it would have been alone."""
    rng = np.random.default_rng(3)
    values = (0.0, 1.0) if estimator.domain == "binary" else (0.0, 0.1, 0.35, 0.95, 1.0)
    clusters = ["a", "b", "b", "a", "a"]
    seen = [(rng.choice(values, (3, 5, 4)), rng.random((3, 5, 4)) < 0.8) for _ in range(3)]
    state, alone = estimator.init(), [estimator.init() for _ in range(3)]
    for rewards, mask in seen:
        together, _, state = estimator.step(state, full(rewards, mask=mask, clusters=clusters))
        for r in range(3):
            single = full(rewards[r], mask=mask[r], clusters=clusters)
            expected, _, alone[r] = estimator.step(alone[r], single)
            np.testing.assert_allclose(together[r], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("estimator", COUNTED.values(), ids=COUNTED.keys())
@pytest.mark.parametrize("ragged", [False, True])
def test_multiplicity_stands_for_copies(estimator: Estimator, ragged: bool) -> None:
    """Groups counted by multiplicity give the state, baselines and advantages of the batch written out."""
    sizes = np.array([1, 2, 2, 5, 5, 3]) if ragged else np.full(5, 4)
    hits = np.array([1, 0, 1, 2, 5, 1]) if ragged else np.arange(5)
    copies = np.array([1, 3, 1, 5, 0, 4]) if ragged else np.array([3, 0, 2, 1, 4])
    short = binary_groups(sizes, hits, copies) if ragged else count_groups(4, copies)
    long = binary_groups(np.repeat(sizes, copies), np.repeat(hits, copies))
    start = estimator.update(estimator.init(), binary_groups([4, 4, 2, 4], [0, 4, 1, 3]))
    states = [estimator.update(start, groups) for groups in (short, long)]
    assert_close(*states)
    (a, said, _), (b, expected, _) = (estimator.step(start, groups) for groups in (short, long))
    shape = short.rewards_PG.shape
    baseline = np.repeat(np.broadcast_to(said.baseline_PG, shape), copies, axis=0)
    live = long.mask_PG
    width = long.rewards_PG.shape[1]
    wanted = np.broadcast_to(expected.baseline_PG, long.rewards_PG.shape)
    np.testing.assert_allclose(baseline[:, :width][live], wanted[live], rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(np.repeat(a, copies, axis=0)[:, :width], b, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("estimator", COUNTED.values(), ids=COUNTED.keys())
def test_groups_counted_zero_times_leave_no_trace(estimator: Estimator) -> None:
    """A batch of which nothing counts is no batch: the next one is scored as if it had not been."""
    now, start = binary_groups([4, 2], [1, 1]), estimator.init()
    nothing = estimator.update(start, binary_groups([4, 3], [1, 2], [0, 0]))
    (ours, said), (expected, plain) = estimator.score(nothing, now), estimator.score(start, now)
    np.testing.assert_allclose(ours, expected, rtol=1e-12)
    np.testing.assert_allclose(said.baseline_PG, plain.baseline_PG, rtol=1e-12)


@pytest.mark.parametrize("estimator", LEARNT.values(), ids=LEARNT.keys())
@pytest.mark.parametrize("sizes", [(1, 1, 1), (1, 3, 5), (4, 4, 4)], ids=str)
def test_a_constant_history_has_no_spread(estimator: Estimator, sizes: tuple[int, ...]) -> None:
    """Ten batches of 0.1 only teach what ten batches of 0 teach; rounding is neither a variance nor a divisor."""
    ids, found = np.repeat(np.arange(len(sizes)), sizes), []
    now = np.array([0.0, 0.25, 0.5, 0.25, 0.25, 0.0])
    for value in (0.0, 0.1):
        state = estimator.init()
        for end in (1, 2, 3) * 3 + (3,):  # batches of different lengths
            seen = ids < end
            groups = group_rewards(np.full(seen.sum(), value), ids[seen], clusters=["a"] * seen.sum())
            state = estimator.update(state, groups)
        found.append(scored(estimator, state, rewards=now + value, group_ids=[0, 0, 0, 1, 1, 2], clusters=["a"] * 6))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", [*ZERO])
@pytest.mark.parametrize("value", [0.1, 0.35, 0.95, 1 / 3, -1e8 / 3])
def test_degenerate_groups_are_exactly_zero(name: str, value: float) -> None:
    """No group-relative signal without a difference: 0 and not rounding noise, even at eps 0."""
    estimator = make(name, eps=0.0) if name in ("grpo", "grpo_leave_one_out") else make(name)
    for size in range(1, 12):
        weights = {name: np.arange(1.0, size + 3) for name in ("lengths", "score_norms")}
        groups = full([value] * size + [0.0, 1.0], ["same"] * size + ["mixed"] * 2, **weights)
        advantages, info = estimator.score((), groups)
        assert advantages[:size].tolist() == [0.0] * size
        assert np.all(advantages[size:] != 0)
        assert info.degenerate_P.tolist() == [True, False]


@every
@pytest.mark.parametrize("shape", ["lone", "all lone", "one group", "all fail", "all pass"])
def test_thin_batches_are_defined(estimator: Estimator, shape: str) -> None:
    """One rollout, groups of one, one prompt, constant batches: finite without and with a history, no warning."""
    rewards, ids = {
        "lone": ([1.0], [0]),
        "all lone": ([1.0, 0.0, 1.0], [0, 1, 2]),
        "one group": ([1.0, 0.0, 0.0], [0, 0, 0]),
        "all fail": ([0.0, 0.0, 0.0, 0.0], [0, 1, 1, 1]),
        "all pass": ([1.0, 1.0, 1.0, 1.0], [0, 1, 1, 1]),
    }[shape]
    groups = full(rewards, ids, clusters=["new"] * len(ids))
    for state in (estimator.init(), history(estimator, 1, 2), estimator.update(estimator.init(), groups)):
        advantages, info, after = estimator.step(state, groups)
        assert np.all(np.isfinite(advantages))
        assert np.all(np.isfinite(info.baseline_PG))
        assert all(np.all(np.isfinite(v)) for v in leaves(after).values())


def test_unknown_names_and_settings_are_explained() -> None:
    """Typing errors get near names; oracles say what they need."""
    with pytest.raises(InputError, match="unknown estimator 'grpp': did you mean 'grpo'"):
        make("grpp")
    with pytest.raises(InputError, match="'RLOO': did you mean 'rloo'"):
        make("RLOO")
    with pytest.raises(InputError, match=r"known: .*dr_grpo"):
        make("zzzzzz")
    with pytest.raises(InputError, match="unknown setting of ebpo 'memroy': did you mean 'memory'"):
        make("ebpo", memroy=0.9)
    for name in ("oracle_linear", "oracle_bayes"):
        with pytest.raises(InputError, match=f"'{name}' needs prior"):
            make(name)
    assert {"grpo", "rloo", "ebpo", "ebpo_debiased", "oracle_linear"} <= set(names())


@pytest.mark.parametrize("name", [n for n in names() if build(n).domain != "real"])
def test_rewards_outside_the_domain_are_refused(name: str) -> None:
    """By scoring and by learning, naming the estimator, the value and a way out; masked values may be anything."""
    estimator = build(name)
    bad = 0.5 if estimator.domain == "binary" else 1.5
    needs = r"\{0, 1\}" if estimator.domain == "binary" else r"\[0, 1\]"
    for method in (estimator.score, estimator.update):
        with pytest.raises(InputError, match=rf"{name} needs rewards in {needs}, got .*{bad}.*: .* ebpo_debiased"):
            method(estimator.init(), full([[1.0, bad]]))
        method(estimator.init(), full([[1.0, bad]], mask=[[True, False]]))


def test_the_battery_covers_every_domain() -> None:
    """The skips and parameter lists above are not empty by accident."""
    assert {e.domain for e in CASES.values()} == {"real", "unit", "binary"}
    assert PRIOR.between > 0
