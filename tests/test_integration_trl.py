"""`ebpo_sim.integrations.trl`: which advantages a run gets, what the estimator learns from, what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from needs import require

require("trl")

import pandas as pd  # noqa: E402
import torch  # noqa: E402
from trl import GRPOTrainer  # noqa: E402

from ebpo_sim import InputError, group_rewards, make  # noqa: E402
from ebpo_sim.integrations import trl as adapter  # noqa: E402
from ebpo_sim.integrations.shared import read_state  # noqa: E402
from ebpo_sim.integrations.trl_score_norms import score_norms  # noqa: E402
from norm_baseline import LESS_NORM  # noqa: E402
from trl_toy import GROUP, NEWS, Given, Graded, Reward, model, tokenizer, trainer  # noqa: E402

pytestmark = [pytest.mark.filterwarnings(line) for line in NEWS]


def replay(name: str, calls: list[dict[str, list[Any]]], tokens: bool = True, unfinished: bool = True) -> list[Any]:
    """(advantages, info, state) of each batch from a fresh estimator fed what the reward function remembers."""
    estimator, found = make(name), []
    state, last = estimator.init(), {tokenizer().eos_token_id, tokenizer().pad_token_id}
    for call in calls:
        rewards = np.float32(call["rewards"]).astype(np.float64).reshape(-1, GROUP)
        lengths = [len(ids) * (unfinished or ids[-1] in last) for ids in call["completion_ids"]]
        clusters = call["topic"][::GROUP]
        groups = group_rewards(rewards, lengths=np.reshape(lengths, (-1, GROUP)) ** int(tokens), clusters=clusters)
        advantages, info, state = estimator.step(state, groups)
        found.append((advantages.ravel().tolist(), info, state))
    return found


@pytest.mark.parametrize("name", ["ebpo", "ebpo_debiased:memory=0.95", "grpo", "james_stein", "reinforce_pp_baseline"])
def test_advantages_are_the_estimators(name: str, tmp_path: Path) -> None:
    """Guards the point of it all: what TRL trains on, and the state, are what the estimator says, bit for bit."""
    reward = Graded()
    made = trainer(tmp_path, reward, estimator=name)
    made.train()
    expected = replay(name, reward.calls)
    assert len(expected) == len(made.batches) == 4
    for (advantages, _, _), batch in zip(expected, made.batches, strict=True):
        assert batch["table"] == advantages
        assert batch["advantages"] == np.float32(advantages).tolist()
    assert made.estimator_state == expected[-1][2]
    assert max(map(abs, expected[0][0])) > 0.1


@pytest.mark.parametrize("changes", [{}, {"temperature": 0.7, "per_device_train_batch_size": 8}], ids=str)
def test_score_norms_are_those_of_the_policy(changes: dict[str, Any], tmp_path: Path) -> None:
    """Guards W: by autograd in the logits of the starting policy, answer by answer without padding."""
    reward, temperature = Graded(), changes.get("temperature", 1.0)
    made = trainer(tmp_path, reward, estimator=LESS_NORM, max_steps=1, gradient_accumulation_steps=2, **changes)
    made.train()
    (call,), words, policy = reward.calls, tokenizer(), model()
    expected = []
    for prompt, ids, r in zip(call["prompts"], call["completion_ids"], call["rewards"], strict=True):
        read = words(prompt)["input_ids"]
        with torch.no_grad():
            logits_TV = policy(input_ids=torch.tensor([[*read, *ids]])).logits[0, len(read) - 1 : -1] / temperature
        logits_TV.requires_grad_()
        torch.log_softmax(logits_TV, dim=-1)[torch.arange(len(ids)), ids].sum().backward()
        expected.append(np.float32(r) - float(logits_TV.grad.square().sum()))
    assert np.std(expected) > 0.1 and len({len(ids) for ids in call["completion_ids"]}) > 1
    np.testing.assert_allclose(made.batches[0]["table"], expected, rtol=1e-5)
    with pytest.raises(InputError, match="less_norm needs score_norms, which are computed for text alone"):
        score_norms(made, {"pixel_values": None}, None)


def test_the_model_trains_on_them(tmp_path: Path) -> None:
    """Guards the loss: two estimators, the same seed, other weights; GRPO's own by name is TRL's to rounding."""
    weights = {}
    for name in ("trl", "grpo:eps=1e-4", "ebpo"):
        own = {"kind": GRPOTrainer} if name == "trl" else {"estimator": name}
        made = trainer(tmp_path, max_steps=1, **own)
        made.train()
        weights[name] = torch.cat([w.detach().flatten() for w in made.model.parameters()])
    assert (weights["trl"] - weights["grpo:eps=1e-4"]).abs().max() < 1e-5
    assert (weights["trl"] - weights["ebpo"]).abs().max() > 1e-4


@pytest.mark.parametrize(("micro", "slices", "reuse"), [(1, None, 1), (4, None, 1), (2, 4, 1), (1, 2, 2)])
def test_one_generation_batch_is_one_step_of_the_estimator(
    micro: int, slices: int | None, reuse: int, tmp_path: Path
) -> None:
    """Guards accumulation, slicing and reuse: no group learnt twice or left out; the buffer holds our numbers."""
    made = trainer(
        tmp_path, gradient_accumulation_steps=micro, steps_per_generation=slices, num_iterations=reuse, estimator="ebpo"
    )
    made.train()
    slices = slices or micro
    expected = math.ceil(4 * micro / (slices * reuse))
    assert [batch["learnt"] for batch in made.batches] == [True] * expected
    assert made.estimator_state[0][""].means.n == expected * 16 * slices / GROUP
    buffered = torch.cat([part["advantages"] for part in made._buffered_inputs])
    assert sorted(buffered.tolist()) == sorted(made.batches[-1]["advantages"])
    for call in made.reward_funcs[0].calls:
        assert all(len(set(call["number"][i : i + GROUP])) == 1 for i in range(0, len(call["number"]), GROUP))


def test_the_completions_table_shows_what_was_used(tmp_path: Path) -> None:
    """Guards the log: the column "advantage" of TRL's files holds our numbers beside the right rewards."""
    made = trainer(tmp_path, estimator="ebpo_debiased", log_completions=True, max_steps=2)
    made.train()
    for number, (batch, call) in enumerate(zip(made.batches, made.reward_funcs[0].calls, strict=True), start=1):
        table = pd.read_parquet(tmp_path / "completions" / f"completions_{number:05d}.parquet")
        assert table["advantage"].tolist() == batch["table"]
        assert table["toy"].tolist() == np.float32(call["rewards"]).tolist()
        assert table["prompt"].tolist() == call["prompts"]


