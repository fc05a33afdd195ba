"""The sampler of llm/ against the training forward, and its masks."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # llm runs from the checkout; it is not installed
import torch

from ebpo_sim import InputError
from llm import policy, rollouts
from llm.engines import HFEngine, answer, precision
from llm.settings import Settings
from llm.tasks import CELLS, CharTokenizer, Problem, make_verifier, pool
from llm.tasks.tokenizer import pad_left

TOKENIZER = CharTokenizer()
SHAPES = {
    "qwen3": Settings(arch="qwen3", hidden=32, layers=2, heads=4, kv_heads=4),
    "qwen3 grouped": Settings(arch="qwen3", hidden=32, layers=2, heads=4, kv_heads=2),
    "llama grouped": Settings(arch="llama", hidden=32, layers=2, heads=4, kv_heads=1),
}


def padded(problems: list[Problem]):
    return pad_left([TOKENIZER.prompt(p) for p in problems], TOKENIZER.pad_id)


def rolled(shape: Settings, group_size: int = 3, temperature: float = 1.0, max_new: int = 9):
    torch.set_num_threads(1)
    model = policy.build(shape, 1)
    with torch.no_grad():  # a bias to the end token, so that rows finish at many lengths
        model.get_input_embeddings().weight[TOKENIZER.eos_ids[0]] *= 4
    problems = pool("train", CELLS, 1, 0)
    ids, mask = padded(problems)
    generator = torch.Generator().manual_seed(5)
    found = rollouts.sample(model, ids, mask, group_size, max_new, TOKENIZER, generator, temperature)
    return model, problems, found


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_sampler_log_probabilities_are_those_of_the_training_forward(shape: Settings, temperature: float) -> None:
    """Guards the ratio: it is 1 at the first update, whatever was padded, finished or dropped from the cache."""
    model, _, found = rolled(shape, temperature=temperature)
    lengths = found.mask_NT.sum(dim=1)
    assert lengths.min() < lengths.max() and found.finished_N.any()  # rows were dropped on the way
    with torch.no_grad():
        trained = rollouts.log_probs(
            model, found.prompt_NL, found.prompt_mask_NL, found.tokens_NT, found.mask_NT, temperature
        )
    assert ((trained - found.log_prob_NT) * found.mask_NT).abs().max() < 1e-5


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_score_norms_are_the_squared_gradient_in_the_logits(temperature: float) -> None:
    """Guards W: by autograd in the training forward, of answers that were padded, finished and dropped."""
    model, _, found = rolled(SHAPES["qwen3 grouped"], temperature=temperature)
    seen = torch.cat([found.prompt_mask_NL, found.mask_NT], dim=1)
    ids = torch.cat([found.prompt_NL, found.tokens_NT], dim=1)
    with torch.no_grad():
        said = model(input_ids=ids, attention_mask=seen.long(), position_ids=rollouts.positions(seen)).logits
    logits_NTV = (said[:, found.prompt_NL.shape[1] - 1 : -1].double() / temperature).requires_grad_()
    log_prob_NT = torch.log_softmax(logits_NTV, dim=-1).gather(2, found.tokens_NT[..., None])[..., 0]
    (log_prob_NT * found.mask_NT).sum().backward()
    expected_N = logits_NTV.grad.square().sum(dim=(1, 2))
    assert len(found.mask_NT.sum(dim=1).unique()) > 3 and expected_N.std() > 0.1
    assert (found.score_norm_N / expected_N - 1).abs().max() < 1e-5


def test_score_norms_of_all_but_certain_tokens_keep_their_digits() -> None:
    """Guards the formula near pi = 1, where 1 - 2 pi + sum of pi^2 is nothing but rounding in float32."""
    logits = torch.zeros(200, 50)
    logits[:, 3] = torch.linspace(8, 14, 200)
    token, _, _, norm = rollouts._choose(logits, 0.0, torch.Generator())
    p, exact = torch.softmax(logits, dim=-1), torch.softmax(logits.double(), dim=-1)
    expected = (exact[:, 3] - 1).square() + exact[:, 4:].square().sum(dim=-1) * 49 / 46
    assert (token == 3).all() and norm.min() > 0 and (norm / expected - 1).abs().max() < 0.02
    assert ((1 - 2 * p[:, 3] + p.square().sum(dim=-1)) / expected - 1).abs().max() > 0.9


def test_padding_does_not_change_a_prompts_log_probabilities() -> None:
    """Guards positions: a row alone, without its padding, has the same log-probabilities."""
    model, problems, found = rolled(SHAPES["qwen3"])
    for i in (0, 10, 30):
        own, mask = padded([problems[i // 3]])
        n = int(found.mask_NT[i].sum())
        tokens = found.tokens_NT[i : i + 1, :n]
        with torch.no_grad():
            alone = rollouts.log_probs(model, own, mask, tokens, torch.ones_like(tokens, dtype=torch.bool))
        assert (alone[0] - found.log_prob_NT[i, :n]).abs().max() < 1e-5


def test_masks_end_with_the_end_token() -> None:
    """Guards the mask: the end token is in it and nothing after, and an answer without one is a missing answer."""
    _, problems, found = rolled(SHAPES["qwen3"])
    texts = rollouts.answers(found, TOKENIZER)
    assert {text is None for text in texts} == {True, False}
    for tokens, mask, finished, text in zip(*(x.tolist() for x in found[2:4]), found.finished_N, texts, strict=True):
        n = sum(mask)
        assert mask == [True] * n + [False] * (len(mask) - n)
        assert (TOKENIZER.eos_ids[0] in tokens) == finished == (text is not None)
        if finished:
            assert tokens.index(TOKENIZER.eos_ids[0]) == n - 1
        assert set(tokens[n:]) <= {TOKENIZER.pad_id}
    engine: Any = SimpleNamespace(tokenizer=TOKENIZER, sample=lambda *_: found)
    answered = answer(engine, make_verifier("exact"), problems, 3, 0)
    assert answered.texts == texts
    assert answered.rewards == [float(text == problems[i // 3].answer) for i, text in enumerate(texts)]


def test_greedy_sampling_is_the_argmax_without_a_cache() -> None:
    """Guards the cache: a hand loop that recomputes everything finds the same greedy answer."""
    model, problems, found = rolled(SHAPES["llama grouped"], group_size=1, temperature=0.0)
    for i in (0, 7, 20):
        ids = TOKENIZER.encode(problems[i].prompt)
        start = len(ids)
        while len(ids) - start < 9 and ids[-1] != TOKENIZER.eos_ids[0]:
            with torch.no_grad():
                ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        assert found.tokens_NT[i][found.mask_NT[i]].tolist() == ids[start:]


def test_sampling_follows_the_distribution() -> None:
    """Guards the draw: first-token frequencies of 4000 answers agree with the model's probabilities (4.5 SE)."""
    torch.set_num_threads(1)
    model = policy.build(SHAPES["qwen3"], 1)
    ids, mask = pad_left([TOKENIZER.encode("1+2=")], TOKENIZER.pad_id)
    found = rollouts.sample(model, ids, mask, 4000, 1, TOKENIZER, torch.Generator().manual_seed(0))
    with torch.no_grad():
        p = torch.softmax(model(input_ids=ids).logits[0, -1], dim=-1)
    seen = torch.bincount(found.tokens_NT[:, 0], minlength=TOKENIZER.vocab_size) / 4000
    assert ((seen - p).abs() / (p * (1 - p) / 4000).sqrt()).max() < 4.5


