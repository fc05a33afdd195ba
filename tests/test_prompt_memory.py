"""The memory of prompts, and what is on it: against a dictionary, by enumeration, on workers, and its refusals."""

from __future__ import annotations

import hashlib
from itertools import product
from typing import Any

import numpy as np
import pytest

from battery import assert_same, full
from ebpo_sim import InputError, make
from ebpo_sim.estimators import memory
from ebpo_sim.estimators.discounted import Discounted, retention_of


@pytest.mark.parametrize(
    "name", ["spo:retention=0.8", "dbb:retention=0.8,scale=none", "anchor", "anchor:temperature=0.5"]
)
def test_against_a_dictionary(name: str) -> None:
    """A stream of 12 batches of 6 of 9 prompts, one of them twice in a batch: a prompt is discounted when it comes, not
    when others do; before a first visit b is 1/2 or the others' mean."""
    estimator, rng = make(name), np.random.default_rng(0)
    own, soft = estimator.order == "update_then_score", getattr(estimator.baseline, "temperature", None)
    prior = getattr(estimator.baseline, "prior", 0.0)
    state, known = estimator.init(), {}
    for _ in range(12):
        ids, rewards = rng.integers(0, 9, 6).tolist(), (rng.random((6, 3)) < 0.4) * 1.0
        before = dict(known)
        for i in set(ids):
            mine = rewards[[j for j, k in enumerate(ids) if k == i]]
            a, b = before.get(i, (prior, prior))
            if name.startswith("anchor"):
                known.setdefault(i, (mine.mean(), 0.0))
            else:
                known[i] = (0.8 * a + mine.sum(), 0.8 * b + mine.size - mine.sum())
        groups = full(rewards, prompt_ids=ids)
        scoring, state = estimator.turn(state, groups)
        evaluation = estimator.baseline_of(scoring, groups)
        assert evaluation is not None
        found = np.broadcast_to(evaluation.baseline_PG, rewards.shape)
        for row, i in enumerate(ids):
            if name.startswith("anchor"):
                q = before[i][0] if i in before else None
                others = (rewards[row].sum() - rewards[row]) / 2
                expected: Any = (
                    others if q is None else q if soft is None else soft * np.log(1 - q + q * np.exp(1 / soft))
                )
            else:
                a, b = (known if own else before).get(i, (prior, prior))
                expected = a / (a + b)
            np.testing.assert_allclose(found[row], expected, rtol=1e-12, atol=1e-15)


def expected_update(name: str, past: list[Any], p: float, size: int) -> tuple[float, float]:
    """(E of mean_i (r_i - b) (r_i - p), E of the weight H after the visit) over all outcomes of a group."""
    estimator, gradient = make(name), 0.0
    state = estimator.init()
    for batch in past:
        state = estimator.update(state, batch)
    for outcome in product((0.0, 1.0), repeat=size):
        r = np.array([outcome])
        groups = full(r, prompt_ids=["x"])
        evaluation = estimator.baseline_of(estimator.turn(state, groups)[0], groups)
        assert evaluation is not None
        gradient += float(np.mean((r - evaluation.baseline_PG) * (r - p)) * np.prod(np.where(r == 1, p, 1 - p)))
    before = estimator.baseline
    seen = before.past(state[0], full([[0.0]], prompt_ids=["x"])) if isinstance(before, Discounted) else None
    weight = 0.0 if seen is None else float(seen.n_P[0] + 2 * before.prior * before.retention ** seen.visits_P[0])
    return gradient, weight


PAST = [
    full([[1.0, 0.0, 1.0]], prompt_ids=["x"]),
    full([[0.0]], prompt_ids=["y"]),
    full([[1.0, 1.0]], prompt_ids=["x"]),
]


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
@pytest.mark.parametrize("visits", [0, 1, 3])
def test_the_bias_of_scoring_after_the_update(visits: int, p: float, size: int) -> None:
    """All outcomes of a group at once: read before the update the gradient is p(1-p), after it (1 - 1/H) of that, H =
    retention (alpha + beta) + n; a frozen anchor leaves it alone once there is one."""
    past, true = PAST[:visits], p * (1 - p)
    assert expected_update("spo:retention=0.7", past, p, size)[0] == pytest.approx(true, rel=1e-12)
    found, weight = expected_update("dbb:retention=0.7,scale=none", past, p, size)
    assert found == pytest.approx((1 - 1 / (0.7 * weight + size)) * true, rel=1e-12)
    if visits:
        assert expected_update("anchor", past, p, size)[0] == pytest.approx(true, rel=1e-12)


