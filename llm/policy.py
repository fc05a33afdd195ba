"""The tiny policy: a transformers causal language model from a configuration, and its supervised warm start."""

from __future__ import annotations

import io
import math
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from ebpo_sim import cache as files
from ebpo_sim import report, sources
from ebpo_sim.errors import InputError, unknown_name
from llm import rollouts
from llm.tasks import CharTokenizer, cells, module_of, names, stream, traced, worked
from llm.tasks.tokenizer import pad_left, pad_right

if TYPE_CHECKING:  # what changes elsewhere is no reason to train the base again
    from llm.engines import Precision
    from llm.settings import Settings

ARCHITECTURES = {"qwen3": (Qwen3Config, Qwen3ForCausalLM), "llama": (LlamaConfig, LlamaForCausalLM)}
MAX_TOKENS = 64  # positions of the model
DECIDING = ("arch", "hidden", "layers", "heads", "kv_heads", "sft_steps", "sft_batch", "sft_lr", "sft_seed")
SCHEDULE = 800  # steps of the cosine that the warm start follows and leaves early, its learning rate still high


def check(settings: Settings) -> None:
    """Raises InputError for an impossible shape."""
    if settings.arch not in ARCHITECTURES:
        raise unknown_name("architecture", settings.arch, ARCHITECTURES)
    if settings.hidden % (2 * settings.heads) or settings.heads % settings.kv_heads:
        raise InputError(
            f"hidden {settings.hidden} must be a multiple of twice the {settings.heads} heads, and these a multiple of "
            f"the {settings.kv_heads} key-value heads"
        )


def build(settings: Settings, seed: int) -> PreTrainedModel:
    """A model with random weights that depend on the seed alone. Raises InputError for an impossible shape."""
    check(settings)
    config_type, model_type = ARCHITECTURES[settings.arch]
    tokens = CharTokenizer()
    config = config_type(
        vocab_size=tokens.vocab_size,
        hidden_size=settings.hidden,
        intermediate_size=3 * settings.hidden,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.kv_heads,
        head_dim=settings.hidden // settings.heads,
        max_position_embeddings=MAX_TOKENS,
        tie_word_embeddings=True,
        pad_token_id=tokens.pad_id,
        bos_token_id=None,
        eos_token_id=tokens.eos_ids[0],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_type(config)
    ready: PreTrainedModel = model.eval()  # no dropout anywhere, so training and evaluation share one forward
    return ready


def placed(model: Any, device: torch.device) -> PreTrainedModel:
    """The model on the device."""
    there: PreTrainedModel = model.to(device)  # the library's own wrapper hides its types
    return there


def warm_start(settings: Settings, cache: Path, where: Precision) -> tuple[PreTrainedModel, bool]:
    """(the model after supervised steps on right answers, cells drawn evenly, on its device; whether it came from the
    cache).

    The cache file is named by `ebpo_sim.cache.key`; an unreadable one is trained again. The default takes about half a
    minute on an idle core.
    """
    chosen = traced(cells(settings.topics, settings.max_level))
    files_of = [sources.digest(module_of(t)) for t in dict.fromkeys(c.topic for c in chosen) if t in names()]
    decided = [[getattr(settings, name) for name in DECIDING], chosen, files_of]
    versions = [torch.__version__, transformers.__version__, torch.get_num_threads(), str(where.device), where.dtype]
    path = cache / f"warm_{files.key(__name__, decided, versions)}.pt"
    model = build(settings, settings.sft_seed)
    if path.exists():
        try:
            model.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
            return placed(model, where.device), True
        except Exception as error:  # a damaged file shows as one of many exceptions; the remedy is the same
            report.say(f"warm start: {path.name} cannot be read ({type(error).__name__}), training again")
            model = build(settings, settings.sft_seed)
    _supervise(placed(model, where.device), settings, where)
    content = io.BytesIO()
    torch.save(model.state_dict(), content)
    report.write_bytes(path, content.getvalue())
    return model, False


def _supervise(model: PreTrainedModel, settings: Settings, where: Precision) -> None:
    tokenizer, chosen = CharTokenizer(), traced(cells(settings.topics, settings.max_level))
    problems = stream("train", chosen, random.Random(f"warm start {settings.sft_seed}"))
    ways = random.Random(f"worked {settings.sft_seed}")
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.sft_lr, weight_decay=0.1)
    with report.progress(settings.sft_steps, "warm start") as bar:
        for step in range(settings.sft_steps):
            rate = min(1.0, (step + 1) / 50) * (0.55 + 0.45 * math.cos(math.pi * min(1.0, step / SCHEDULE)))
            for group in optimizer.param_groups:
                group["lr"] = settings.sft_lr * rate
            batch = [next(problems) for _ in range(settings.sft_batch)]
            prompts = pad_left([tokenizer.prompt(p) for p in batch], tokenizer.pad_id)
            golds = pad_right(
                [[*tokenizer.encode(worked(p, ways)), *tokenizer.eos_ids] for p in batch], tokenizer.pad_id
            )
            ids_NL, seen_NL, tokens_NT, mask_NT = (part.to(where.device) for part in (*prompts, *golds))
            with where.context():
                log_prob_NT = rollouts.log_probs(model, ids_NL, seen_NL, tokens_NT, mask_NT)
            loss = -(log_prob_NT * mask_NT).sum() / mask_NT.sum()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            bar.update()
