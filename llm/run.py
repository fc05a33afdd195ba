"""From settings to a run: policy, engine, verifier, optimizer, estimator; what cannot work is refused at once."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from ebpo_sim import report, rungs, tables, typed
from ebpo_sim.errors import InputError
from ebpo_sim.methods.method import Method, parse_method
from ebpo_sim.methods.shaping import Shaped
from ebpo_sim.methods.step import State, start
from ebpo_sim.objectives import KL, Aggregation, Clip, Objective
from ebpo_sim.sampling import Order
from llm import forward, hub, policy, sizes
from llm.curriculum import Curriculum
from llm.engines import Engine, HFEngine, Precision, precision
from llm.objectives import Loss
from llm.problems import GENERATED
from llm.settings import Settings
from llm.tasks import (
    CharTokenizer,
    Problem,
    Verifier,
    cells,
    gym,
    make_verifier,
)
from llm.tasks.generated import longest_answer as longest_generated
from llm.tasks.tokenizer import Tokenizer

SCRATCH = "scratch"
LONGEST = 512  # tokens of an answer to a data set's problem, unless --max-new says otherwise


@dataclass
class Run:
    """What changes while training, and what every step needs. packs: see `forward.can_pack`."""

    settings: Settings
    model: PreTrainedModel
    reference: PreTrainedModel | None
    optimizer: torch.optim.Optimizer
    method: Method
    state: State
    objective: Loss
    engine: Engine
    verifier: Verifier
    where: Precision
    packs: bool


def tokenizer_of(settings: Settings, limited: bool = True) -> Tokenizer:
    """The tokenizer of the policy; limited: one that refuses prompts beyond --max-prompt."""
    if settings.model == SCRATCH:
        return CharTokenizer()
    return hub.read_tokenizer(settings.model, settings.chat, settings.max_prompt * limited)


def longest_answer(settings: Settings, tokenizer: Tokenizer) -> int:
    """Tokens an answer may have, end token included."""
    if settings.max_new or not isinstance(tokenizer, CharTokenizer):
        return settings.max_new or LONGEST
    return longest_generated(cells(settings.topics, settings.max_level)) + 1


def verifier_of(settings: Settings) -> Verifier:
    """The verifier of the settings; auto is the task's own for generated problems and math-verify for data sets."""
    name = settings.verifier
    if name == "auto":
        own = {GENERATED: "generated", gym.PREFIX.rstrip(":"): "reasoning_gym"}
        name = own.get(settings.dataset.partition(":")[0], "math")
    return make_verifier(name, settings.verifier_seconds, settings.verifier_workers, settings.verifier_memory)


def load_policy(
    settings: Settings, cache: Path, where: Precision, trained: bool = False
) -> tuple[PreTrainedModel, Tokenizer]:
    """The policy before RL and its tokenizer; `trained`: a checkpoint's weights follow, so no warm start."""
    if settings.model != SCRATCH:
        return hub.load(
            settings.model,
            where,
            chat=settings.chat,
            max_prompt=settings.max_prompt,
            lora_rank=settings.lora_rank,
            seed=settings.seed,
        )
    if trained:
        return policy.placed(policy.build(settings, 0), where.device), CharTokenizer()
    started = time.perf_counter()
    model, cached = policy.warm_start(settings, cache, where)
    report.say(f"warm start: {'from the cache' if cached else f'{time.perf_counter() - started:.0f} s'}")
    return model, CharTokenizer()


def sized(
    settings: Settings, problems: Sequence[Problem], where: Precision, answers: int = 0, trains: bool = True
) -> Settings:
    """The settings with the rows that a named model can take, for `answers` at once (0: a batch); see `llm.sizes`.

    Raises InputError for shapes that are none, prompts that the model cannot read, and what does not fit into memory.
    """
    answers = answers or settings.prompts * settings.group_size
    context: int | None
    if settings.model == SCRATCH:
        if settings.lora_rank:
            raise InputError("--lora-rank needs a trained model: name one with --model")
        if settings.dataset != GENERATED:
            raise InputError(
                f"--dataset {settings.dataset!r} is outside the tiny model's vocabulary: name a --model that reads it"
            )
        policy.check(settings)
        found, context = sizes.of_scratch(settings, CharTokenizer().vocab_size), policy.MAX_TOKENS
    else:
        config = hub.read_config(settings.model)
        found = hub.read(settings.model, lambda: sizes.of_config(config))
        context = getattr(config.get_text_config(), "max_position_embeddings", None)
    tokenizer = tokenizer_of(settings)
    max_new = longest_answer(settings, tokenizer)
    length = sizes.Length(max_new, check_prompts(context, tokenizer, problems, max_new))
    if settings.model != SCRATCH:
        settings = sizes.with_rows(settings, found, length, answers)
    sizes.check_memory(settings, found, length, answers, where, trains)
    return settings


def check_prompts(context: int | None, tokenizer: Tokenizer, problems: Sequence[Problem], max_new: int) -> int:
    """Tokens of the longest prompt and its answer.

    Refuses now, not at step 300, unknown characters, over-long prompts, and answers beyond the model's context.
    """
    longest = max((len(tokenizer.prompt(p)) for p in problems), default=0) + max_new
    if context is not None and longest > context:
        raise InputError(
            f"the longest prompt and --max-new {max_new} make {longest} tokens, the model reads {context}: lower one"
        )
    return longest


