"""The vLLM engine against a stand-in of vLLM's documented interface: what it asks, what it makes of the answers."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest

pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # llm runs from the checkout; it is not installed

import torch
from transformers import AutoModelForCausalLM

from ebpo_sim import InputError
from llm import evaluate, hub, rollouts, run
from llm.engine_vllm import VLLMEngine
from llm.engines import Precision, precision
from llm.outcomes import sampled_outcomes
from llm.settings import Settings
from llm.tasks import load_problems, make_verifier
from llm_toys import save_model

CPU = precision("cpu", "fp32")
GPU = Precision(torch.device("cuda"), "fp32")


class StandIn:
    """vllm.LLM as documented: prompts by token ids, n answers each with the log-probability of every token."""

    made: ClassVar[list[StandIn]] = []
    seeds: ClassVar[list[int]] = []  # of every answer so far

    def __init__(self, model: str, **settings: Any) -> None:
        self.theirs, self.settings, self.resets = AutoModelForCausalLM.from_pretrained(model), settings, 0
        StandIn.made.append(self)

    def collective_rpc(self, method: str, kwargs: dict[str, Any]) -> list[None]:
        assert method == "reload_weights"
        self.theirs.load_state_dict({name: weight.clone() for name, weight in kwargs["weights_iterator"]})
        return [None]

    def reset_prefix_cache(self) -> None:
        self.resets += 1

    @torch.no_grad()
    def generate(self, prompts: list[dict], sampling_params: list[Any], use_tqdm: bool) -> list[Any]:
        said = []
        for prompt, asked in zip(prompts, sampling_params, strict=True):
            assert asked.temperature > 0 or asked.n == 1, "n must be 1 when using greedy sampling"
            # vLLM makes a request of every answer and counts the seed up: two answers of one seed share their noise
            seeds = [asked.seed + index for index in range(asked.n)]
            StandIn.seeds += seeds
            generators = [torch.Generator().manual_seed(seed) for seed in seeds]
            outputs = [self._answer(prompt["prompt_token_ids"], asked, g, index) for index, g in enumerate(generators)]
            said.append(SimpleNamespace(outputs=outputs[::-1]))  # the order is not promised, the index is
        return said

    def _answer(self, prompt: list[int], asked: Any, generator: torch.Generator, index: int) -> Any:
        ids, log_probs = list(prompt), []
        while len(log_probs) < asked.max_tokens and (not log_probs or ids[-1] not in asked.stop_token_ids):
            logits = self.theirs(input_ids=torch.tensor([ids])).logits[0, -1] / (asked.temperature or 1.0)
            spread = torch.log_softmax(logits, dim=-1)
            greedy = asked.temperature == 0
            token = int(spread.argmax() if greedy else torch.multinomial(spread.exp(), 1, generator=generator))
            log_probs.append({token: SimpleNamespace(logprob=float(spread[token]))})
            ids.append(token)
        return SimpleNamespace(index=index, token_ids=ids[len(prompt) :], logprobs=log_probs)


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module `vllm` with the two names that the engine uses."""
    module = ModuleType("vllm")
    module.LLM, module.SamplingParams = StandIn, SimpleNamespace  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", module)
    platforms = ModuleType("vllm.platforms")
    platforms.current_platform = SimpleNamespace(device_type="cpu")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm.platforms", platforms)
    StandIn.made.clear()
    StandIn.seeds.clear()


def engine_on_the_cpu(folder: Path, model: Any, tokenizer: Any) -> VLLMEngine:
    return VLLMEngine(str(folder), model, tokenizer, 10, CPU)


@pytest.mark.parametrize("temperature", [1.0, 1.3])
def test_rollouts_are_those_of_the_policy(vllm: None, temperature: float, tmp_path: Path) -> None:
    """Guards layout and weights: after a change of the policy the answers' log-probabilities are the new policy's."""
    folder = save_model(tmp_path)
    model, tokenizer = hub.load(str(folder), CPU)
    engine, problems = engine_on_the_cpu(folder, model, tokenizer), load_problems("sample")[:4]
    before = engine.sample(problems, 3, 5, temperature)
    again = engine.sample(problems, 3, 5, temperature)
    assert torch.equal(before.tokens_NT, again.tokens_NT) and StandIn.made[0].resets == 1
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.05)
    engine.sync()
    found = engine.sample(problems, 3, 5, temperature)
    assert StandIn.made[0].resets == 2
    for rolled, expected in ((before, False), (found, True)):
        with torch.no_grad():
            trained = rollouts.log_probs(model, *rolled[:4], temperature)
        assert (((trained - rolled.log_prob_NT) * rolled.mask_NT).abs().max() < 1e-5) == expected
    for tokens, mask, finished in zip(found.tokens_NT.tolist(), found.mask_NT, found.finished_N, strict=True):
        n = int(mask.sum())
        assert (tokens[n - 1] in tokenizer.eos_ids) == finished and not set(tokens[: n - 1]) & set(tokenizer.eos_ids)
    assert found.finished_N.any() and not found.finished_N.all() and found.entropy_NT.isnan().all()
    prompts = [tokenizer.prompt(p) for p in problems]
    assert found.prompt_NL[5][found.prompt_mask_NL[5]].tolist() == prompts[1]
    assert StandIn.made[0].settings["logprobs_mode"] == "processed_logprobs"


