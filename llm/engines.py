"""Engines turn problems into rollouts; whatever engine, the training forward stays the one of `rollouts`.

`HFEngine` samples with the policy being trained. `llm.engine_vllm` does so with vLLM, where that is installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple, Protocol

import torch
from transformers import PreTrainedModel

from ebpo_sim.errors import InputError
from llm import rollouts
from llm.rollouts import Rollouts
from llm.tasks import Problem, Verifier
from llm.tasks.tokenizer import Tokenizer, pad_left


class Precision(NamedTuple):
    """Where and how forwards are computed: weights keep their own type, "bf16" computes in bfloat16 by autocast."""

    device: torch.device
    dtype: str = "fp32"

    def context(self) -> AbstractContextManager[object]:
        """Around every forward of the policy, sampling and training alike."""
        if self.dtype == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()


def precision(device: str, dtype: str) -> Precision:
    """Raises InputError for a device that is not there and an unknown type."""
    if dtype not in ("fp32", "bf16"):
        raise InputError(f"--dtype must be fp32 or bf16, got {dtype!r}")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"--device must be cpu, cuda or cuda:N, got {device!r}: {error}") from error
    if found.type not in ("cpu", "cuda"):
        raise InputError(f"--device must be cpu, cuda or cuda:N, got {device!r}")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise InputError(f"--device {device!r} is not there: torch sees {torch.cuda.device_count()} GPUs; use cpu")
    return Precision(found, dtype)


class Engine(Protocol):
    """What trainers and evaluations ask of a sampler.

    tokenizer: of the prompts and answers. max_new: tokens an answer may have, end token included. chunk: answers that
    an evaluation should ask for at once.
    """

    tokenizer: Tokenizer
    max_new: int
    chunk: int

    def sample(self, problems: Sequence[Problem], group_size: int, seed: int, temperature: float = 1.0) -> Rollouts:
        """`group_size` answers to each problem, the answers of a problem together; same seed, same answers."""

    def sync(self) -> None:
        """Called after every update of the policy's weights."""


class HFEngine:
    """Samples with the model itself, `rows` answers at a time (0: all at once). top_p: see `rollouts.sample`."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: Tokenizer, max_new: int, where: Precision, rows: int = 0,
        top_p: float = 1.0,
    ) -> None:  # fmt: skip
        with where.context():
            rollouts.check_cache(model)
        self.model, self.tokenizer, self.max_new, self.where, self.rows = model, tokenizer, max_new, where, rows
        self.top_p = top_p
        self.chunk = rows or (512 if where.device.type == "cpu" else 4096)

    def sample(self, problems: Sequence[Problem], group_size: int, seed: int, temperature: float = 1.0) -> Rollouts:
        """See `Engine.sample`; a seed gives the same answers on the same device with the same `rows`."""
        generator = torch.Generator(device=self.where.device).manual_seed(seed)
        per_call = max(1, self.rows // max(1, group_size)) if self.rows else len(problems)
        parts = []
        with self.where.context():
            for start in range(0, len(problems), per_call):
                ids, mask = pad_left([self.tokenizer.prompt(p) for p in problems[start : start + per_call]],
                                     self.tokenizer.pad_id)  # fmt: skip
                ids, mask = ids.to(self.where.device), mask.to(self.where.device)
                fixed = (group_size, self.max_new, self.tokenizer, generator, temperature, self.top_p)
                parts.append(rollouts.sample(self.model, ids, mask, *fixed))
        return rollouts.join(parts, self.tokenizer.pad_id)

    def sync(self) -> None:
        """Nothing to do: the model is the policy."""


class Answered(NamedTuple):
    """Rollouts with their texts and verdicts, one an answer."""

    rolled: Rollouts
    texts: list[str | None]
    rewards: list[float]


def answer(
    engine: Engine,
    verifier: Verifier,
    problems: Sequence[Problem],
    group_size: int,
    seed: int,
    temperature: float = 1.0,
) -> Answered:
    """Sample and verify: an answer without its end token scores 0."""
    rolled = engine.sample(problems, group_size, seed, temperature)
    texts = rollouts.answers(rolled, engine.tokenizer)
    return Answered(rolled, texts, verifier.scores(texts, [p for p in problems for _ in range(group_size)]))
