"""The settings of a run and its command line: every option with its help beside it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from ebpo_sim.errors import InputError
from llm.curriculum import ORDERS
from llm.objectives import AGGREGATIONS


@dataclass(frozen=True)
class Settings:
    """Everything that decides a run's numbers; the fields are the command line's options."""

    estimator: str = "ebpo"
    group_size: int = 4
    prompts: int = 64
    steps: int = 400
    lr: float = 3e-4
    warmup: int = 10
    updates: int = 1
    order: str = "shuffled"
    seed: int = 0
    aggregation: str = "token_mean"
    clip_low: float = 0.2
    clip_high: float = 0.2
    kl_coef: float = 0.0
    grad_clip: float = 1.0
    topics: str = "all"
    max_level: int = 9
    per_cell: int = 200
    eval_every: int = 50
    eval_per_cell: int = 32
    eval_samples: int = 4
    checkpoint_every: int = 50
    sft_steps: int = 200
    sft_batch: int = 256
    sft_seed: int = 0
    arch: str = "qwen3"
    hidden: int = 64
    layers: int = 2
    heads: int = 4
    kv_heads: int = 4
    threads: int = 1

    def __post_init__(self) -> None:
        zero_allowed = {"warmup", "seed", "sft_seed", "sft_steps", "kl_coef"}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, str):
                continue
            least = 0 if field.name in zero_allowed else 1 if isinstance(value, int) else None
            good = 0 < value < float("inf") if least is None else least <= value < float("inf")
            if not good:
                option = "--" + field.name.replace("_", "-")
                bound = "positive and finite" if least is None else f"at least {least} and finite"
                raise InputError(f"{option} must be {bound}, got {value}: the default is {field.default}")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for checkpoints and summaries."""
        return asdict(self)


HELP = {
    "estimator": "registered estimator, or NAME:setting=value,... such as ebpo_debiased:memory=0.95",
    "group_size": "rollouts a prompt",
    "prompts": "prompts a step",
    "steps": "reinforcement-learning steps",
    "lr": "peak learning rate of AdamW; 1e-3 was seen to collapse",
    "warmup": "steps of linear warm-up; then linear decay to 0",
    "updates": "passes over each batch",
    "order": "how prompts are presented",
    "seed": "same seed, same bytes on a CPU with the same --threads",
    "aggregation": "how token losses are summed",
    "clip_low": "lower half-width of the ratio clip",
    "clip_high": "upper half-width of the ratio clip",
    "kl_coef": "weight of the k3 KL to the warm-started policy; needs every row",
    "grad_clip": "largest gradient norm",
    "topics": "all, or some of add,sub,mul,mod,reverse,sort,count",
    "max_level": "hardest level: digits of numbers, letters of words",
    "per_cell": "training problems a topic and level",
    "eval_every": "steps between validations",
    "eval_per_cell": "validation problems a topic and level",
    "eval_samples": "answers a validation problem",
    "checkpoint_every": "steps between checkpoints",
    "sft_steps": "supervised warm-up steps; fewer make a weaker base",
    "sft_batch": "problems a supervised step",
    "sft_seed": "seed of the warm start, shared by runs that are compared",
    "arch": "qwen3 or llama",
    "hidden": "width of the model",
    "layers": "depth of the model",
    "heads": "attention heads",
    "kv_heads": "key-value heads",
    "threads": "threads of torch; two runs side by side use two cores better than one run of two threads",
}
CHOICES = {"order": ORDERS, "aggregation": AGGREGATIONS}


def parse(argv: Sequence[str], about: str) -> tuple[Settings, argparse.Namespace]:
    """(settings, the options that decide no number: out, cache, resume). Raises InputError for impossible values."""
    parser = argparse.ArgumentParser(prog="python llm/train.py", description=about)
    for field in fields(Settings):
        parser.add_argument(
            "--" + field.name.replace("_", "-"),
            type=type(field.default),
            default=field.default,
            choices=CHOICES.get(field.name),
            help=f"{HELP[field.name]} (default {field.default})",
        )
    parser.add_argument(
        "--out", default="results/llm/train", metavar="DIR", help="where files go (default %(default)s)"
    )
    parser.add_argument(
        "--cache", default="results/llm/cache", metavar="DIR", help="warm-started models (default %(default)s)"
    )
    parser.add_argument("--resume", action="store_true", help="continue from DIR/checkpoint.pt with the same settings")
    given = parser.parse_args(argv)
    return Settings(**{field.name: getattr(given, field.name) for field in fields(Settings)}), given