def engine_of(
    settings: Settings, model: PreTrainedModel | None, tokenizer: Tokenizer, where: Precision, top_p: float = 1.0
) -> Engine:
    """The sampler of the settings; without a model, vLLM samples with the one that the settings name."""
    longest = longest_answer(settings, tokenizer)
    if settings.engine == "vllm":
        from llm.engine_vllm import VLLMEngine

        return VLLMEngine(settings.model, model, tokenizer, longest, where, top_p)
    assert model is not None
    return HFEngine(model, tokenizer, longest, where, settings.sample_rows, top_p)


def prepare(settings: Settings, cache: Path, problems: Sequence[Problem], held: Sequence[Problem] = ()) -> Run:
    """A run before its first step, for these training and validation problems.

    Raises InputError for whatever the settings ask that cannot be done.
    """
    if settings.temperature == 0:
        raise InputError("--temperature must be positive for training, got 0: greedy answers have no gradient")
    if settings.engine == "vllm" and settings.model == SCRATCH:
        raise InputError("--engine vllm loads a model by name or folder: name one with --model, or use --engine hf")
    method = parse_method(settings.estimator, None, rungs.LANGUAGE_MODEL)
    if settings.engine == "vllm" and "score_norms" in method.needs():
        raise InputError(
            f"{method.name} needs score_norms, which --engine vllm does not compute, as it gives no distributions: use "
            "--engine hf, or an estimator that weights by length"
        )
    method = method._replace(allocation=method.allocation or order_of(settings))
    where = precision(settings.device, settings.dtype)
    curriculum_of(settings, problems, rates_from(settings, problems))
    objective_of(settings, 1)
    settings = sized(settings, (*problems, *held), where)
    say_unreached(method, longest_answer(settings, tokenizer_of(settings)))
    verifier = verifier_of(settings)
    verifier.start()
    model, tokenizer = load_policy(settings, cache, where)
    if settings.gradient_checkpointing:
        # the older name where the newer does not exist yet (transformers 5.17)
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    reference = None
    loss = objective_of(settings, longest_answer(settings, tokenizer), method.objectives, method.aggregation)
    if loss.has_reference and not settings.lora_rank:  # with LoRA the reference is the model without its adapters
        reference = copy.deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad],
        lr=settings.lr,
        betas=(0.9, 0.99),
        weight_decay=settings.weight_decay,
        fused=where.device.type == "cuda",
    )
    return Run(
        settings, model, reference, optimizer, method, start(method), loss,
        engine_of(settings, model, tokenizer, where), verifier, where, forward.can_pack(model),
    )  # fmt: skip


def say_unreached(method: Method, longest: int) -> None:
    """Say so where a penalty on long answers begins beyond the longest there can be."""
    if isinstance(method.estimator, Shaped):
        shaping = method.estimator.shaping
        if longest <= shaping.longest - shaping.cache:
            report.say(
                f"overlong: answers have at most {longest} tokens, no answer reaches the penalty, which begins beyond "
                f"{shaping.longest - shaping.cache}: give overlong:longest={longest},cache={max(1, longest // 4)}"
            )


def objective_of(
    settings: Settings, length: int, named: tuple[Objective, ...] = (), weights: Aggregation | None = None
) -> Loss:
    """The policy objective for answers of at most `length` tokens: what the method names, or else the settings' own."""
    aggregation: Any = settings.aggregation
    parts: tuple[Objective, ...] = (Clip(settings.clip_low, settings.clip_high, settings.clip_dual or None),)
    if settings.kl_coef:
        kind: Any = settings.kl_kind
        parts += (KL(settings.kl_coef, kind),)
    return Loss(named or parts, weights or Aggregation(aggregation, length))


def rates_from(settings: Settings, problems: Sequence[Problem]) -> list[float] | None:
    """The problems' pass rates in --ranking; None without it.

    The file has a row a rollout with prompt_id and reward, as llm/evaluate.py writes. Raises InputError for another
    file and for a problem that is not in it.
    """
    if not settings.ranking:
        return None
    rewards: dict[str, list[float]] = {}
    try:
        for _, row in tables.rows(tables.regular_file(settings.ranking, "file"), ("prompt_id", "reward")):
            rewards.setdefault(str(row["prompt_id"]), []).append(typed.check("the reward", float, float(row["reward"])))
    except (TypeError, ValueError) as error:
        raise InputError(f"--ranking {settings.ranking!r} has no prompt_id and reward in each row: {error}") from error
    missing = [p.id for p in problems if p.id not in rewards]
    if missing:
        raise InputError(
            f"--ranking {settings.ranking!r} has no rollout of {len(missing)} problems, the first {missing[0]!r}: "
            "evaluate on the whole training set"
        )
    return [sum(rewards[p.id]) / len(rewards[p.id]) for p in problems]


def order_of(settings: Settings) -> Order:
    """The allocation of a method that names none: --order."""
    kind: Any = settings.order
    return Order(kind)


def curriculum_of(
    settings: Settings, problems: Sequence[Problem], rates: Sequence[float] | None = None, method: Method | None = None
) -> Curriculum:
    """The training problems in the method's allocation, or in --order."""
    allocation = (None if method is None else method.allocation) or order_of(settings)
    return Curriculum(problems, settings.prompts, settings.group_size, settings.steps, settings.seed, allocation, rates)
