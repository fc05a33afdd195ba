"""Batches and states for the laws of the contract: flat, ragged, shuffled batches with everything a rule may need."""

from __future__ import annotations

from typing import Any

import numpy as np

from ebpo_sim.estimators import Estimator, make, needs_prior
from ebpo_sim.groups import Groups, group_rewards
from ebpo_sim.numbers.mixing import Prior

PRIOR = Prior((0.1, 0.4, 0.9), (0.3, 0.5, 0.2))


def build(name: str, **settings: Any) -> Estimator:
    """The preset, oracles bound to `PRIOR`."""
    prior = {"prior": PRIOR} if needs_prior(name) else {}
    return make(name, **{**prior, **settings})


def require(holds: bool, reason: str) -> None:
    """Raises AssertionError with the reason unless it holds."""
    if not holds:
        raise AssertionError(reason)


def rows(estimator: Estimator, seed: int, sizes: tuple[int, ...] = (4, 3, 1, 6, 2, 4)) -> dict[str, Any]:
    """The arguments of `group_rewards` for one flat, ragged, shuffled batch in the estimator's domain."""
    rng = np.random.default_rng(seed)
    number = np.repeat(np.arange(len(sizes)), sizes)
    values = (0.0, 1.0) if estimator.domain == "binary" else (0.0, 0.1, 0.35, 0.95, 1.0)
    rewards = rng.choice(values, len(number))
    rewards[number == 1] = values[1]  # one group is constant
    order = rng.permutation(len(number))
    number, rewards = number[order], rewards[order]
    clusters = np.array(["algebra", "geometry"])[number % 2]
    lengths = rng.integers(1, 9, len(number))
    norms = rng.integers(1, 17, len(number)) / 4  # dyadic, as lengths: their sums are exact in any order
    ids = 100 * seed + number
    return {
        "rewards": rewards, "group_ids": ids, "lengths": lengths, "clusters": clusters, "score_norms": norms,
        "answers": np.where(rewards == 1, 0, 1 + np.arange(len(number)) % 3), "greedy": number % 2,
        "components": np.stack([rewards, np.arange(len(number)) % 2], axis=-1),
    }  # fmt: skip


def full(rewards: Any, *args: Any, **given: Any) -> Groups:
    """`group_rewards` with ones for lengths and score norms, rewards for answers and components, greedy answers that
    fail, one cluster and prompts of their own, where not given."""
    shape = np.shape(rewards)
    count = shape[-2] if len(shape) > 1 else shape[0]
    values = np.asarray(rewards, dtype=np.float64)
    plain = {
        "lengths": np.ones(shape), "score_norms": np.ones(shape), "clusters": ["a"] * count,
        "answers": values, "greedy": np.zeros(shape[: len(shape) - 1] or shape),
        "components": np.stack([values, np.zeros(shape)], axis=-1),
    }  # fmt: skip
    named = {"prompt_ids": range(count)} if len(shape) > 1 else {}
    return group_rewards(rewards, *args, **{**plain, **named, **given})


def batch(estimator: Estimator, seed: int, sizes: tuple[int, ...] = (4, 3, 1, 6, 2, 4)) -> Groups:
    """`rows` arranged."""
    return group_rewards(**rows(estimator, seed, sizes))


def history(estimator: Estimator, *seeds: int) -> Any:
    """The state after the batches of these seeds."""
    state = estimator.init()
    for seed in seeds:
        state = estimator.update(state, batch(estimator, seed))
    return state


def leaves(x: Any, path: str = "") -> dict[str, Any]:
    """Every number of a state (or any tree of tuples and dicts) under its path."""
    if isinstance(x, dict):
        return {p: v for k in x for p, v in leaves(x[k], f"{path}/{k}").items()}
    if isinstance(x, tuple):
        return {p: v for i, child in enumerate(x) for p, v in leaves(child, f"{path}/{i}").items()}
    return {path: np.asarray(x, dtype=np.float64)}


def assert_same(a: Any, b: Any) -> None:
    """Raises AssertionError unless both trees hold the same numbers to the last bit."""
    left, right = leaves(a), leaves(b)
    require(list(left) == list(right), "other entries, or in another order")  # sums run over the clusters in order
    for path in left:
        np.testing.assert_array_equal(left[path], right[path], err_msg=path, strict=True)


def assert_close(a: Any, b: Any, rtol: float = 1e-12, atol: float = 1e-13) -> None:
    """Raises AssertionError unless both trees hold the same numbers up to rounding."""
    left, right = leaves(a), leaves(b)
    require(left.keys() == right.keys(), "other entries")
    for path in left:
        np.testing.assert_allclose(left[path], right[path], rtol=rtol, atol=atol, err_msg=path)
