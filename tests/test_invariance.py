"""What shifting or scaling all rewards does to each estimator, and which host arrays may carry them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from battery import CASES, build, history, rows
from ebpo_sim import group_rewards, names
from ebpo_sim.estimators import Estimator

every = pytest.mark.parametrize("estimator", CASES.values(), ids=CASES.keys())
# Shift invariance, with the history shifted too. Left out: domains without shifts, a constant, a prior from outside.
SHIFT: dict[str, dict[str, Any]] = {
    "grpo": {},
    "dr_grpo": {},
    "rloo": {},
    "grpo_batch_norm": {},
    "reinforce_pp_baseline": {"singleton": "zero"},
    "james_stein": {},
    "ebpo": {},
    "ebpo_released": {},
    "ebpo_within": {},
    "ebpo_debiased": {},
    "opo": {},
    "optimal_token_baseline": {},
    "global_mean": {},
    "grpo_leave_one_out": {},
    "lite_ppo": {},
    "grpo_whitened": {},
    "reinforce_pp": {},
    "gpg": {},
    "grpo_passk": {},
    "riskpo": {"form": "code"},
}
UNSHIFTED = {
    "ebpo_beta_binomial",
    "ebpo_nonparametric",
    "oracle_linear",
    "oracle_bayes",
    "loo_table",
    "reinforce",
    "raft",
    "optimal",
    "regression",
    "spo",
    "dbb",
    "anchor",
    "v05",
    "maxrl",
    "passk",
    "bnpo",
    "ha_dw",
    "remax",
    "adora",
    "gdpo",
    "krpo",
    "copo",  # its rewards of prompts are products
}
SCALE: dict[str, tuple[dict[str, Any], int, float]] = {  # settings, power of the factor, tolerance
    "grpo": ({"eps": 0.0}, 0, 1e-12),
    "dr_grpo": ({}, 1, 1e-12),
    "rloo": ({}, 1, 1e-12),
    "grpo_batch_norm": ({"eps": 0.0}, 0, 1e-12),
    "reinforce_pp_baseline": ({"eps": 0.0}, 0, 1e-12),
    "james_stein": ({}, 1, 1e-12),
    "ebpo": ({"eps": 0.0}, 0, 1e-12),
    "ebpo_released": ({}, 0, 2e-5),  # its eps of 1e-6 is fixed
    "ebpo_within": ({"eps": 0.0}, 0, 1e-12),
    "ebpo_debiased": ({"eps": 0.0}, 0, 1e-12),
    "opo": ({}, 1, 1e-12),
    "optimal_token_baseline": ({}, 1, 1e-12),
    "global_mean": ({}, 1, 1e-12),
    "lite_ppo": ({"eps": 0.0}, 0, 1e-12),
    "grpo_whitened": ({"eps": 0.0, "batch_eps": 0.0}, 0, 1e-12),
    "reinforce_pp": ({"eps": 0.0}, 0, 1e-12),
    "gpg": ({}, 1, 1e-12),
    "grpo_passk": ({"eps": 0.0}, 0, 1e-12),
    "copo": ({"eps": 0.0}, 0, 1e-12),
    "riskpo": ({}, 1, 1e-12),
}

MIXED = "grpo_leave_one_out"


def run(estimator: Estimator, factor: float = 1.0, shift: float = 0.0) -> np.ndarray:
    """Advantages of a third batch after two, all rewards changed alike."""
    state = estimator.init()
    for seed in (1, 2, 3):
        batch = rows(estimator, seed)
        advantages, _, state = estimator.step(
            state, group_rewards(**{**batch, "rewards": factor * batch["rewards"] + shift})
        )
    return np.asarray(advantages)


@pytest.mark.parametrize("name", SHIFT)
@pytest.mark.parametrize("shift", [0.3, -17.0, 1000.0])
def test_a_constant_added_to_every_reward_changes_nothing(name: str, shift: float) -> None:
    """Only differences of rewards carry a signal."""
    estimator = build(name, **SHIFT[name])
    np.testing.assert_allclose(run(estimator, shift=shift), run(estimator), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", SCALE)
@pytest.mark.parametrize("factor", [4.0, 0.3])
def test_a_positive_factor_scales_or_cancels(name: str, factor: float) -> None:
    """Scaled estimators are free of the reward's unit at eps 0, the others carry it."""
    settings, power, rtol = SCALE[name]
    estimator = build(name, **settings)
    plain = run(estimator)
    assert np.ptp(plain) > 0
    np.testing.assert_allclose(run(estimator, factor), factor**power * plain, rtol=rtol, atol=1e-12)


def test_every_preset_states_what_it_promises() -> None:
    """A new preset must be entered in the lists above."""
    assert set(names()) == {*SHIFT, *UNSHIFTED} == {*SCALE, *UNSHIFTED, MIXED}