def test_the_bias_of_prior_fusion_is_no_factor() -> None:
    """A group of one at V = 1/2 never leaves V: unbiased. Beyond, the share that is lost depends on p and V."""
    assert expected_update("v05", [], 0.3, 1)[0] == pytest.approx(0.3 * 0.7, rel=1e-12)
    share = [expected_update("v05:value=0.2", [], p, 4)[0] / (p * (1 - p)) for p in (0.1, 0.3, 0.8)]
    assert max(share) < 1 and share[0] - share[2] > 0.05, share


def test_prior_fusion_by_id() -> None:
    """A given id has its value, others the common one; |b - m| is at most 1/(2 sqrt n)."""
    groups = full([[1.0, 1.0, 0.0, 1.0]] * 2, prompt_ids=[7, "other"])
    evaluation = make("v05", value=0.5, values=(("7", 0.1),)).baseline_of((), groups)
    assert evaluation is not None
    b = evaluation.baseline_PG[:, 0]
    away = (0.75 - 0.1) ** 2
    np.testing.assert_allclose(b, [0.1 + (1 - 0.0625 / away) * 0.65, 0.5], rtol=1e-14)
    assert np.all(np.abs(b - 0.75) <= 0.25 + 1e-15)


def test_workers_with_prompts_of_their_own() -> None:
    """Two workers that meet different prompts, merged at the end, know what one would know; a prompt that both met has
    the evidence of both."""
    estimator = make("dbb")
    left, right = (["a", "b"], ["c", "d"])
    states = [estimator.init() for _ in range(3)]
    for seed in range(3):
        rewards = np.random.default_rng(seed).integers(0, 2, (4, 3)) * 1.0
        parts = full(rewards[:2], prompt_ids=left), full(rewards[2:], prompt_ids=right)
        whole = full(rewards, prompt_ids=left + right)
        states = [estimator.update(s, b) for s, b in zip(states, (*parts, whole), strict=True)]
    assert_same(estimator.merge(states[0], states[1]), states[2])
    both = estimator.merge(states[0], states[0])
    n, _, visits = estimator.baseline.past(both[0], full([[1.0]], prompt_ids=["a"]))  # type: ignore[union-attr]
    once = estimator.baseline.past(states[0][0], full([[1.0]], prompt_ids=["a"]))  # type: ignore[union-attr]
    assert (n[0], visits[0]) == (2 * once.n_P[0], 2 * once.visits_P[0])


def test_keys_are_those_of_the_text_and_apart() -> None:
    """The same in every process (known digests), exact in a float64, and 10^5 ids have as many keys."""
    assert memory.keys(["a", 1, "1"]).tolist() == [
        float(int.from_bytes(hashlib.blake2b(t, digest_size=8).digest(), "little") >> 11) for t in (b"a", b"1", b"1")
    ]
    assert len(np.unique(memory.keys(range(10**5)))) == 10**5 and memory.keys(range(99)).max() < 2**53


@pytest.mark.parametrize(("divergence", "retention"), [(0, 0.96), (0.005, 2 ** (-1 / 12)), (0.06, 0.875), (9.0, 0.875)])
def test_retention_follows_the_policy(divergence: float, retention: float) -> None:
    """SPO's constants: a half-life of 0.06 nats, clipped to [0.875, 0.96]."""
    assert retention_of(divergence) == pytest.approx(retention, rel=1e-14)
    assert make("spo", divergence=divergence).baseline == Discounted(retention_of(divergence), 0.5)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("spo:retention=0", "retention must be above 0 and at most 1, got 0.0"),
        ("dbb:retention=1.5", "retention must be above 0 and at most 1, got 1.5"),
        ("dbb:prior=0", "prior must be above 0, got 0.0"),
        ("spo:divergence=-1", "divergence must be at least 0 nats, got -1.0"),
        ("anchor:temperature=0.001", "temperature must be at least 0.002, got 0.001"),
        ("v05:value=1.5", r"value must have a prior value in \[0, 1\], got 1.5"),
        ("v05:values=x", "values must be a tuple given in Python, got 'x'"),
    ],
)
def test_settings_that_are_refused(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        make(text)
    with pytest.raises(InputError, match="prompt 'x' must"):
        make("v05", values=(("prompt 'x'", 2.0),))
