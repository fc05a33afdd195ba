"""The tiny policy: a transformers causal language model from a configuration, and its supervised warm start."""

from __future__ import annotations

import hashlib
import io
import json
import math
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from ebpo_sim import report
from ebpo_sim.errors import InputError, unknown_name
from llm import rollouts
from llm.engines import Precision
from llm.tasks import Cell, CharTokenizer, stream
from llm.tasks.tokenizer import pad_left, pad_right

ARCHITECTURES = {"qwen3": (Qwen3Config, Qwen3ForCausalLM), "llama": (LlamaConfig, LlamaForCausalLM)}
MAX_TOKENS = 64  # positions of the model; prompts and answers stay below half of it
SCHEDULE = 800  # steps of the cosine that the warm start follows and leaves early, its learning rate still high


@dataclass(frozen=True)
class Shape:
    """A from-scratch model: architecture, width, depth, heads and key-value heads (grouped-query attention)."""

    arch: str = "qwen3"
    hidden: int = 64
    layers: int = 2
    heads: int = 4
    kv_heads: int = 4


@dataclass(frozen=True)
class WarmStart:
    """Supervised steps on right answers, cells drawn evenly; fewer steps, a weaker base."""

    steps: int = 200
    batch: int = 256
    lr: float = 4e-3
    seed: int = 0


def check(shape: Shape) -> None:
    """Raises InputError for an impossible shape."""
    if shape.arch not in ARCHITECTURES:
        raise unknown_name("architecture", shape.arch, ARCHITECTURES)
    if min(asdict(shape)[k] for k in ("hidden", "layers", "heads", "kv_heads")) < 1:
        raise InputError(f"hidden, layers, heads and kv_heads must be at least 1, got {shape}")
    if shape.hidden % (2 * shape.heads) or shape.heads % shape.kv_heads:
        raise InputError(
            f"hidden {shape.hidden} must be a multiple of twice the {shape.heads} heads, and these a multiple of the "
            f"{shape.kv_heads} key-value heads"
        )


def build(shape: Shape, seed: int) -> PreTrainedModel:
    """A model with random weights that depend on the seed alone. Raises InputError for an impossible shape."""
    check(shape)
    config_type, model_type = ARCHITECTURES[shape.arch]
    tokens = CharTokenizer()
    config = config_type(
        vocab_size=tokens.vocab_size,
        hidden_size=shape.hidden,
        intermediate_size=3 * shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.hidden // shape.heads,
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


def warm_start(
    shape: Shape, plan: WarmStart, chosen: tuple[Cell, ...], cache: Path, where: Precision
) -> tuple[PreTrainedModel, bool]:
    """(the model after supervised training, on its device; whether it came from the cache).

    The cache file is named by a hash of the settings and of the sources that decide the weights; an unreadable one is
    trained again. The default plan takes about half a minute on an idle core.
    """
    path = cache / f"warm_{_content_hash(shape, plan, chosen, where)}.pt"
    model = build(shape, plan.seed)
    if path.exists():
        try:
            model.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
            return placed(model, where.device), True
        except Exception as error:  # a damaged file shows as one of many exceptions; the remedy is the same
            report.say(f"warm start: {path.name} cannot be read ({type(error).__name__}), training again")
            model = build(shape, plan.seed)
    _supervise(placed(model, where.device), plan, chosen, where)
    content = io.BytesIO()
    torch.save(model.state_dict(), content)
    report.write_bytes(path, content.getvalue())
    return model, False


def _supervise(model: PreTrainedModel, plan: WarmStart, chosen: tuple[Cell, ...], where: Precision) -> None:
    tokenizer = CharTokenizer()
    problems = stream("train", chosen, random.Random(f"warm start {plan.seed}"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=plan.lr, weight_decay=0.1)
    with report.progress(plan.steps, "warm start") as bar:
        for step in range(plan.steps):
            rate = min(1.0, (step + 1) / 50) * (0.55 + 0.45 * math.cos(math.pi * min(1.0, step / SCHEDULE)))
            for group in optimizer.param_groups:
                group["lr"] = plan.lr * rate
            batch = [next(problems) for _ in range(plan.batch)]
            prompts = pad_left([tokenizer.prompt(p) for p in batch], tokenizer.pad_id)
            golds = pad_right([[*tokenizer.encode(p.answer), *tokenizer.eos_ids] for p in batch], tokenizer.pad_id)
            ids_NL, seen_NL, tokens_NT, mask_NT = (part.to(where.device) for part in (*prompts, *golds))
            with where.context():
                log_prob_NT = rollouts.log_probs(model, ids_NL, seen_NL, tokens_NT, mask_NT)
            loss = -(log_prob_NT * mask_NT).sum() / mask_NT.sum()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            bar.update()


def _content_hash(shape: Shape, plan: WarmStart, chosen: tuple[Cell, ...], where: Precision) -> str:
    """Settings, library versions, threads and the sources of this file, the sampler's forward and the tasks."""
    here = Path(__file__).parent
    sources = [
        here / name
        for name in ("policy.py", "rollouts.py", "tasks/generated.py", "tasks/splits.py", "tasks/tokenizer.py")
    ]
    decided = [
        asdict(shape),
        asdict(plan),
        chosen,
        torch.__version__,
        transformers.__version__,
        torch.get_num_threads(),
        [str(where.device), where.dtype],
    ]
    digest = hashlib.sha256(json.dumps(decided).encode())
    for source in sources:
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]