def test_metrics(tmp_path: Path) -> None:
    """Guards what is logged: means over groups of what the estimator says, and nothing that it does not have."""
    reward = Graded()
    made = trainer(tmp_path, reward, estimator="ebpo_debiased:memory=0.9")
    made.train()
    rows = [row for row in made.state.log_history if "reward" in row]
    for row, (advantages, info, _) in zip(rows, replay("ebpo_debiased:memory=0.9", reward.calls), strict=True):
        assert row["ebpo/shrinkage"] == pytest.approx(info.shrinkage_P.mean())
        assert row["ebpo/prior_mean"] == pytest.approx(info.prior_mean_P.mean())
        assert row["ebpo/uniform_groups"] == info.degenerate_P.mean()
        assert row["ebpo/zero_signal"] == (np.reshape(advantages, (-1, GROUP)) == 0).all(axis=1).mean()
    assert rows[-1]["ebpo/shrinkage"] > 0
    constant = Given([[0.25] * 8 + [0.1, 0.2, 0.3, 0.4] * 2])
    made = trainer(tmp_path, constant, estimator="grpo", max_steps=1)
    made.train()
    logged = {name: value for name, value in made.state.log_history[0].items() if name.startswith("ebpo/")}
    assert logged == {"ebpo/shrinkage": 0, "ebpo/zero_signal": 0.5, "ebpo/uniform_groups": 0.5}


