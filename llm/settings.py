"""The settings of a run and its command line: every option with its help beside it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from ebpo_sim.cli import Parser
from ebpo_sim.errors import InputError
from ebpo_sim.sampling import ORDERS
from llm.curriculum import OLD_NAMES
from llm.objectives import AGGREGATIONS


@dataclass(frozen=True)
class Settings:
    """Everything that decides a run's numbers; the fields are the command line's options."""

    # what is learnt
    estimator: str = "ebpo"
    group_size: int = 4
    prompts: int = 64
    steps: int = 400
    order: str = "shuffled"
    ranking: str = ""
    seed: int = 0
    # the objective and the optimizer
    lr: float = 6e-4
    warmup: int = 10
    weight_decay: float = 0.0
    updates: int = 1
    mini_batch: int = 0
    aggregation: str = "token_mean"
    clip_low: float = 0.2
    clip_high: float = 0.2
    clip_dual: float = 0.0
    kl_coef: float = 0.0
    kl_kind: str = "k3"
    grad_clip: float = 1.0
    old_log_probs: str = "auto"
    # tasks
    dataset: str = "generated"
    dataset_split: str = "train"
    validation: str = ""
    validation_split: str = "test"
    instruction: str = ""
    verifier: str = "auto"
    verifier_seconds: float = 5.0
    verifier_workers: int = 0
    verifier_memory: int = 4096
    topics: str = "all"
    max_level: int = 9
    per_cell: int = 200
    # answers
    max_new: int = 0
    max_prompt: int = 0
    temperature: float = 1.0
    engine: str = "hf"
    # what is measured and kept
    eval_every: int = 50
    eval_per_cell: int = 32
    eval_limit: int = 256
    eval_samples: int = 4
    show_every: int = 100
    checkpoint_every: int = 50
    # the policy
    model: str = "scratch"
    chat: str = "auto"
    lora_rank: int = 0
    arch: str = "qwen3"
    hidden: int = 64
    layers: int = 2
    heads: int = 4
    kv_heads: int = 4
    sft_steps: int = 150
    sft_batch: int = 256
    sft_lr: float = 4e-3
    sft_seed: int = 0
    # the machine
    device: str = "cpu"
    dtype: str = "fp32"
    sample_rows: int = 0
    micro_rows: int = 0
    gradient_checkpointing: bool = False
    threads: int = 1

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            kind: Any = type(field.default)
            if type(value) is not kind and not (kind is float and type(value) is int):
                raise InputError(f"{option(field.name)} must be {NAMES[kind]}, got {value!r}")
            if isinstance(value, str | bool):
                continue
            if isinstance(value, int) and value >= 2**62:
                raise InputError(f"{option(field.name)} must be below 2^62, got {value}")
            least = 0 if field.name in ZERO_ALLOWED else 1 if isinstance(value, int) else None
            good = 0 < value < float("inf") if least is None else least <= value < float("inf")
            if not good:
                bound = "positive and finite" if least is None else f"at least {least} and finite"
                raise InputError(f"{option(field.name)} must be {bound}, got {value}: the default is {field.default}")
        object.__setattr__(self, "order", OLD_NAMES.get(self.order, self.order))
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise InputError(f"{option(name)} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        if self.mini_batch and self.prompts % self.mini_batch:  # 0 prompts are still to be chosen
            raise InputError(
                f"--mini-batch must divide --prompts {self.prompts}, got {self.mini_batch}: 0 takes the whole batch"
            )

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for checkpoints and summaries."""
        return asdict(self)

    @classmethod
    def of(cls, found: Mapping[str, Any], where: str) -> Settings:
        """Inverse of `as_dict`; settings that are newer than the file have their default.

        Raises InputError, naming `where`, for settings this code does not know and for impossible values.
        """
        unknown = sorted(map(str, set(found) - {field.name for field in fields(cls)}))
        if unknown:
            raise InputError(
                f"{where} has the setting {unknown[0]!r}, which this code does not know: it was written by other code"
            )
        try:
            return cls(**found)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error


NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
ZERO_ALLOWED = {
    "prompts", "clip_dual",
    "warmup", "seed", "sft_seed", "sft_steps", "kl_coef", "weight_decay", "mini_batch", "max_new", "max_prompt",
    "lora_rank", "sample_rows", "micro_rows", "show_every", "eval_limit", "temperature",
    "verifier_workers", "verifier_memory",
}  # fmt: skip
CHOICES: dict[str, tuple[str, ...]] = {
    "order": (*ORDERS, *OLD_NAMES),
    "aggregation": AGGREGATIONS,
    "kl_kind": ("k1", "k2", "k3"),
    "old_log_probs": ("auto", "sampler", "trainer"),
    "engine": ("hf", "vllm"),
    "chat": ("auto", "yes", "no"),
    "dtype": ("fp32", "bf16"),
}
CHOSEN_LATER = {"prompts": 0}  # where the command line has another default than the fields
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {  # the set-up of arXiv 2602.05165, section 5; 1000 steps at most
        "model": "Qwen/Qwen3-8B", "dataset": "BytedTsinghua-SIA/DAPO-Math-17k", "validation": "HuggingFaceH4/MATH-500",
        "estimator": "ebpo", "group_size": 4, "prompts": 512, "mini_batch": 128, "lr": 1e-6, "kl_coef": 1e-3,
        "steps": 1000, "order": "alternating", "max_new": 8192, "dtype": "bf16", "device": "cuda", "micro_rows": 4,
        "sample_rows": 256, "gradient_checkpointing": True, "eval_samples": 16, "sft_steps": 0,
    },
}  # fmt: skip
HELP = {
    "estimator": "registered estimator, or NAME:setting=value,... such as ebpo_debiased:memory=0.95",
    "group_size": "rollouts a prompt",
    "prompts": "prompts a step; 0: 64, or all there are to train on where they are fewer",
    "steps": "reinforcement-learning steps",
    "order": "in which order prompts are met; by difficulty: by the base's pass rates on them",
    "ranking": "for orders by difficulty: a rollouts.csv of llm/evaluate.py instead of measuring at the start",
    "seed": "same seed, same bytes on a CPU with the same --threads",
    "lr": "peak learning rate of AdamW; 1e-3 was seen to collapse the tiny model, 1e-6 is usual for large ones",
    "warmup": "steps of linear warm-up, multiplied by a linear decay to 0 over all steps",
    "weight_decay": "of AdamW",
    "updates": "passes over each batch",
    "mini_batch": "prompts an optimizer step; 0: the whole batch",
    "aggregation": "how token losses are summed",
    "clip_low": "lower half-width of the ratio clip",
    "clip_high": "upper half-width of the ratio clip",
    "clip_dual": "bound of the ratio where the advantage is negative: 3 is verl's, 0 for none",
    "kl_coef": "weight of the KL to the policy before RL; needs every row",
    "kl_kind": "its estimate: k3 is GRPO's, k2 has the divergence's own gradient",
    "grad_clip": "largest gradient norm",
    "old_log_probs": "whose log-probabilities the ratio starts from; auto: the sampler's in fp32, else the trainer's",
    "dataset": "generated, sample (shipped math problems), a .jsonl/.json/.csv/.parquet file, or a Hugging Face name",
    "dataset_split": "split of a Hugging Face data set",
    "validation": "data set of the validation; empty: problems held out of --dataset by the hash of what they ask",
    "validation_split": "split of --validation, where it is a Hugging Face data set",
    "instruction": "added to every prompt of a data set; none: nothing; empty: what its layout is used with",
    "verifier": "exact, math (math-verify), package.module:function or file.py:function; auto: by the data set",
    "verifier_seconds": "time limit of one verdict; an answer that exceeds it scores 0 and is counted",
    "verifier_workers": "processes that verify answers side by side; 0: one a core, at most 4",
    "verifier_memory": "megabytes a verdict may take beyond the verifier's import; 0: no limit",
    "topics": "of the generated task: all, or some of add,sub,mul,mod,reverse,sort,count",
    "max_level": "hardest level of the generated task: digits of numbers, letters of words",
    "per_cell": "training problems a topic and level of the generated task",
    "max_new": "longest answer in tokens; 0: 9 for the generated task's characters, else 512",
    "max_prompt": "longest prompt in tokens, longer ones are refused; 0: no limit",
    "temperature": "of sampling and of the policy that is trained",
    "engine": "who samples; vllm needs a GPU, --model and pip install vllm",
    "eval_every": "steps between validations",
    "eval_per_cell": "validation problems a topic and level of the generated task",
    "eval_limit": "validation problems of a data set; 0: all",
    "eval_samples": "answers a validation problem",
    "show_every": "steps between samples shown and written to samples.jsonl; 0: never",
    "checkpoint_every": "steps between checkpoints",
    "model": "scratch, or a Hugging Face causal LM by name or folder",
    "chat": "wrap prompts in the tokenizer's chat template; auto: where it has one",
    "lora_rank": "train adapters of this rank on all linear layers (needs peft); 0: all weights",
    "arch": "from scratch: qwen3 or llama",
    "hidden": "from scratch: width",
    "layers": "from scratch: depth",
    "heads": "from scratch: attention heads",
    "kv_heads": "from scratch: key-value heads",
    "sft_steps": "from scratch: supervised warm-up steps; fewer make a weaker base",
    "sft_batch": "problems a supervised step",
    "sft_lr": "peak learning rate of the supervised warm-up; 4e-3 suits the tiny model, large ones need less",
    "sft_seed": "seed of the warm start, shared by runs that are compared",
    "device": "cpu, cuda or cuda:N",
    "dtype": "of the computation; weights and optimizer stay fp32",
    "sample_rows": "answers sampled at once; 0: all, for a --model as many as 8 GiB of cache hold",
    "micro_rows": "answers in one backward pass; 0: all, for a --model what 12 GiB hold. Same gradient, less memory",
    "gradient_checkpointing": "recompute activations in the backward pass: less memory, a third more time",
    "threads": "threads of torch; two runs side by side use two cores better than one run of two threads",
}