def test_sampling_in_pieces_keeps_prompts_and_log_probabilities() -> None:
    """Guards --sample-rows: pieces of other widths are joined so that the training forward still agrees."""
    torch.set_num_threads(1)
    model = policy.build(SHAPES["qwen3"], 1)
    problems = sorted(pool("train", CELLS, 1, 0), key=lambda p: len(p.prompt))  # each piece has its own width
    whole, pieces = (
        HFEngine(model, TOKENIZER, 9, precision("cpu", "fp32"), rows).sample(problems, 2, 0) for rows in (0, 8)
    )
    assert torch.equal(pieces.prompt_NL, whole.prompt_NL)
    assert torch.equal(pieces.prompt_mask_NL, whole.prompt_mask_NL)
    assert len(pieces.score_norm_N) == len(whole.score_norm_N) and pieces.score_norm_N.min() > 0
    with torch.no_grad():
        trained = rollouts.log_probs(model, *pieces[:4])
    assert ((trained - pieces.log_prob_NT) * pieces.mask_NT).abs().max() < 1e-5
    assert pieces.mask_NT.any(dim=1).all() and not torch.equal(pieces.tokens_NT, whole.tokens_NT)


def test_chosen_rows_are_trimmed_and_unchanged() -> None:
    """Guards micro-batches: rows taken out lose padding on both sides and nothing else."""
    model, _, found = rolled(SHAPES["qwen3"])
    lengths = found.prompt_mask_NL.sum(dim=1)
    index = torch.nonzero(lengths < lengths.max())[:, 0]  # of several lengths, none the longest
    assert len(lengths[index].unique()) > 2
    some = found.rows(index)
    assert torch.equal(some.prompt_mask_NL.sum(dim=1), lengths[index])
    assert torch.equal(some.mask_NT.sum(dim=1), found.mask_NT.sum(dim=1)[index])
    assert some.prompt_mask_NL[:, 0].any() and some.prompt_NL.shape[1] < found.prompt_NL.shape[1]
    assert some.mask_NT[:, -1].any() and torch.equal(some.score_norm_N, found.score_norm_N[index])
    with torch.no_grad():
        apart, together = rollouts.log_probs(model, *some[:4]), rollouts.log_probs(model, *found[:4])[index]
    width = some.tokens_NT.shape[1]
    assert ((apart - together[:, :width]) * some.mask_NT).abs().max() < 1e-5
    assert found.rows(index[:0]).tokens_NT.shape == (0, 0)


@pytest.mark.parametrize(("group_size", "max_new", "temperature"), [(0, 9, 1.0), (2, 0, 1.0), (2, 9, -1.0)])
def test_impossible_requests_are_refused(group_size: int, max_new: int, temperature: float) -> None:
    with pytest.raises(InputError, match="at least"):
        rolled(SHAPES["qwen3"], group_size, temperature, max_new)


@pytest.mark.parametrize(("device", "dtype"), [("tpu9", "fp32"), ("cuda:99", "fp32"), ("cpu", "fp8")])
def test_impossible_devices_are_refused(device: str, dtype: str) -> None:
    """Guards --device and --dtype: what is not there is refused by name."""
    with pytest.raises(InputError, match=r"--device|--dtype"):
        precision(device, dtype)


@pytest.mark.parametrize(
    "shape", [Settings(arch="gpt"), Settings(hidden=30), Settings(kv_heads=3)], ids=["arch", "hidden", "heads"]
)
def test_impossible_models_are_refused(shape: Settings) -> None:
    with pytest.raises(InputError):
        policy.build(shape, 0)
