"""How large a run is, before anything of it is allocated; and the sizes that are chosen where none was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from ebpo_sim import budget, cli, report
from ebpo_sim.errors import InputError
from llm.curriculum import largest_batch
from llm.engines import Precision
from llm.settings import Settings
from llm.tasks import Problem

PROMPTS = 64  # a step, unless --prompts says otherwise or there are fewer
MICRO_ROWS = 8  # of a named model, as far as LOGITS goes
LOGITS = 4 * 2**30  # bytes of fp32 logits that one backward pass of a named model may hold
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


def use_threads(count: int) -> None:
    """Give torch its threads. Raises InputError for more than this process has cores."""
    cores = cli.available_cores()
    if count > cores:
        raise InputError(f"--threads must be at most {cores}, the cores of this process, got {count}: lower it")
    torch.set_num_threads(count)


def fitted(settings: Settings, problems: Sequence[Problem]) -> Settings:
    """The settings with --prompts chosen where it is 0; that there are fewer problems than usual is said."""
    if settings.order == "topic" and len({p.cell.topic for p in problems}) == 1:
        report.say(f"--order topic: all problems have the topic {problems[0].cell.topic!r}, so this order is shuffled")
    if settings.prompts:
        return settings
    most, unit = largest_batch(settings.order, problems), settings.mini_batch or 1
    prompts = max(unit, min(PROMPTS, most) // unit * unit)
    if most < PROMPTS:
        report.say(f"--prompts {prompts}: a batch is drawn from {most} problems")
    return replace(settings, prompts=prompts)


def of_scratch(settings: Settings, vocabulary: int) -> Dimensions:
    """Of the model that `llm.policy.build` makes."""
    hidden, layers = settings.hidden, settings.layers
    cache = 2 * layers * hidden * settings.kv_heads // settings.heads
    attention = 2 * hidden * hidden + hidden * cache // layers
    return Dimensions(vocabulary * hidden + layers * (attention + 9 * hidden * hidden), vocabulary, hidden, layers, cache)


def of_config(config: Any) -> Dimensions:
    """Of a named model, from its configuration alone: nothing is allocated."""
    text = config.get_text_config()
    with torch.device("meta"):
        parameters = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
    heads = text.num_attention_heads
    head = getattr(text, "head_dim", None) or text.hidden_size // heads
    cache = 2 * text.num_hidden_layers * (getattr(text, "num_key_value_heads", None) or heads) * head
    return Dimensions(parameters, text.vocab_size, text.hidden_size, text.num_hidden_layers, cache)


def with_rows(settings: Settings, found: Dimensions, longest: int, max_new: int) -> Settings:
    """For a named model: --micro-rows and --sample-rows chosen where they are 0, and said where they bind.

    longest: tokens of the longest prompt with its answer. max_new: of the longest answer.
    """
    answers = settings.prompts * settings.group_size
    micro = settings.micro_rows or max(1, min(MICRO_ROWS, LOGITS // (FLOAT * found.vocabulary * (max_new + 1))))
    sampled = max(settings.group_size, CACHE // max(1, FLOAT * found.cache * longest))
    rows = settings.sample_rows or (sampled if sampled < max(answers, settings.eval_samples) else 0)
    if (micro, rows) != (settings.micro_rows, settings.sample_rows):
        report.say(f"--micro-rows {micro}, --sample-rows {rows}: chosen for this model's size")
    return replace(settings, micro_rows=micro, sample_rows=rows)


def check_memory(settings: Settings, found: Dimensions, longest: int, max_new: int, where: Precision) -> None:
    """Raises InputError where the weights, or a batch's activations, logits and cache, would not fit into memory."""
    trained = 2 if settings.lora_rank else 4  # weights, or with gradients and both moments of AdamW
    copies = trained + (settings.kl_coef > 0 and not settings.lora_rank)
    weights = FLOAT * copies * found.parameters
    model = "lower --hidden or --layers" if settings.model == "scratch" else "name a smaller --model, or use --lora-rank"
    _require(weights, f"a model of {_large(found.parameters)} parameters with its optimizer", model, where)
    answers = settings.prompts * settings.group_size
    rows = min(settings.micro_rows or answers, answers)
    forward = rows * FLOAT * (3 * found.vocabulary * (max_new + 1) + 16 * found.layers * found.hidden * longest)
    cache = min(settings.sample_rows or answers, answers) * FLOAT * (2 * found.cache * longest + 3 * found.vocabulary)
    what = f"training {_large(rows)} and sampling {_large(settings.sample_rows or answers)} answers of {max_new} tokens at once"
    _require(weights + max(forward, cache), what, "lower --micro-rows and --sample-rows, --prompts or --max-new", where)


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