@pytest.mark.parametrize("seed", [0, 2**31 - 3, 2**62 - 1])
def test_no_two_answers_share_their_noise(vllm: None, seed: int, tmp_path: Path) -> None:
    """Guards independent answers: one prompt eight times, four answers each, every answer with a seed of its own.

    The calls of one evaluation are told apart too: it is asked for in three calls.
    """
    folder = save_model(tmp_path)
    engine = engine_on_the_cpu(folder, *hub.load(str(folder), CPU))
    problems = load_problems("sample")[:1] * 8
    engine.sample(problems, 4, seed)
    assert len(set(StandIn.seeds)) == 32
    StandIn.seeds.clear()
    engine.chunk = 12
    sampled_outcomes(engine, make_verifier("exact"), problems, 4, seed)
    assert len(set(StandIn.seeds)) == len(StandIn.seeds) == 32


def test_greedy_answers(vllm: None, tmp_path: Path) -> None:
    """Guards temperature 0: one answer a prompt works, more are refused before vLLM is asked."""
    folder = save_model(tmp_path)
    engine, problems = engine_on_the_cpu(folder, *hub.load(str(folder), CPU)), load_problems("sample")[:2]
    assert torch.equal(engine.sample(problems, 1, 0, 0.0).tokens_NT, engine.sample(problems, 1, 9, 0.0).tokens_NT)
    with pytest.raises(InputError, match=r"one answer at --temperature 0, got 4"):
        engine.sample(problems, 4, 0, 0.0)


@pytest.mark.filterwarnings("ignore:.*is_activation_checkpointing:FutureWarning")  # peft 0.21 asks transformers so
def test_adapters_are_added_to_a_copy(tmp_path: Path) -> None:
    """Guards LoRA under vLLM: the weights handed over are those of peft's own merge, and the policy keeps its own."""
    pytest.importorskip("peft")
    folder = save_model(tmp_path)
    model, _ = hub.load(str(folder), CPU, lora_rank=2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(0))
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    found = dict(hub.merged_weights(model))
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
    expected = model.merge_and_unload().state_dict()
    assert set(found) == set(expected)
    assert max(float((found[name] - expected[name]).abs().max()) for name in found) < 1e-6
    plain, _ = hub.load(str(folder), CPU)
    assert any(not torch.equal(found[name], value) for name, value in plain.state_dict().items())


def test_what_vllm_cannot_do_is_refused(vllm: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Guards refusals: a vLLM of another device, no named model, no vLLM, no rollouts."""
    folder = save_model(tmp_path)
    model, tokenizer = hub.load(str(folder), CPU)
    with pytest.raises(InputError, match=r"is built for cpu, got --device 'cuda'"):
        VLLMEngine(str(folder), model, tokenizer, 10, GPU)
    with pytest.raises(InputError, match=r"name one with --model"):
        VLLMEngine("scratch", model, tokenizer, 10, CPU)
    with pytest.raises(InputError, match="at least 1"):
        engine_on_the_cpu(folder, model, tokenizer).sample(load_problems("sample")[:1], 0, 0)
    assert (
        engine_on_the_cpu(folder, model, tokenizer).sample(load_problems("sample")[:1], 2, 0).score_norm_N.isnan().all()
    )
    needy = SimpleNamespace(name="weighted", needs=lambda: {"score_norms"})
    monkeypatch.setattr(run, "parse_method", lambda *_: needy)
    with pytest.raises(InputError, match=r"weighted needs score_norms, which --engine vllm does not .* --engine hf"):
        run.prepare(Settings(engine="vllm", model=str(folder)), tmp_path, ())
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(InputError, match="pip install vllm"):
        VLLMEngine(str(folder), model, tokenizer, 10, CPU)


def test_an_evaluation(vllm: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Guards --engine vllm: the model is read by vLLM alone, --top-p is asked for, score norms are no numbers."""
    folder = save_model(tmp_path / "model")
    (tmp_path / "set.jsonl").write_text('{"prompt": "q", "answer": "a"}\n{"prompt": "r", "answer": "a"}')
    monkeypatch.setattr(evaluate, "load_policy", None)
    asked: list[float] = []
    monkeypatch.setattr(
        StandIn,
        "generate",
        lambda self, prompts, sampling_params, use_tqdm, real=StandIn.generate: (
            asked.extend(p.top_p for p in sampling_params),
            real(self, prompts, sampling_params, use_tqdm),
        )[1],
    )
    argv = [str(folder), "--dataset", str(tmp_path / "set.jsonl"), "--engine", "vllm", "--top-p", "0.8"]
    argv += ["--verifier", "exact", "--samples", "3", "--max-new", "2", "--out", str(tmp_path / "out")]
    evaluate.main(argv)
    assert asked == [0.8, 0.8] and StandIn.made[0].resets == 0
    lines = (tmp_path / "out/answers.jsonl").read_text().splitlines()
    assert len(lines) == 6 and all('"score_norm": null' in line for line in lines)
    assert not (tmp_path / "out/score_norms.csv").exists() and (tmp_path / "out/scores.csv").is_file()
