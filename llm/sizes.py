"""How large a run is, before anything of it is allocated; and the sizes that are chosen where none was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from ebpo_sim import budget, cli, report
from ebpo_sim.errors import InputError
from llm.engines import Precision
from llm.settings import Settings
from llm.tasks import Problem

PROMPTS = 64  # a step, unless --prompts says otherwise or there are fewer
BATCH = 12 * 2**30  # bytes that one backward pass of a named model may hold: 5 answers of 512 tokens at 0.6B parameters
CACHE = 8 * 2**30  # bytes of keys and values that one call of its sampler may hold
GPU_SHARE = 0.9
FLOAT = 4


class Dimensions(NamedTuple):
    """What decides the memory of a causal language model; cache: numbers kept a token by its key-value cache."""

    parameters: int
    vocabulary: int
    hidden: int
    layers: int
    cache: int


class Length(NamedTuple):
    """Tokens at most: of an answer, and of a prompt with its answer."""

    answer: int
    whole: int


def use_threads(count: int) -> None:
    """Give torch its threads. Raises InputError for more than this process has cores."""
    cores = cli.available_cores()
    if count > cores:
        raise InputError(f"--threads must be at most {cores}, the cores of this process, got {count}: lower it")
    torch.set_num_threads(count)


def fitted(settings: Settings, problems: Sequence[Problem]) -> Settings:
    """The settings with --prompts chosen where it is 0; that there are fewer problems than usual is said."""
    if settings.order in ("blocked", "alternating") and len({p.cell.topic for p in problems}) == 1:
        same = f"all problems have the topic {problems[0].cell.topic!r}, so this order is shuffled"
        report.say(f"--order {settings.order}: {same}")
    if settings.prompts:
        return settings
    most, unit = len(problems), settings.mini_batch or 1
    prompts = max(unit, min(PROMPTS, most) // unit * unit)
    if most < PROMPTS:
        report.say(f"--prompts {prompts}: a batch is drawn from {most} problems")
    return replace(settings, prompts=prompts)


def of_scratch(settings: Settings, vocabulary: int) -> Dimensions:
    """Of the model that `llm.policy.build` makes."""
    hidden, layers = settings.hidden, settings.layers
    cache = 2 * layers * hidden * settings.kv_heads // settings.heads
    attention = 2 * hidden * hidden + hidden * cache // layers
    return Dimensions(
        vocabulary * hidden + layers * (attention + 9 * hidden * hidden), vocabulary, hidden, layers, cache
    )


def of_config(config: Any) -> Dimensions:
    """Of a named model, from its configuration alone: nothing is allocated."""
    text = config.get_text_config()
    with torch.device("meta"):
        parameters = sum(
            p.numel() for p in AutoModelForCausalLM.from_config(config, trust_remote_code=False).parameters()
        )
    heads = getattr(text, "num_attention_heads", None) or 1
    head = getattr(text, "head_dim", None) or text.hidden_size // heads
    cache = 2 * text.num_hidden_layers * (getattr(text, "num_key_value_heads", None) or heads) * head
    return Dimensions(parameters, text.vocab_size, text.hidden_size, text.num_hidden_layers, cache)


def with_rows(settings: Settings, found: Dimensions, length: Length, answers: int) -> Settings:
    """For a named model: --micro-rows and --sample-rows chosen where they are 0 and `answers` at once are too many."""
    micro = max(1, BATCH // (FLOAT * _kept(found, length)))
    sampled = max(settings.group_size, CACHE // max(1, FLOAT * found.cache * length.whole))
    chosen: dict[str, Any] = {
        name: rows
        for name, rows in (("micro_rows", micro), ("sample_rows", sampled))
        if not getattr(settings, name) and rows < answers
    }
    if chosen:
        said = ", ".join(f"{cli.spelling(name)} {rows}" for name, rows in chosen.items())
        report.say(f"{said}: chosen for the size of {settings.model}")
    return replace(settings, **chosen)


def check_memory(
    settings: Settings, found: Dimensions, length: Length, answers: int, where: Precision, trains: bool
) -> None:
    """Raises InputError where the weights, or a batch's activations, logits and cache, would not fit into memory."""
    copies = 1 if not trains else 2 if settings.lora_rank else 4  # gradients and both moments of AdamW
    copies += settings.kl_coef > 0 and not settings.lora_rank and trains  # the reference
    weights = FLOAT * copies * found.parameters
    scratch = settings.model == "scratch"
    remedy = "lower --hidden or --layers" if scratch else "name a smaller --model, or train adapters with --lora-rank"
    _require(weights, f"a model of {_large(found.parameters)} parameters", remedy, where)
    trained = min(settings.micro_rows or answers, answers) if trains else 0
    sampled = min(settings.sample_rows or answers, answers)
    cache = 2 * found.cache * length.whole + 3 * found.vocabulary
    what = f"training on {_large(trained)} and sampling {_large(sampled)} answers of {length.answer} tokens at once"
    remedy = "lower --micro-rows and --sample-rows, --prompts, --group-size or --max-new"
    _require(weights + FLOAT * max(trained * _kept(found, length), sampled * cache), what, remedy, where)


def _kept(found: Dimensions, length: Length) -> int:
    """Numbers an answer that a forward pass keeps for its backward pass: logits thrice, and activations."""
    return 3 * found.vocabulary * (length.answer + 1) + 16 * found.layers * found.hidden * length.whole


def _require(memory: int, what: str, remedy: str, where: Precision) -> None:
    if where.device.type == "cuda":
        limit = GPU_SHARE * torch.cuda.get_device_properties(where.device).total_memory
        said = budget.refusal(memory, None, memory_limit=limit, what=what, remedy=remedy)
        if said is not None:
            raise InputError(said)
    else:
        budget.require(memory=memory, what=what, remedy=remedy)


def _large(count: int) -> str:
    return str(count) if count < 10**6 else f"{count // 10**6} million" if count < 10**15 else "more than 10^15"


def check_finite(model: PreTrainedModel, what: str) -> None:
    """Raises InputError where a weight of the model is NaN or infinite."""
    for name, weight in model.named_parameters():
        if not bool(torch.isfinite(weight).all()):
            raise InputError(f"{what} has weights that are not finite, the first in {name!r}: restore an intact one")
