"""Hugging Face causal language models as policies: by name or folder, whole or through LoRA."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedModel

from ebpo_sim.errors import InputError
from llm.engines import Precision
from llm.sizes import check_finite
from llm.tasks.tokenizer import TextTokenizer

SAFELY: dict[str, Any] = {
    "trust_remote_code": False
}  # a folder brings weights and settings, never code, and no question
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "tokenizer_config.json")


def load(
    name: str, where: Precision, *, chat: str = "auto", max_prompt: int = 0, lora_rank: int = 0, seed: int = 0
) -> tuple[PreTrainedModel, TextTokenizer]:
    """(the model on its device, its tokenizer).

    Trainable weights are float32, whatever `where.dtype`: an update of 1e-6 is lost in bfloat16. With `lora_rank` the
    frozen base is kept in bfloat16 if `where.dtype` is "bf16", and only the adapters of all linear layers train.
    Dropout is set to 0, so that sampling and training share one forward.
    Raises InputError for a model that cannot be read, a folder without a tokenizer, and LoRA without peft.
    """
    tokenizer = read_tokenizer(name, chat, max_prompt)
    stored = torch.bfloat16 if lora_rank and where.dtype == "bf16" else torch.float32
    model = read(name, lambda: AutoModelForCausalLM.from_pretrained(name, dtype=stored, **SAFELY))
    check_finite(model, f"--model {name!r}")
    without_dropout(model)
    if lora_rank:
        model = with_adapters(model, lora_rank, seed)
    return model.to(where.device).eval(), tokenizer


def read_tokenizer(name: str, chat: str = "auto", max_prompt: int = 0) -> TextTokenizer:
    """The tokenizer of a model, with every token by which it, the generation settings or the configuration end a text.

    Raises InputError as `load` does.
    """
    folder = Path(name)
    if folder.is_dir() and not any((folder / file).exists() for file in TOKENIZER_FILES):
        raise InputError(f"--model {name!r} has no tokenizer: save one into the folder, tokenizer.save_pretrained()")
    wrapped = read(name, lambda: AutoTokenizer.from_pretrained(name, **SAFELY))
    config = read_config(name).get_text_config()
    try:
        generation = GenerationConfig.from_pretrained(name).eos_token_id
    except OSError:  # many models have no generation settings
        generation = None
    ends: list[int] = []
    for source in (wrapped.eos_token_id, generation, config.eos_token_id):
        ends += [] if source is None else source if isinstance(source, list) else [source]
    templated = chat == "yes" or (chat == "auto" and bool(wrapped.chat_template))
    return TextTokenizer(wrapped, list(dict.fromkeys(ends)), config.vocab_size, templated, max_prompt)


def read_config(name: str) -> Any:
    """The configuration of a model. Raises InputError as `load` does, and for one that names code to be fetched."""
    config = read(name, lambda: AutoConfig.from_pretrained(name, **SAFELY))
    for part in (config, config.get_text_config()):
        if "/" in str(getattr(part, "_attn_implementation", None)) or "/" in str(
            getattr(part, "_experts_implementation", None)
        ):
            raise InputError(
                f"--model {name!r} names an implementation to be downloaded and run: take it out of config.json"
            )
    return config


def read(name: str, reading: Callable[[], Any]) -> Any:
    """What `reading` finds in the model. Raises InputError, naming the model, where it fails."""
    try:
        return reading()
    except Exception as error:  # missing, foreign, damaged, not downloadable: each shows as another exception
        raise InputError(
            f"--model {name!r} cannot be read: {type(error).__name__}: {str(error).splitlines()[0]}; give a folder "
            "written by save_pretrained, a name of the Hugging Face hub, or scratch"
        ) from error


def without_dropout(model: PreTrainedModel) -> None:
    """Set every dropout probability to 0, in place: of modules, and what models keep for functional dropout."""
    for holder in (model.config, *model.modules()):
        if isinstance(holder, torch.nn.Dropout):
            holder.p = 0.0
        for name, value in list(vars(holder).items()):
            if isinstance(value, float) and ("dropout" in name or name == "layerdrop"):
                setattr(holder, name, 0.0)


def with_adapters(model: PreTrainedModel, rank: int, seed: int) -> Any:
    """LoRA adapters (scale 2) on every linear layer but the head, float32, drawn from `seed`; the base is frozen."""
    plan = adapter_plan(rank)
    from peft import get_peft_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return get_peft_model(model, plan)


def adapter_plan(rank: int) -> Any:
    """peft's configuration of our adapters. Raises InputError without peft."""
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise InputError("--lora-rank needs peft: pip install peft") from error
    return LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules="all-linear", bias="none")


@torch.no_grad()
def merged_weights(model: Any) -> Iterator[tuple[str, Tensor]]:
    """(name, weight) of the model; with LoRA the adapters added to their layers, under the layers' own names.

    The policy is not touched: merging in place and back again would round a bfloat16 base at every step.
    """
    adapted = hasattr(model, "get_base_model")
    base = model.get_base_model() if adapted else model
    for name, weight in base.state_dict().items():
        if adapted and ".lora_" in name:
            continue
        if adapted and name.endswith(".base_layer.weight"):
            layer = name.removesuffix(".base_layer.weight")
            delta = base.get_submodule(layer).get_delta_weight("default")
            yield f"{layer}.weight", weight + delta.to(weight.dtype)
        else:
            yield name.replace(".base_layer.", "."), weight