@pytest.mark.parametrize("size", [None, 2, 1])
def test_evaluation_is_scored_and_never_learnt_from(size: int | None, tmp_path: Path) -> None:
    """Guards held-out data: evaluation leaves the state alone, has its own group size, and is logged apart."""
    made = trainer(
        tmp_path, estimator="james_stein", num_generations_eval=size, eval_strategy="steps", eval_steps=2, max_steps=2
    )
    made.train()
    assert [batch["learnt"] for batch in made.batches[:2]] == [True, True]
    assert len(made.batches) > 2 and not any(batch["learnt"] for batch in made.batches[2:])
    rewards = np.float32(made.reward_funcs[0].calls[-1]["rewards"]).astype(np.float64).reshape(-1, size or GROUP)
    expected, _, _ = made.estimator.step(made.estimator.init(), group_rewards(rewards))
    assert made.batches[-1]["advantages"] == np.float32(expected).ravel().tolist()
    before, last = made.batches[-2:]
    assert last["table"] == (before["table"] + expected.ravel().tolist())[-16:]  # the table keeps a training batch
    state = made.estimator_state
    assert 0 <= made.evaluate()["eval_ebpo/shrinkage"] <= 1
    assert made.estimator_state is state


def test_weights_and_rollouts_without_a_reward(tmp_path: Path) -> None:
    """Guards TRL's reward: weighted sum over functions that scored; unscored rollouts are out of everything."""
    none = None
    first = Given([[1.0, none, 0.0, none] + [0.1, 0.7, 0.1, 0.4] + [none] * 4 + [0.2] * 4, [none] * 16])
    second = Given([[0.3, 0.9, none, none] + [none] * 4 + [none] * 4 + [0.6] * 4, [none] * 16])
    second.__name__ = "other"
    made = trainer(tmp_path, [first, second], reward_weights=[0.5, 2.0], estimator="ebpo_debiased", max_steps=2)
    made.train()
    total = np.array([0.5 + 0.6, 1.8, 0.0, 0, 0.05, 0.35, 0.05, 0.2, 0, 0, 0, 0] + [1.3] * 4).reshape(4, 4)
    scored = np.array([1, 1, 1, 0] + [1] * 4 + [0] * 4 + [1] * 4).reshape(4, 4)
    advantages, _, state = made.estimator.step(made.estimator.init(), group_rewards(total, mask=scored))
    np.testing.assert_allclose(made.batches[0]["table"], advantages.ravel(), rtol=0, atol=1e-6)
    assert [made.batches[0]["table"][i] for i in (3, 8, 9, 10, 11)] == [0.0] * 5
    assert len(set(made.batches[0]["table"][12:])) == 1  # equal reward vectors stay exactly equal
    assert made.batches[1] == {"advantages": [0.0] * 16, "table": [0.0] * 16, "learnt": False}
    assert made.estimator_state[0][""].means.n == state[0][""].means.n == 3
    assert made.estimator_state[0][""].rewards.mean == pytest.approx(float(total[scored == 1].mean()), abs=1e-6)


@pytest.mark.parametrize("truncated", [False, True])
def test_tokens_that_count_in_the_loss_reach_the_estimator(truncated: bool, tmp_path: Path) -> None:
    """Guards token weights: REINFORCE++ whitens over the loss's tokens, without those of masked completions."""
    reward, name = Graded(), "reinforce_pp_baseline"
    changes = {"mask_truncated_completions": truncated, "max_completion_length": 12, "max_steps": 2}
    made = trainer(tmp_path, reward, estimator=name, **changes)
    made.train()
    table = [batch["table"] for batch in made.batches]
    assert table == [found[0] for found in replay(name, reward.calls, unfinished=not truncated)]
    assert np.abs(np.subtract(table, [found[0] for found in replay(name, reward.calls, tokens=False)])).max() > 1e-3


