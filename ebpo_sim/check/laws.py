"""The laws of the contract: each takes an estimator and raises AssertionError, or what breaks, where it is broken."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from ebpo_sim.check.batches import assert_close, assert_same, batch, full, history, leaves, require, rows
from ebpo_sim.errors import InputError
from ebpo_sim.estimators import Estimator, Info, dump_state, load_state
from ebpo_sim.groups import binary_groups, count_groups, group_rewards

JUNK = (np.nan, np.inf, -7.5, 1e9)
THIN = {  # rewards and ids of batches that teach next to nothing
    "lone": ([1.0], [0]),
    "all lone": ([1.0, 0.0, 1.0], [0, 1, 2]),
    "one group": ([1.0, 0.0, 0.0], [0, 0, 0]),
    "all fail": ([0.0, 0.0, 0.0, 0.0], [0, 1, 1, 1]),
    "all pass": ([1.0, 1.0, 1.0, 1.0], [0, 1, 1, 1]),
}


def scored(estimator: Estimator, state: Any, **arguments: Any) -> Any:
    """Advantages of one batch given as the arguments of `group_rewards`."""
    return np.asarray(estimator.score(state, group_rewards(**arguments))[0])


def baseline_of(info: Info) -> Any:
    """What was subtracted; 0 for a rule that names nothing."""
    return 0.0 if info.baseline_PG is None else np.asarray(info.baseline_PG)


def masked_rollouts(estimator: Estimator) -> None:
    """A masked rollout gets 0 and changes nothing, whatever its reward; nor does a group with none left."""
    for junk in JUNK:
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
        require(bool(np.all(ours[~mask] == 0)), "a masked rollout has an advantage")
        np.testing.assert_allclose(ours[mask], expected[order[mask]], rtol=1e-10, atol=1e-12)
        assert_close(after, expected_after)


def masked_clusters(estimator: Estimator) -> None:
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


def replicates(estimator: Estimator) -> None:
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


def multiplicity(estimator: Estimator) -> None:
    """Groups counted by multiplicity give the state, baselines and advantages of the batch written out."""
    if not estimator.exchangeable:
        return
    for ragged in (False, True):
        sizes = np.array([1, 2, 2, 5, 5, 3]) if ragged else np.full(5, 4)
        hits = np.array([1, 0, 1, 2, 5, 1]) if ragged else np.arange(5)
        copies = np.array([1, 3, 1, 5, 0, 4]) if ragged else np.array([3, 0, 2, 1, 4])
        short = binary_groups(sizes, hits, copies) if ragged else count_groups(4, copies)
        long = binary_groups(np.repeat(sizes, copies), np.repeat(hits, copies))
        start = estimator.update(estimator.init(), binary_groups([4, 4, 2, 4], [0, 4, 1, 3]))
        states = [estimator.update(start, groups) for groups in (short, long)]
        assert_close(states[0], states[1])
        (a, said, _), (b, expected, _) = (estimator.step(start, groups) for groups in (short, long))
        shape = short.rewards_PG.shape
        baseline = np.repeat(np.broadcast_to(baseline_of(said), shape), copies, axis=0)
        live = long.mask_PG
        width = long.rewards_PG.shape[1]
        wanted = np.broadcast_to(baseline_of(expected), long.rewards_PG.shape)
        np.testing.assert_allclose(baseline[:, :width][live], wanted[live], rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(np.repeat(a, copies, axis=0)[:, :width], b, rtol=1e-11, atol=1e-12)


def groups_counted_zero_times(estimator: Estimator) -> None:
    """A batch of which nothing counts is no batch: the next one is scored as if it had not been."""
    if not estimator.exchangeable:
        return
    now, start = binary_groups([4, 2], [1, 1]), estimator.init()
    nothing = estimator.update(start, binary_groups([4, 3], [1, 2], [0, 0]))
    (ours, said), (expected, plain) = estimator.score(nothing, now), estimator.score(start, now)
    np.testing.assert_allclose(ours, expected, rtol=1e-12)
    np.testing.assert_allclose(baseline_of(said), baseline_of(plain), rtol=1e-12)


def thin_batches(estimator: Estimator) -> None:
    """One rollout, groups of one, one prompt, constant batches: finite without and with a history, no warning."""
    for shape in THIN:
        rewards, ids = THIN[shape]
        groups = full(rewards, ids, clusters=["new"] * len(ids))
        for state in (estimator.init(), history(estimator, 1, 2), estimator.update(estimator.init(), groups)):
            advantages, info, after = estimator.step(state, groups)
            finite = all(np.all(np.isfinite(v)) for v in (advantages, baseline_of(info), *leaves(after).values()))
            require(finite, f"not finite for {shape}")


def pickling(estimator: Estimator) -> None:
    """Workers get estimators by pickle: equal, with equal hash, and the state to the last bit."""
    copy, state = pickle.loads(pickle.dumps(estimator)), history(estimator, 1, 2)
    require(copy == estimator and hash(copy) == hash(estimator), "the copy is not equal")
    assert_same(pickle.loads(pickle.dumps(state)), state)


def merging(estimator: Estimator) -> None:
    """Identity and commutativity to the last bit, associativity up to rounding."""
    a, b, c = history(estimator, 1), history(estimator, 2, 3), history(estimator, 4)
    assert_same(estimator.merge(estimator.init(), a), a)
    assert_same(estimator.merge(a, estimator.init()), a)
    assert_same(estimator.merge(a, b), estimator.merge(b, a))
    assert_close(estimator.merge(estimator.merge(a, b), c), estimator.merge(a, estimator.merge(b, c)))
    one, other = (
        estimator.update(
            estimator.init(), group_rewards(**{n: v[arguments["clusters"] == topic] for n, v in arguments.items()})
        )
        for topic, arguments in (("geometry", rows(estimator, 5)), ("algebra", rows(estimator, 6)))
    )
    assert_same(estimator.merge(one, other), estimator.merge(other, one))


def two_workers(estimator: Estimator) -> None:
    """Updates of two halves, merged, are the update of the whole: distributed training sees the same prior."""
    left, right = rows(estimator, 1), rows(estimator, 2)
    whole = {name: np.concatenate([left[name], right[name]]) for name in left}
    start = estimator.init()
    merged = estimator.merge(*(estimator.update(start, group_rewards(**half)) for half in (left, right)))
    assert_close(merged, estimator.update(start, group_rewards(**whole)))


def checkpoints(estimator: Estimator) -> None:
    """Saved and restored after two batches, a run goes on exactly as if it had never stopped."""
    state = history(estimator, 1, 2)
    resumed = load_state(estimator, dump_state(estimator, state))
    assert_same(resumed, state)
    for seed in (3, 4):
        groups = batch(estimator, seed)
        expected, _, state = estimator.step(state, groups)
        ours, _, resumed = estimator.step(resumed, groups)
        np.testing.assert_array_equal(ours, expected, strict=True)
        assert_same(resumed, state)


def instances(estimator: Estimator) -> None:
    """Nothing is kept outside the state: a twin working in between changes nothing."""
    alone, _, _ = estimator.step(history(estimator, 1), batch(estimator, 2))
    twin: Estimator = pickle.loads(pickle.dumps(estimator))
    state, other = estimator.init(), twin.init()
    for seed in (7, 8):
        _, _, other = twin.step(other, batch(twin, seed))
    state = estimator.update(state, batch(estimator, 1))
    _, _, other = twin.step(other, batch(twin, 9))
    again, _, _ = estimator.step(state, batch(estimator, 2))
    np.testing.assert_array_equal(again, alone)


def purity(estimator: Estimator) -> None:
    """Scoring leaves the state alone; nothing changes its arguments."""
    state, groups = history(estimator, 1), batch(estimator, 2)
    before_state, before_groups = pickle.dumps(state), pickle.dumps(groups)
    first, _ = estimator.score(state, groups)
    estimator.update(state, groups)
    estimator.merge(state, history(estimator, 3))
    _, _, _ = estimator.step(state, groups)
    require(pickle.dumps(state) == before_state, "the state was changed")
    require(pickle.dumps(groups) == before_groups, "the batch was changed")
    np.testing.assert_array_equal(estimator.score(state, groups)[0], first)


def refusals(estimator: Estimator) -> None:
    """Rewards outside the domain are refused by scoring and by learning, unless masked."""
    if estimator.domain == "real":
        return
    bad = 0.5 if estimator.domain == "binary" else 1.5
    for method in (estimator.score, estimator.update):
        method(estimator.init(), full([[1.0, bad]], mask=[[True, False]]))
        try:
            method(estimator.init(), full([[1.0, bad]]))
        except InputError:
            continue
        raise AssertionError(f"takes the reward {bad}, though its domain is {estimator.domain}")


def permutations(estimator: Estimator) -> None:
    """Rows in another order, with their ids: advantages in that order, the same next state."""
    if "rollout_order" in estimator.needs:
        return
    state, plain = history(estimator, 1), rows(estimator, 2)
    order = np.random.default_rng(4).permutation(len(plain["rewards"]))
    ours, _, after = estimator.step(state, group_rewards(**{name: values[order] for name, values in plain.items()}))
    expected, _, expected_after = estimator.step(state, group_rewards(**plain))
    np.testing.assert_allclose(ours, expected[order], rtol=1e-9, atol=1e-9)
    assert_close(after, expected_after)


LAWS: dict[str, Callable[[Estimator], None]] = {
    law.__name__.replace("_", " "): law
    for law in (
        purity, instances, pickling, checkpoints, merging, two_workers, permutations, masked_rollouts, masked_clusters,
        replicates, multiplicity, groups_counted_zero_times, thin_batches, refusals,
    )
}  # fmt: skip


def broken(estimator: Estimator, law: str) -> str:
    """Why the law does not hold, in one line; "" where it does. A warning of NumPy counts as a failure."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            LAWS[law](estimator)
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
    return ""