def option(name: str) -> str:
    """The command-line spelling of a field."""
    return "--" + name.replace("_", "-")


def parse(argv: Sequence[str], about: str) -> tuple[Settings, argparse.Namespace]:
    """(settings, the options that decide no number: out, cache, resume, backend). Raises InputError for bad values."""
    parser = Parser(prog="python llm/train.py", description=about)
    parser.add_argument("--preset", choices=sorted(PRESETS), help="defaults of a published set-up; options override it")
    for field in fields(Settings):
        how: dict[str, Any] = {"type": type(field.default), "choices": CHOICES.get(field.name)}
        if isinstance(field.default, bool):
            how = {"action": argparse.BooleanOptionalAction}
        default = CHOSEN_LATER.get(field.name, field.default)
        text = f"{HELP[field.name]} (default {default or repr(default)})"
        parser.add_argument(option(field.name), default=default, help=text, **how)
    add = parser.add_argument
    add("--out", default="results/llm/train", metavar="DIR", help="where files go (default %(default)s)")
    add("--cache", default="results/llm/cache", metavar="DIR", help="warm-started models (default %(default)s)")
    add(
        "--resume",
        action="store_true",
        help="continue from the last checkpoint in DIR; what decides numbers must be as it was",
    )
    add("--backend", default="own", choices=("own", "trl"), help="trl: hand the run to TRL (default %(default)s)")
    add("--export", action="store_true", help="at the end write DIR/model, a folder that transformers reads")
    preset, _ = parser.parse_known_args([a for a in argv if a not in ("-h", "--help")])
    parser.set_defaults(**PRESETS.get(preset.preset, {}))
    given = parser.parse_args(argv)
    return Settings(**{field.name: getattr(given, field.name) for field in fields(Settings)}), given