def test_tokens_written_by_tools_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards token weights in tool use: what a tool answered is in the completion and not in the loss."""
    made, given = trainer(tmp_path), []
    own, tool = torch.ones(4, 6), torch.ones(4, 6)
    own[1, 4:], tool[2, 1:4] = 0, 0
    output = {"advantages": torch.zeros(4), "completion_mask": own, "tool_mask": tool}
    rewards = torch.tensor([[0.0], [1.0], [0.0], [1.0]])
    monkeypatch.setattr(adapter, "group_rewards", lambda *a, **k: given.append(k) or group_rewards(*a, **k))
    monkeypatch.setattr(GRPOTrainer, "_calculate_rewards", lambda self: rewards)
    monkeypatch.setattr(
        GRPOTrainer, "_generate_and_score_completions", lambda self, inputs: (self._calculate_rewards(), output)[1]
    )
    assert made._generate_and_score_completions([{}] * 4)["advantages"].tolist() != [0.0] * 4
    assert given[0]["lengths"].tolist() == [6, 4, 3, 6]


def test_columns_reach_the_estimator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards clusters and prompt ids: each row's entry of the named column, and a prior per topic that uses it."""
    given = []
    monkeypatch.setattr(adapter, "group_rewards", lambda *a, **k: given.append(k) or group_rewards(*a, **k))
    name, reward = "ebpo_debiased:per_cluster=True", Graded()
    made = trainer(tmp_path, reward, estimator=name, cluster_column="topic", prompt_id_column="number")
    made.train()
    assert [call["clusters"] for call in given] == [call["topic"] for call in reward.calls]
    assert [call["prompt_ids"] for call in given] == [call["number"] for call in reward.calls]
    assert [batch["table"] for batch in made.batches] == [found[0] for found in replay(name, reward.calls)]
    assert set(made.estimator_state[0]) == {"even", "odd"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"estimator": "ebbo"}, "unknown estimator 'ebbo': did you mean 'ebpo'"),
        ({"estimator": "ebpo:memory=2"}, "memory must be"),
        ({"estimator": "oracle_bayes"}, "oracle_bayes needs true_prior, which trl"),
        ({"estimator": "ebpo_debiased:per_cluster=True"}, "cluster_column must name a data-set column"),
        ({"cluster_column": "topci"}, "unknown dataset column 'topci': did you mean 'topic'"),
        ({"multi_objective_aggregation": "normalize_then_sum"}, "must be 'sum_then_normalize'"),
    ],
)
def test_settings_are_refused_before_any_work(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    """Guards refusals of the constructor."""
    with pytest.raises(InputError, match=said):
        trainer(tmp_path, **changes)


@pytest.mark.parametrize(
    ("changes", "rewards", "said"),
    [
        ({"estimator": "ebpo_nonparametric"}, [0.5] * 16, r"ebpo_nonparametric needs rewards in \{0, 1\}, got .*0.5"),
        ({}, [math.inf] + [0.0] * 15, "rewards must be finite"),
        (
            {"cluster_column": "topic", "remove_unused_columns": True},
            [0.0] * 16,
            "dataset column 'topic' is missing: add it",
        ),
    ],
)
def test_batches_are_refused_with_the_estimators_words(
    changes: dict[str, Any], rewards: list[float], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards refusals while training: the estimator's message reaches the user, and the state stays as it was."""
    monkeypatch.setattr(Reward, "__call__", lambda self, prompts, completions, **columns: rewards)
    made = trainer(tmp_path, **changes)
    state = made.estimator_state
    with pytest.raises(InputError, match=said):
        made.train()
    assert made.estimator_state is state


@pytest.mark.parametrize("shape", [(6, 1), (8, 2), (7, 1), None])
def test_rewards_of_another_shape_are_refused(
    shape: tuple[int, int] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against a TRL that gathers something else: a row too few, too many functions, a broken group, no tap."""
    made = trainer(tmp_path)
    rows = 6 if shape == (6, 1) else 8

    def generate(self: Any, inputs: list[Any]) -> dict[str, Any]:
        if shape is not None:
            self._calculate_rewards(inputs)
        return {"advantages": torch.zeros(rows), "completion_mask": torch.ones(rows, 4)}

    monkeypatch.setattr(GRPOTrainer, "_calculate_rewards", lambda self, inputs: torch.zeros(shape))
    monkeypatch.setattr(GRPOTrainer, "_generate_and_score_completions", generate)
    with pytest.raises(InputError, match=r"rewards must have shape \(., 1\), in groups of 4, got shape"):
        made._generate_and_score_completions([{}] * rows)


def test_a_low_rank_adapter_trains_the_same_way(tmp_path: Path) -> None:
    """Guards PEFT: LoRA on top, advantages and state as ever, the state in its checkpoint."""
    peft = pytest.importorskip("peft")
    reward = Graded()
    lora = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    made = trainer(tmp_path, reward, peft_config=lora, save_strategy="steps", save_steps=2, max_steps=2)
    made.train()
    expected = replay("ebpo", reward.calls)
    assert [batch["table"] for batch in made.batches] == [found[0] for found in expected]
    assert read_state(tmp_path / "checkpoint-2", made.estimator) == expected[-1][2]
