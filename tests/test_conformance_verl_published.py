"""Published rules against verl's own functions, in float64; what needs more than rewards beside the adapter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ebpo_sim import group_rewards, make
from strategies import BINARY, UNIT
from verl_driver import Rows, any_rows, core_algos, proto, torch

Array = NDArray[np.float64]


class Config(dict[str, Any]):
    """verl's `algorithm` section, as far as these functions read it."""

    gamma = 1.0


def theirs(name: str, given: Rows, config: Config | None = None, **more: Any) -> Array:
    """verl's advantages (N, T) of the batch in float64."""
    data = proto(given, dtype=torch.float64)
    function = core_algos.get_adv_estimator_fn(name)
    found, _ = function(**data.batch, index=given.uid, config=Config() if config is None else config, **more)
    return np.asarray(found.double().numpy())


def ours(text: str, batch: Rows, **more: Any) -> Array:
    """Ours, on every token of a row."""
    estimator = make(text)
    groups = group_rewards(batch.reward, batch.uid, lengths=batch.length, **more)
    found, _ = estimator.score(estimator.init(), groups)
    return np.asarray(found)[:, None] * (np.arange(8) < batch.length[:, None])


@pytest.mark.parametrize(
    ("name", "text"),
    [("reinforce_plus_plus", "reinforce_pp"), ("gpg", "gpg:counted=nonzero,singleton=raw")],
)
@given(batch=any_rows(UNIT))
def test_rules_of_rewards_alone(name: str, text: str, batch: Rows) -> None:
    """REINFORCE++ whitens over tokens, GPG counts rewards other than 0; groups of one keep their reward in GPG."""
    assume(batch.length.sum() > 1)  # verl cannot whiten a single token
    np.testing.assert_allclose(ours(text, batch), theirs(name, batch), rtol=0, atol=1e-6)


@pytest.mark.parametrize("scaled", [True, False])
@given(batch=any_rows(UNIT))
def test_best_margin(scaled: bool, batch: Rows) -> None:
    """grpo_passk with and without the group's spread, but for groups of one, which verl refuses."""
    assume(min(np.sum(batch.uid == uid) for uid in batch.uid) > 1)
    config = Config(norm_adv_by_std_in_grpo=scaled)
    text = "grpo_passk" if scaled else "grpo_passk:scale=none"
    np.testing.assert_allclose(ours(text, batch), theirs("grpo_passk", batch, config), rtol=0, atol=1e-6)


def test_verl_refuses_a_lone_answer() -> None:
    """A difference of theirs: grpo_passk stops at a group of one; ours says nothing about it."""
    batch = Rows(np.array([1.0]), np.array(["u"], dtype=object), np.array([2]))
    with pytest.raises(ValueError, match="at least 2 samples"):
        theirs("grpo_passk", batch)
    assert not ours("grpo_passk", batch).any()


@given(batch=any_rows(UNIT), data=st.data())
def test_greedy_baseline(batch: Rows, data: st.DataObject) -> None:
    """ReMax: verl is handed a baseline a row."""
    greedy = {uid: data.draw(st.sampled_from(UNIT)) for uid in batch.uid}
    rows = np.array([greedy[uid] for uid in batch.uid])
    found = theirs("remax", batch, reward_baselines=torch.as_tensor(rows))
    np.testing.assert_allclose(ours("remax", batch, greedy=rows)[:, 0], found[:, 0], rtol=0, atol=1e-12)


@given(batch=any_rows(BINARY), data=st.data())
def test_decoupled_functions(batch: Rows, data: st.DataObject) -> None:
    """GDPO with weights 1 and 1/2; each function is GRPO's, of which a lone row keeps its reward in verl: left out."""
    assume(min(np.sum(batch.uid == uid) for uid in batch.uid) > 1)
    second = np.array([data.draw(st.sampled_from((0.0, 0.5, 1.0))) for _ in batch.uid])
    rows, width = proto(batch, dtype=torch.float64), 8
    prompts = torch.zeros(len(second), 1, dtype=torch.long)
    mask = torch.cat([prompts + 1, rows.batch["response_mask"]], dim=1)
    config = Config(gdpo_reward_keys=["first", "second"], gdpo_reward_weights=[1.0, 0.5])
    found = theirs(
        "gdpo", batch, config, non_tensor_batch={"first": batch.reward, "second": second},
        batch={"prompts": prompts, "attention_mask": mask},
    )  # fmt: skip
    assert found.shape == (len(second), width)
    components = np.stack([batch.reward, second], axis=-1)
    np.testing.assert_allclose(ours("gdpo:weights=1/0.5", batch, components=components), found, rtol=0, atol=1e-6)