def test_a_rule_with_two_units() -> None:
    """Where the others are all equal it divides by nothing: there a factor stays, elsewhere it cancels."""
    plain, scaled = run(build(MIXED, eps=0.0)), run(build(MIXED, eps=0.0), 4.0)
    stays, cancels = np.isclose(scaled, 4 * plain, rtol=1e-12), np.isclose(scaled, plain, rtol=1e-12)
    assert np.all(stays | cancels) and np.any(stays & ~cancels) and np.any(cancels & ~stays)


@pytest.mark.parametrize("name", ["ebpo_debiased", "ebpo", "global_mean"])
def test_the_history_must_shift_too(name: str) -> None:
    """The invariance is that of the whole run: with the old history, uncentred rules see the shift."""
    estimator = build(name)
    state, batch = history(estimator, 1, 2), rows(estimator, 3)
    score = estimator.score
    plain, _ = score(state, group_rewards(**batch))
    shifted, _ = score(state, group_rewards(**{**batch, "rewards": batch["rewards"] + 0.5}))
    assert np.max(np.abs(shifted - plain)) > 0.01


HOSTS: dict[str, tuple[Any, Any, float]] = {  # how rewards are passed, dtype that comes back, tolerance
    "float64": (np.array, np.float64, 1e-12),
    "float32": (lambda r: np.array(r, dtype=np.float32), np.float32, 1e-6),
    "int": (lambda r: np.array(r, dtype=np.int64), np.float64, 1e-12),
    "bool": (lambda r: np.array(r, dtype=bool), np.float64, 1e-12),
    "list": (lambda r: np.asarray(r).tolist(), np.float64, 1e-12),
    "torch float64": (lambda r: torch.tensor(np.array(r), dtype=torch.float64), torch.float64, 1e-12),
    "torch float32": (lambda r: torch.tensor(np.array(r), dtype=torch.float32), torch.float32, 1e-6),
    "torch bfloat16": (lambda r: torch.tensor(np.array(r), dtype=torch.bfloat16), torch.bfloat16, 2.0**-7),
    "torch int": (lambda r: torch.tensor(np.array(r), dtype=torch.int64), torch.float32, 1e-6),
    "torch grad": (lambda r: torch.tensor(np.array(r, dtype=np.float32), requires_grad=True), torch.float32, 1e-6),
}


@every
@pytest.mark.parametrize("layout", ["flat", "rectangular"])
@pytest.mark.parametrize("host", HOSTS)
def test_hosts_agree(estimator: Estimator, layout: str, host: str) -> None:
    """Same advantages from every host, in the host's library, dtype, device and layout."""
    convert, dtype, rtol = HOSTS[host]
    state = history(estimator, 1)
    flat = {**rows(estimator, 2), "rewards": np.random.default_rng(0).integers(0, 2, 20).astype(float)}
    if layout == "rectangular":
        flat = {"rewards": flat["rewards"].reshape(5, 4), "clusters": ["algebra", "geometry"] * 2 + ["algebra"],
                "prompt_ids": range(5),
                "greedy": [0, 1, 0, 1, 1], "components": flat["components"].reshape(5, 4, 2),
                **{name: flat[name].reshape(5, 4) for name in ("lengths", "score_norms", "answers")}}  # fmt: skip
    expected, _ = estimator.score(state, group_rewards(**flat))
    ours, _ = estimator.score(state, group_rewards(**{**flat, "rewards": convert(flat["rewards"])}))
    assert ours.dtype == dtype
    assert tuple(ours.shape) == flat["rewards"].shape
    assert isinstance(ours, torch.Tensor) == host.startswith("torch")
    if isinstance(ours, torch.Tensor):
        assert ours.device == torch.device("cpu")
        assert not ours.requires_grad
        ours = ours.to(torch.float64).numpy()
    np.testing.assert_allclose(ours, expected, rtol=rtol, atol=rtol)


@every
def test_read_only_and_torch_arguments(estimator: Estimator) -> None:
    """Arguments may be read-only, and ids, mask and lengths tensors: they are copied, never written to."""
    state, batch = history(estimator, 1), rows(estimator, 2)
    mask = np.arange(len(batch["rewards"])) % 5 != 0
    expected, _, _ = estimator.step(state, group_rewards(**batch, mask=mask))
    frozen = {name: values.copy() for name, values in {**batch, "mask": mask}.items()}
    for values in frozen.values():
        values.flags.writeable = False
    np.testing.assert_array_equal(estimator.step(state, group_rewards(**frozen))[0], expected)
    tensors = {n: v if n == "clusters" else torch.tensor(v) for n, v in {**batch, "mask": mask}.items()}
    np.testing.assert_array_equal(estimator.step(state, group_rewards(**tensors))[0].numpy(), expected)
