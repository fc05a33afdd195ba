"""verl's rollout by transformers on a CPU: a Ray actor that answers requests, and the adapter that hands it weights.

An answer depends on the weights' step, its prompt and how many answers that prompt had at the step, not on the order
in which requests arrive: a resumed run samples what the uninterrupted one did.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from typing import Any
from zlib import crc32

import ray
import torch
from verl.workers.rollout.base import BaseRollout
from verl.workers.rollout.replica import RolloutReplica, TokenOutput
from verl.workers.rollout.utils import ensure_async_iterator


def _name(rank: int) -> str:
    return f"cpu_server_{rank}"


class Server:
    """The sampler: one answer at a time, no padding, no cache."""

    def __init__(self, path: str, longest: int) -> None:
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(1)
        self.model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        self.longest, self.step, self.asked = longest, 0, Counter[tuple[int, ...]]()

    async def load_weights(self, weights: dict[str, torch.Tensor], step: int | None) -> None:
        """All of the trainer's weights, at its step."""
        self.model.load_state_dict(weights, strict=True)
        self.step = self.step if step is None else step
        self.asked.clear()

    async def generate(self, prompt_ids: Sequence[int], sampling_params: dict[str, Any], **_: Any) -> TokenOutput:
        """verl's contract: an answer's tokens and their log-probabilities."""
        return self._answer(prompt_ids, sampling_params)

    @torch.no_grad()
    def _answer(self, prompt_ids: Sequence[int], sampling_params: dict[str, Any]) -> TokenOutput:
        prompt, temperature = tuple(prompt_ids), sampling_params["temperature"]
        seed = crc32(repr((self.step, prompt, self.asked[prompt])).encode())
        self.asked[prompt] += 1
        stream, tokens, log_probs = torch.Generator().manual_seed(seed), list(prompt), []
        ends = self.model.generation_config.eos_token_id
        while len(log_probs) < self.longest and tokens[-1:] not in [[end] for end in ends if log_probs]:
            logits = self.model(torch.tensor([tokens])).logits[0, -1]
            log_prob_V = (logits / (temperature or 1.0)).log_softmax(dim=-1)
            greedy = temperature == 0
            token = log_prob_V.argmax() if greedy else torch.multinomial(log_prob_V.exp(), 1, generator=stream)[0]
            tokens.append(int(token))
            log_probs.append(float(log_prob_V[token]))
        return TokenOutput(
            token_ids=tokens[len(prompt) :],
            log_probs=log_probs,
            stop_reason="completed",
            extra_fields={"global_steps": self.step},
        )

    async def _nothing(self, *_: Any, **__: Any) -> None:
        return None

    wake_up = sleep = clear_kv_cache = release_kv_cache = resume_kv_cache = _nothing
    abort_all_requests = resume_generation = _nothing


class Replica(RolloutReplica):
    """Starts the server of one replica."""

    async def launch_servers(self) -> None:
        options = {"name": _name(self.replica_rank), "num_cpus": 0, "max_concurrency": self.max_concurrency}
        server = ray.remote(Server).options(**options).remote(self.model_config.path, self.config.response_length)
        self.servers, self._server_handle, self._server_address = [server], server, _name(self.replica_rank)


class Adapter(BaseRollout):
    """The trainer's side of it: every rank gathers the sharded weights, and hands them to its own server."""

    def __init__(self, config: Any, model_config: Any, device_mesh: Any, replica_rank: int = -1) -> None:
        super().__init__(config, model_config, device_mesh)
        self.rank = int(os.environ["RANK"]) if replica_rank < 0 else replica_rank

    async def resume(self, tags: list[str]) -> None:
        """Nothing was released."""

    async def release(self) -> None:
        """A CPU keeps it all."""

    async def update_weights(self, weights: Any, global_steps: int | None = None, **_: Any) -> None:
        """Named whole tensors, in the sampler's precision."""
        whole = {name: tensor.detach().float().clone() async for name, tensor in ensure_async_iterator(weights)}
        await ray.get_actor(_name(self.rank)).load_weights.remote(whole, global_steps)
