"""Our presets through the adapter against verl's own functions, and where verl and we differ, one test a difference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

import verl_driver
from ebpo_sim import InputError, names
from strategies import BINARY, REAL, UNIT
from verl_driver import Rows, adapter, any_rows, core_algos, fresh, proto, torch  # noqa: F401  fresh is for every test

Array = NDArray[np.float64]


class Pair(NamedTuple):
    """A function of verl with its options, and the preset with the settings that are its convention."""

    theirs: str
    options: dict[str, Any]
    ours: str
    settings: dict[str, Any]


WITHOUT_STD = {"norm_adv_by_std_in_grpo": False}
PAIRS = {
    "grpo": Pair("grpo", {}, "grpo", {"singleton": "raw"}),
    "grpo without std": Pair("grpo", WITHOUT_STD, "dr_grpo", {"singleton": "raw"}),
    "grpo_vectorized": Pair("grpo_vectorized", {}, "grpo", {"singleton": "raw"}),
    "grpo_vectorized without std": Pair("grpo_vectorized", WITHOUT_STD, "dr_grpo", {"singleton": "raw"}),
    "rloo": Pair("rloo", {}, "rloo", {"singleton": "raw"}),
    "rloo_vectorized": Pair("rloo_vectorized", {}, "rloo", {}),
    "opo": Pair("opo", {}, "opo", {"singleton": "raw"}),
    "reinforce_plus_plus_baseline": Pair("reinforce_plus_plus_baseline", {}, "reinforce_pp_baseline", {}),
}
ELSEWHERE = {"gdpo", "gpg", "grpo_passk", "reinforce_plus_plus", "remax"}  # test_conformance_verl_published
NOT_OURS = {"gae", "optimal_token_baseline", "tir_optimal_token_baseline"}  # what verl has and this project has not
VALUES = {"binary": BINARY, "unit": UNIT, "real": REAL}


def both(pair: Pair, batch: Rows, dtype: Any) -> tuple[Array, Array]:
    """(verl's advantages, ours), (N, T), of the same tensors."""
    adapter.reset()
    data = proto(batch, dtype=dtype)
    theirs, _ = core_algos.get_adv_estimator_fn(pair.theirs)(**data.batch, index=batch.uid, **pair.options)
    function = core_algos.get_adv_estimator_fn(f"ebpo_sim.{pair.ours}")
    ours, _ = function(**data.batch, index=batch.uid, config={"ebpo": pair.settings})
    assert ours.dtype == dtype
    return theirs.double().numpy(), ours.double().numpy()


def one_group(*rewards: float, length: int = 3) -> Rows:
    """One group with these rewards."""
    return Rows(np.array(rewards), np.array(["u"] * len(rewards), dtype=object), np.full(len(rewards), length))


def constant(batch: Rows) -> NDArray[np.bool_]:
    """Which rows are in a group of two or more equal rewards."""
    members = [batch.reward[batch.uid == uid] for uid in batch.uid]
    return np.array([len(group) > 1 and np.ptp(group) == 0 for group in members])


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("name", PAIRS)
@given(data=st.data())
def test_advantages_are_verls(name: str, values: str, data: st.DataObject) -> None:
    """Guards the conventions: 1e-6 of the largest reward, in the float32 of verl's driver, every token of every row.

    Constant groups of rewards that float32 cannot sum are left out where verl divides by their spread: see below.
    """
    batch = data.draw(any_rows(VALUES[values]))
    assume(batch.length.sum() > 1)  # verl cannot whiten a single token
    theirs, ours = both(PAIRS[name], batch, torch.float32)
    if name in ("grpo", "grpo_vectorized") and values != "binary":
        np.testing.assert_array_equal(ours[constant(batch)], 0)
        theirs, ours = theirs[~constant(batch)], ours[~constant(batch)]
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6 * max(1.0, np.max(np.abs(batch.reward))))


@pytest.mark.parametrize("name", [name for name in PAIRS if "vectorized" not in name or name == "rloo_vectorized"])
@given(data=st.data())
def test_advantages_are_verls_in_float64(name: str, data: st.DataObject) -> None:
    """Guards the formulas: where verl computes in float64, 2e-7 (its 1.0 of a lone row, its 1e-8 beside the count)."""
    batch = data.draw(any_rows(UNIT))
    assume(batch.length.sum() > 1)
    theirs, ours = both(PAIRS[name], batch, torch.float64)
    np.testing.assert_allclose(
        ours, theirs, rtol=0, atol=2e-7 if name in ("grpo", "reinforce_plus_plus_baseline") else 1e-14
    )


def test_every_function_of_verl_is_compared_or_listed() -> None:
    """Guards the list above: a function that a new verl brings is noticed."""
    ours = {name for preset in names() for name in (preset, f"ebpo_sim.{preset}")} - set(adapter.VERLS_OWN)
    assert core_algos.ADV_ESTIMATOR_REGISTRY.keys() - ours == {p.theirs for p in PAIRS.values()} | ELSEWHERE | NOT_OURS


