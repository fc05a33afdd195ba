"""The training forward of packed rows against the plain one: log-probabilities, gradients, and who may pack."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # llm runs from the checkout; it is not installed

import torch
import transformers

from llm import forward, learner, policy, rollouts
from llm.problems import task
from llm.rollouts import Rollouts
from llm.run import Run, prepare
from llm.settings import Settings
from llm_toys import save_model

TINY = Settings(
    estimator="ebpo", prompts=8, steps=4, lr=1e-12, topics="count,mod", max_level=3, per_cell=24, eval_per_cell=4,
    sft_steps=0, hidden=32, layers=2, heads=4, kv_heads=2, grad_clip=1e9,
)  # fmt: skip
SHAPE = {
    "vocab_size": 101, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0, "eos_token_id": 1,
}  # fmt: skip


def ragged(prompts: int = 20, group: int = 4, most: int = 9, seed: int = 0) -> Rollouts:
    """Answers and prompts of all lengths, the prompts padded on the left with a token that also occurs in them; two
    prompts are one the other's end, and two groups have the same prompt."""
    g = torch.Generator().manual_seed(seed)
    prompt_P = torch.randint(1, most + 1, (prompts,), generator=g)
    ids = torch.randint(0, 30, (prompts, most), generator=g)
    mask = torch.arange(most) >= most - prompt_P[:, None]
    ids[1], mask[1], mask[0] = ids[0], mask[0], True
    ids[3], mask[3] = ids[2], mask[2]
    n = prompts * group
    length = torch.randint(1, most + 1, (n,), generator=g)
    answer = torch.arange(most) < length[:, None]
    old = torch.randn((n, most), generator=g) * 0.1 - 3
    return Rollouts(
        (ids * mask).repeat_interleave(group, 0), mask.repeat_interleave(group, 0),
        torch.randint(0, 30, (n, most), generator=g) * answer, answer, old, old, length > 0, length * 1.0,
    )  # fmt: skip


def gradients(run: Run, rolled: Rollouts, settings: Settings, packs: bool) -> torch.Tensor:
    """Of one optimizer step on the whole batch, or the last mini-batch."""
    run.packs, run.settings = packs, settings
    advantage = torch.randn(len(rolled.mask_NT), generator=torch.Generator().manual_seed(3))
    advantage[::5] = 0.0
    groups = torch.arange(len(advantage)) // 4
    learner.update(run, rolled, advantage, 1e-12, groups, len(advantage))
    return torch.cat([p.grad.flatten() for p in run.model.parameters() if p.grad is not None])


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return tmp_path_factory.mktemp("toys")


@pytest.mark.filterwarnings("ignore:.*is_activation_checkpointing:FutureWarning")  # peft 0.21 asks transformers so
@pytest.mark.parametrize(
    "change",
    [
        {}, {"kl_coef": 0.1}, {"mini_batch": 4, "updates": 2}, {"micro_rows": 7}, {"gradient_checkpointing": True},
        {"temperature": 0.7, "aggregation": "sequence_mean"}, {"noise_parts": 3}, {"dtype": "bf16"}, {"lora_rank": 4},
    ],
    ids=str,
)  # fmt: skip
def test_packed_rows_have_the_gradient_of_the_plain_forward(change: dict, toys: Path) -> None:
    """Guards every way to a gradient, on ragged batches: equal to 1e-5 relative; in bfloat16 to its rounding."""
    settings = replace(TINY, **change)
    if "lora_rank" in change:
        pytest.importorskip("peft")
        settings = replace(settings, model=str(save_model(toys / "model")), chat="no")
    problems, held = task(settings)
    run = prepare(settings, toys / "cache", problems, held)
    assert run.packs
    if run.reference is not None:
        for weight in run.reference.parameters():
            weight.data += 0.01 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    rolled = ragged(8)
    packed, plain = (gradients(run, rolled, settings, packs) for packs in (True, False))
    error = float((packed - plain).norm() / plain.norm())
    assert plain.norm() > 1e-4 and 0 < error < (0.05 if settings.dtype == "bf16" else 1e-5)


def test_packed_rows_are_computed_once_a_prompt(toys: Path) -> None:
    """Guards the saving and its bound: fewer tokens reach the model, and never more than rows apart would be."""
    model = policy.build(TINY, 1)
    seen: list[int] = []
    model.get_decoder().register_forward_pre_hook(
        lambda _, __, given: seen.append(given["input_ids"].numel()), with_kwargs=True
    )
    rolled = ragged()
    one_each = rolled.rows(torch.arange(0, 80, 4))
    lopsided = rolled.rows(torch.tensor([0, *range(8, 80, 8), 9, 10, 11]))
    for part, most in ((rolled, 0.65), (one_each, 1.0), (lopsided, 1.0)):
        seen.clear()
        with torch.no_grad():
            found = forward.log_probs(model, part)
            expected = rollouts.log_probs(model, *part[:4])
        assert sum(seen[:-1]) <= most * part.mask_NT.numel() + most * part.prompt_NL.numel()
        assert (found - expected * part.mask_NT).abs().max() < 1e-5
    assert forward.log_probs(model, rolled.rows(torch.arange(0))).shape == (0, 0)


def test_long_answers_stay_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards ROOM: answers are packed as far as it goes, and where no two fit rows stay apart, by length."""
    model, rolled = policy.build(TINY, 1), ragged()
    with torch.no_grad():
        expected = rollouts.log_probs(model, *rolled[:4]) * rolled.mask_NT
        for room, packed in ((9 + 9 * 2, True), (9 + 9 * 3, True), (9 + 9, False)):
            monkeypatch.setattr(forward, "ROOM", room)
            assert (forward.answers_a_row(rolled) > 1) == packed
            assert (forward.log_probs(model, rolled) - expected).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("name", "change", "packs"),
    [
        ("Qwen3", {"head_dim": 8}, True),
        ("Qwen2", {}, True),
        ("Llama", {}, True),
        ("Llama", {"attn_implementation": "eager"}, False),
        ("Mistral", {"sliding_window": 8, "head_dim": 8}, False),
        ("Gemma2", {"sliding_window": 8, "head_dim": 8}, False),
        ("Cohere", {"logit_scale": 0.5}, False),
        ("Mamba", {"state_size": 4}, False),
    ],
    ids=str,
)
def test_who_packs(name: str, change: dict, packs: bool) -> None:
    """Guards the way back to the plain forward: windows, recurrent states and scaled logits do not pack."""
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}ForCausalLM")(getattr(transformers, f"{name}Config")(**SHAPE, **change))
    assert forward.can_pack(model.eval()) == packs
    rolled = ragged()
    with torch.no_grad():
        found = forward.log_probs(model, rolled, packs=packs)
        expected = rollouts.log_probs(model, *rolled[:4]) * rolled.mask_NT
    assert name == "Mamba" or (found - expected).abs().max() < 1e-5
