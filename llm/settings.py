"""The settings of a run and its command line: every option with its help beside it."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_type_hints

from ebpo_sim import cli, typed
from ebpo_sim.cli import option, spelling
from ebpo_sim.errors import InputError
from ebpo_sim.sampling import ORDERS
from llm.curriculum import OLD_NAMES
from llm.objectives import AGGREGATIONS


@dataclass(frozen=True)
class Settings:
    """Everything that decides a run's numbers; the fields are the command line's options.

    A number is at least `low`; where that is not said, at least 1 if it is whole, and above 0 if not.
    """

    # what is learnt
    estimator: str = option(
        "ebpo", "a method: an estimator, NAME or NAME:setting=value,..., and other parts after ' + '"
    )
    group_size: int = option(4, "rollouts a prompt")
    prompts: int = option(64, "prompts a step; 0: 64, or all there are to train on where they are fewer", low=0)
    steps: int = option(400, "reinforcement-learning steps")
    order: str = option(
        "shuffled", "in which order prompts are met; by difficulty: by the base's pass rates on them",
        choices=(*ORDERS, *OLD_NAMES),
    )  # fmt: skip
    ranking: str = option("", "for orders by difficulty: a rollouts.csv of llm/evaluate.py; empty: measured first")
    seed: int = option(0, "same seed, same bytes on a CPU with the same --threads", low=0)
    # the objective and the optimizer
    lr: float = option(
        6e-4, "peak learning rate of AdamW; 1e-3 was seen to collapse the tiny model, 1e-6 is usual for large ones"
    )
    warmup: int = option(10, "steps of linear warm-up, multiplied by a linear decay to 0 over all steps", low=0)
    weight_decay: float = option(0.0, "of AdamW", low=0)
    updates: int = option(1, "passes over each batch")
    mini_batch: int = option(0, "prompts an optimizer step; 0: the whole batch", low=0)
    aggregation: str = option("token_mean", "how token losses are summed", choices=AGGREGATIONS)
    clip_low: float = option(0.2, "lower half-width of the ratio clip")
    clip_high: float = option(0.2, "upper half-width of the ratio clip")
    clip_dual: float = option(0.0, "bound of the ratio where the advantage is negative: 3 is verl's, 0 for none", low=0)
    kl_coef: float = option(0.0, "weight of the KL to the policy before RL; needs every row", low=0)
    kl_kind: Literal["k1", "k2", "k3"] = option(
        "k3", "its estimate: k3 is GRPO's, k2 has the divergence's own gradient"
    )
    grad_clip: float = option(1.0, "largest gradient norm")
    old_log_probs: Literal["auto", "sampler", "trainer"] = option(
        "auto", "whose log-probabilities the ratio starts from; auto: the sampler's in fp32, else the trainer's"
    )
    # tasks
    dataset: str = option(
        "generated",
        "generated, sample (shipped math problems), a .jsonl/.json/.csv/.parquet file, a Hugging Face name, or "
        "reasoning_gym:NAME (pip install reasoning-gym)",
    )
    dataset_split: str = option("train", "split of a Hugging Face data set")
    validation: str = option(
        "", "data set of the validation; empty: problems held out of --dataset by the hash of what they ask"
    )
    validation_split: str = option("test", "split of --validation, where it is a Hugging Face data set")
    instruction: str = option(
        "", "added to every prompt of a data set; none: nothing; empty: what its layout is used with"
    )
    verifier: str = option(
        "auto", "exact, math (math-verify), package.module:function or file.py:function; auto: by the data set"
    )
    verifier_seconds: float = option(
        5.0, "time limit of one verdict; an answer that exceeds it scores 0 and is counted"
    )
    verifier_workers: int = option(0, "processes that verify answers side by side; 0: one a core, at most 4", low=0)
    verifier_memory: int = option(4096, "megabytes a verdict may take beyond the verifier's import; 0: no limit", low=0)
    topics: str = option(
        "all",
        "of the generated task: all (the seven without working), or some of add,sub,mul,mod,reverse,sort,count and of "
        "addition,chain,sums,swaps, whose answers show their working or are many",
    )
    max_level: int = option(9, "hardest level of the generated task: digits of numbers, letters of words, operations")
    per_cell: int = option(200, "training problems a topic and level of the generated task")
    # answers
    max_new: int = option(0, "longest answer in tokens; 0: 9 for the generated task's characters, else 512", low=0)
    max_prompt: int = option(0, "longest prompt in tokens, longer ones are refused; 0: no limit", low=0)
    max_prompt_tokens: int = option(
        0, "problems with longer prompts are left out of training and validation, which is said; 0: none", low=0
    )
    filter_prompts: str = option(
        "", "LO,HI: train only on prompts whose pass rate under the start policy is from LO to HI; empty: on all"
    )
    filter_samples: int = option(8, "answers a prompt that measure the pass rates of --filter-prompts")
    level_shares: str = option(
        "", "of the generated task: shares of its problems by level, as in 2=0.3,5=0.7; empty: equal ones"
    )
    temperature: float = option(1.0, "of sampling and of the policy that is trained", low=0)
    engine: Literal["hf", "vllm"] = option("hf", "who samples; vllm needs a GPU, --model and pip install vllm")
    # what is measured and kept
    eval_every: int = option(50, "steps between validations")
    eval_per_cell: int = option(32, "validation problems a topic and level of the generated task")
    eval_limit: int = option(256, "validation problems of a data set; 0: all", low=0)
    eval_samples: int = option(4, "answers a validation problem")
    noise_parts: int = option(
        0,
        "parts of a batch whose gradients tell the gradient noise scale, 8 say; 0: not measured. More memory",
        low=0,
    )
    kl_every: int = option(1, "steps between measurements of the KL that a step makes; each costs a forward pass")
    show_every: int = option(100, "steps between samples shown and written to samples.jsonl; 0: never", low=0)
    checkpoint_every: int = option(50, "steps between checkpoints")
    # the policy
    model: str = option("scratch", "scratch, or a Hugging Face causal LM by name or folder")
    chat: Literal["auto", "yes", "no"] = option(
        "auto", "wrap prompts in the tokenizer's chat template; auto: where it has one"
    )
    lora_rank: int = option(0, "train adapters of this rank on all linear layers (needs peft); 0: all weights", low=0)
    arch: str = option("qwen3", "from scratch: qwen3 or llama")
    hidden: int = option(64, "from scratch: width")
    layers: int = option(2, "from scratch: depth")
    heads: int = option(4, "from scratch: attention heads")
    kv_heads: int = option(4, "from scratch: key-value heads")
    sft_steps: int = option(150, "from scratch: supervised warm-up steps; fewer make a weaker base", low=0)
    sft_batch: int = option(256, "problems a supervised step")
    sft_lr: float = option(
        4e-3, "peak learning rate of the supervised warm-up; 4e-3 suits the tiny model, large ones need less"
    )
    sft_seed: int = option(0, "seed of the warm start, shared by runs that are compared", low=0)
    # the machine
    device: str = option("cpu", "cpu, cuda or cuda:N")
    dtype: Literal["fp32", "bf16"] = option("fp32", "of the computation; weights and optimizer stay fp32")
    sample_rows: int = option(0, "answers sampled at once; 0: all, for a --model as many as 8 GiB of cache hold", low=0)
    micro_rows: int = option(
        0, "answers in one backward pass; 0: all, for a --model what 12 GiB hold. Same gradient, less memory", low=0
    )
    gradient_checkpointing: bool = option(
        False,
        "recompute activations in the backward pass: less memory, a third more time",
        action=argparse.BooleanOptionalAction,
    )
    threads: int = option(1, "threads of torch; two runs side by side use two cores better than one run of two threads")

    def __post_init__(self) -> None:
        for f, kind in zip(fields(self), get_type_hints(Settings).values(), strict=True):
            name, value, least = spelling(f.name), getattr(self, f.name), f.metadata["low"]
            if type(value) in (int, float) and kind in (int, float):
                least = 1 if least is None and kind is int else least
                if not (0 < value < math.inf if least is None else least <= value < math.inf):
                    bound = "positive" if least is None else f"at least {least}"
                    raise InputError(f"{name} must be {bound} and finite, got {value}: the default is {f.default}")
                if kind is int and value >= 2**62:
                    raise InputError(f"{name} must be below 2^62, got {value}")
            typed.check(name, kind, value)
            choices = f.metadata["how"].get("choices", (value,))
            if value not in choices:
                raise InputError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
        object.__setattr__(self, "order", OLD_NAMES.get(self.order, self.order))
        if self.mini_batch and self.prompts % self.mini_batch:  # 0 prompts are still to be chosen
            raise InputError(
                f"--mini-batch must divide --prompts {self.prompts}, got {self.mini_batch}: 0 takes the whole batch"
            )

        groups = self.mini_batch or self.prompts
        if self.noise_parts == 1 or self.noise_parts > groups > 0:
            raise InputError(
                f"--noise-parts must be 0, or from 2 to the {groups or 64} prompts of an optimizer step, got "
                f"{self.noise_parts}: take 8"
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


CHOSEN_LATER = {"prompts": 0}  # where the command line has another default than the fields
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {  # the set-up of arXiv 2602.05165, section 5; 1000 steps at most
        "model": "Qwen/Qwen3-8B", "dataset": "BytedTsinghua-SIA/DAPO-Math-17k", "validation": "HuggingFaceH4/MATH-500",
        "estimator": "ebpo", "group_size": 4, "prompts": 512, "mini_batch": 128, "lr": 1e-6, "kl_coef": 1e-3,
        "steps": 1000, "order": "alternating", "max_new": 8192, "dtype": "bf16", "device": "cuda", "micro_rows": 4,
        "sample_rows": 256, "gradient_checkpointing": True, "eval_samples": 16, "sft_steps": 0,
    },
}  # fmt: skip


def parse(argv: Sequence[str], about: str) -> tuple[Settings, argparse.Namespace]:
    """(settings, the options that decide no number: out, cache, resume, backend). Raises InputError for bad values."""
    parser = cli.Parser(prog="python llm/train.py", description=about)
    parser.add_argument("--preset", choices=sorted(PRESETS), help="defaults of a published set-up; options override it")
    defaults = {field.name: field.default for field in fields(Settings)} | CHOSEN_LATER
    cli.add_options(parser, Settings, defaults, lambda default: f" (default {default or repr(default)})")
    add = parser.add_argument
    add("--out", default="results/llm/train", metavar="DIR", help="where files go (default %(default)s)")
    add("--cache", default="results/llm/cache", metavar="DIR", help="warm-started models (default %(default)s)")
    add(
        "--resume",
        action="store_true",
        help="continue from the last checkpoint in DIR; what decides numbers must be as it was",
    )
    add("--backend", default="own", choices=("own", "trl"), help="trl: hand the run to TRL (default %(default)s)")
    add(
        "--trl",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="with --backend trl: an option of its GRPOConfig that none of these sets, vllm_enable_sleep_mode=true say "
        "(repeatable)",
    )
    add("--keep-best", action="store_true", help="keep the checkpoint of the highest validation pass@1 (best.pt; with "
        "--backend trl, which then validates every --eval-every steps, the folder best)")  # fmt: skip
    add("--export", action="store_true", help="at the end write DIR/model, a folder that transformers reads")
    preset, _ = parser.parse_known_args([a for a in argv if a not in ("-h", "--help")])
    parser.set_defaults(**PRESETS.get(preset.preset, {}))
    given = parser.parse_args(argv)
    if given.trl and given.backend != "trl":
        raise InputError(f"--trl {given.trl[0]!r} needs --backend trl: add it, or leave --trl out")
    return Settings(**{field.name: getattr(given, field.name) for field in fields(Settings)}), given