@pytest.mark.parametrize(
    "name", ["grpo", "grpo without std", "rloo", "rloo_vectorized", "reinforce_plus_plus_baseline"]
)
def test_recorded_numbers_are_the_installed_verls(name: str) -> None:
    """Guards tests/data/verl_oracle.json, which stands in for verl where it is not installed."""
    recorded = {"grpo without std": "dr_grpo"}.get(name, name)
    for case in json.loads((Path(__file__).parent / "data" / "verl_oracle.json").read_text())["cases"]:
        batch = Rows(np.array(case["rewards"]), np.array(case["index"], dtype=object), np.array(case["lengths"]))
        theirs, ours = both(PAIRS[name], batch, torch.float32)
        np.testing.assert_allclose(theirs[:, 0], case["advantages"][recorded], rtol=0, atol=1e-7)
        np.testing.assert_allclose(ours[:, 0], case["advantages"][recorded], rtol=0, atol=1e-6)


def test_verl_contradicts_itself_on_lone_rows() -> None:
    """A difference of theirs: a group of one keeps its reward in rloo and gets 0 in rloo_vectorized."""
    batch = Rows(np.array([0.7, 1.0, 0.0]), np.array(["lone", "u", "u"], dtype=object), np.full(3, 2))
    loop, ours_raw = both(PAIRS["rloo"], batch, torch.float32)
    vectorized, ours_zero = both(PAIRS["rloo_vectorized"], batch, torch.float32)
    assert loop[0, 0] == ours_raw[0, 0] == np.float32(0.7)
    assert vectorized[0, 0] == ours_zero[0, 0] == 0
    np.testing.assert_array_equal(loop[1:], vectorized[1:])


@pytest.mark.parametrize("name", ["grpo", "grpo_vectorized"])
@pytest.mark.parametrize(
    ("reward", "size", "wrong"), [(0.1, 8, 0.007), (0.35, 8, 0.028), (0.7, 8, 0.056), (-1.3, 6, 0.1), (40.1, 7, 0.7)]
)
def test_verls_constant_groups_are_not_zero(name: str, reward: float, size: int, wrong: float) -> None:
    """A difference of theirs: a float32 mean misses equal rewards, and eps 1e-6 makes that an advantage; ours is 0."""
    theirs, ours = both(PAIRS[name], one_group(*[reward] * size), torch.float32)
    assert np.max(np.abs(theirs)) > wrong
    np.testing.assert_array_equal(ours, 0)


@pytest.mark.parametrize("reward", [0.5, 1.0])
def test_verls_constant_groups_of_dyadic_rewards_are_zero(reward: float) -> None:
    """Guards the statement above: with rewards that float32 sums exactly, verl says 0 as well."""
    for size in range(2, 17):
        theirs, ours = both(PAIRS["grpo"], one_group(*[reward] * size), torch.float32)
        assert not theirs.any() and not ours.any()


def test_verl_vectorized_mixes_precisions() -> None:
    """A difference of theirs: grpo_vectorized has float32 means for float64 rewards, so a constant pair gets 1.5."""
    theirs, ours = both(PAIRS["grpo_vectorized"], one_group(40.1, 40.1), torch.float64)
    assert np.min(np.abs(theirs[:, 0])) > 1
    np.testing.assert_array_equal(ours, 0)


def test_verl_cannot_whiten_one_token() -> None:
    """A difference of theirs: a batch of one token is an error in verl's whitening; with us it has no spread, so 0."""
    pair, batch = PAIRS["reinforce_plus_plus_baseline"], one_group(1.0, length=1)
    data = proto(batch)
    with pytest.raises(ValueError, match="sum of the mask is one"):
        core_algos.get_adv_estimator_fn(pair.theirs)(**data.batch, index=batch.uid)
    ours, _ = core_algos.get_adv_estimator_fn(pair.ours)(**data.batch, index=batch.uid)
    assert not ours.any()


@pytest.mark.parametrize("name", PAIRS)
def test_verl_spreads_nan(name: str) -> None:
    """A difference of theirs: one NaN reward silently becomes the advantage of its group or batch; we refuse it."""
    pair, batch = PAIRS[name], one_group(1.0, float("nan"), 0.0)
    theirs, _ = core_algos.get_adv_estimator_fn(pair.theirs)(**proto(batch).batch, index=batch.uid, **pair.options)
    assert torch.isnan(theirs[:, 0]).all()
    with pytest.raises(InputError, match="token_level_rewards must be finite"):
        both(pair, batch, torch.float32)


def test_verls_functions_do_not_mind_its_padding() -> None:
    """Guards why only memories need the check: verl's functions give the same with and without its padding rows, which
    OPO's own makes NaN, as it divides by their 0 tokens."""
    batch = verl_driver.rows(3)
    for name, pair in PAIRS.items():
        plain, _ = both(pair, batch, torch.float32)
        with_padding, ours = both(pair, verl_driver.padded(batch, 4), torch.float32)
        np.testing.assert_allclose(with_padding[:-4], plain, rtol=0, atol=1e-7)
        assert np.isnan(with_padding[-4:]).all() if name == "opo" else not with_padding[-4:].any()
        assert not ours[-4:].any()
