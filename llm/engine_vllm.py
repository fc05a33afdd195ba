"""Sampling with vLLM in the same process, for models of billions of weights.

The policy's weights are handed over by vLLM's own reload_weights. vLLM samples in its own precision: the ratio of the
objective therefore starts from the trainer's log-probabilities (`learner.with_old_log_probs`), and the distance
between the two is logged as sampler_gap. Run with vLLM 0.32 built for CPUs (`make test-vllm`); not on a GPU.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from ebpo_sim.errors import InputError
from llm.engines import Precision
from llm.hub import merged_weights
from llm.rollouts import Rollouts
from llm.tasks import Problem
from llm.tasks.tokenizer import Tokenizer, pad_left, pad_right

# Compiling takes longer than it saves; a prompt cut in two needs a generator that can be set back (vLLM 0.32).
ON_CPUS = {"enforce_eager": True, "enable_chunked_prefill": False}
MEMORY_SHARE = 0.35  # of the GPU, for vLLM's own copy of the weights and its cache; the trainer has the rest


def check(name: str, device: str) -> Any:
    """vLLM, the library. Raises InputError without it, for a device it was not built for, and for a model made from
    scratch."""
    if name == "scratch":
        raise InputError("--engine vllm loads a model by name or folder: name one with --model, or use --engine hf")
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # weights are handed over within this process
    try:
        import vllm
        from vllm.platforms import current_platform
    except ImportError as error:
        raise InputError("--engine vllm needs vLLM: pip install vllm, or use --engine hf") from error
    built = current_platform.device_type
    if device.split(":")[0] != built:
        raise InputError(f"--engine vllm: the vLLM installed here is built for {built or 'another device'}, got "
                         f"--device {device!r}: name that one, or use --engine hf")  # fmt: skip
    return vllm


class VLLMEngine:
    """See `llm.engines.Engine`. Entropies and score norms are not known to vLLM and are NaN.

    model: ours, whose weights vLLM is given before it samples; None: the one it reads itself. Raises what `check` does.
    """

    chunk = 1 << 20  # vLLM queues by itself

    def __init__(
        self, name: str, model: PreTrainedModel | None, tokenizer: Tokenizer, max_new: int, where: Precision,
        top_p: float = 1.0,
    ) -> None:  # fmt: skip
        vllm = check(name, str(where.device))
        self.model, self.tokenizer, self.max_new, self.where, self.top_p = model, tokenizer, max_new, where, top_p
        self._vllm = vllm
        self._engine = vllm.LLM(
            model=name,
            dtype="bfloat16" if where.dtype == "bf16" else "float32",
            gpu_memory_utilization=MEMORY_SHARE,
            logprobs_mode="processed_logprobs",  # those of the distribution that is sampled from
            **(ON_CPUS if where.device.type == "cpu" else {}),
        )
        self._stale = model is not None  # without one of ours, vLLM's is the policy

    def sample(self, problems: Sequence[Problem], group_size: int, seed: int, temperature: float = 1.0) -> Rollouts:
        """See `Engine.sample`."""
        if group_size < 1 or temperature < 0:
            raise InputError(f"group_size must be at least 1, temperature at least 0, got {group_size}, {temperature}")
        if temperature == 0 and group_size > 1:
            raise InputError(f"vLLM gives one answer at --temperature 0, got {group_size} to be sampled: ask for one")
        if self._stale:
            self._load_weights()
        rows = [self.tokenizer.prompt(p) for p in problems]
        parameters = [
            self._vllm.SamplingParams(
                n=group_size, temperature=temperature, top_p=self.top_p, top_k=0, max_tokens=self.max_new, logprobs=0,
                seed=(seed + i * group_size) % 2**31,  # vLLM counts it up for the answers of a group
                stop_token_ids=list(self.tokenizer.eos_ids), detokenize=False,
            )
            for i in range(len(rows))
        ]  # fmt: skip
        said = self._engine.generate(
            [{"prompt_token_ids": row} for row in rows], sampling_params=parameters, use_tqdm=False
        )
        answers = [answer for output in said for answer in sorted(output.outputs, key=lambda one: one.index)]
        return self._arranged([row for row in rows for _ in range(group_size)], answers)

    def _arranged(self, prompts: Sequence[Sequence[int]], answers: Sequence[Any]) -> Rollouts:
        """vLLM's outputs in the layout of `Rollouts`."""
        pad = self.tokenizer.pad_id
        prompt_NL, prompt_mask_NL = pad_left(prompts, pad)
        tokens_NT, mask_NT = pad_right([list(one.token_ids) for one in answers], pad)
        log_prob_NT = torch.zeros(tokens_NT.shape)
        for i, one in enumerate(answers):
            values = [by_token[token].logprob for token, by_token in zip(one.token_ids, one.logprobs, strict=True)]
            log_prob_NT[i, : len(values)] = torch.tensor(values)
        finished_N = torch.tensor([one.token_ids[-1] in self.tokenizer.eos_ids for one in answers])
        unknown_NT = torch.full_like(log_prob_NT, math.nan)
        parts = (prompt_NL, prompt_mask_NL, tokens_NT, mask_NT, log_prob_NT, unknown_NT, finished_N, unknown_NT[:, 0])
        return Rollouts(*(part.to(self.where.device) for part in parts))

    def sync(self) -> None:
        """The policy's weights changed: they are handed over before the next sampling."""
        self._stale = self.model is not None

    def _load_weights(self) -> None:
        ours = self.model
        assert ours is not None
        self._engine.collective_rpc("reload_weights", kwargs={"weights_iterator": merged_weights(ours)})
        self._engine.reset_prefix_cache()
        self._stale = False
