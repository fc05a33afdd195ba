"""A toy for TRL on a CPU: a random Qwen3 of one layer, a character tokenizer, sums modulo ten, a keen memory.

Run as a script under torch.distributed it trains and writes what every process saw; see `main`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
from trl import GRPOConfig

from ebpo_sim.estimators import dump_state
from ebpo_sim.integrations.trl import EBPOTrainer

PAD, EOS, UNK = "<pad>", "<eos>", "<unk>"
GROUP = 4
NEWS = (  # what transformers says about its own settings in this toy; everything else is an error
    "ignore:`gradient_checkpointing` is deprecated:FutureWarning",
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",
)


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a character, built in code."""
    vocabulary = {word: number for number, word in enumerate([PAD, EOS, UNK, *"0123456789+-*= "])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token=UNK))
    core.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token=PAD, eos_token=EOS, unk_token=UNK, padding_side="left",
        model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip


def model(seed: int = 0) -> Qwen3ForCausalLM:
    """Random weights of one seed."""
    words = tokenizer()
    torch.manual_seed(seed)
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=2, head_dim=16, max_position_embeddings=64, tie_word_embeddings=True,
            bos_token_id=None, eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id,
        )
    )  # fmt: skip


def dataset(rows: int) -> Dataset:
    """Distinct sums "a+b=", their answers modulo ten, two topics and a number."""
    return Dataset.from_list(
        [
            {
                "prompt": f"{n // 10}+{n % 10}=",
                "answer": str((n // 10 + n % 10) % 10),
                "topic": ("even", "odd")[n % 2],
                "number": n,
            }
            for n in range(rows)
        ]
    )


def settings(folder: Path, **changes: Any) -> dict[str, Any]:
    """For a CPU: 4 prompts of 4 completions of at most 4 tokens in a step, nothing saved or reported."""
    mine = {
        "output_dir": str(folder), "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": "none",
        "per_device_train_batch_size": 16, "per_device_eval_batch_size": 8, "num_generations": GROUP, "max_steps": 4,
        "max_completion_length": 4, "learning_rate": 1e-3, "lr_scheduler_type": "constant", "seed": 1,
        "logging_steps": 1, "save_strategy": "no", "disable_tqdm": True, "dataloader_pin_memory": False,
    }  # fmt: skip
    return {**mine, **changes}


class Reward:
    """1 for an answer that starts right; remembers every call, so that a test need not trust the trainer."""

    __name__ = "toy"

    def __init__(self) -> None:
        self.calls: list[dict[str, list[Any]]] = []

    def __call__(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float | None]:
        rewards = self.score(prompts, completions, columns)
        kept = {name: list(columns[name]) for name in ("topic", "number", "completion_ids")}
        self.calls.append({"rewards": rewards, "prompts": prompts, **kept})
        return rewards

    def score(self, prompts: list[str], completions: list[str], columns: dict[str, Any]) -> list[float | None]:
        """The rewards; what a kind of reward redefines."""
        return [float(c[:1] == a) for c, a in zip(completions, columns["answer"], strict=True)]


class Graded(Reward):
    """A number that tells prompts apart and varies inside a group, and is no dyadic fraction."""

    def score(self, prompts: list[str], completions: list[str], columns: dict[str, Any]) -> list[float | None]:
        digits = [sum(character.isdigit() for character in c) for c in completions]
        return [0.1 * d + 0.01 * int(p[0]) + 0.003 * int(p[2]) for d, p in zip(digits, prompts, strict=True)]


class Given(Reward):
    """The next of the given lists of rewards, whatever was generated."""

    def __init__(self, rewards: list[list[float | None]]) -> None:
        super().__init__()
        self.left = list(rewards)

    def score(self, prompts: list[str], completions: list[str], columns: dict[str, Any]) -> list[float | None]:
        return self.left.pop(0)


class Remembering(EBPOTrainer):
    """Keeps the local advantages and the completions table of each generation batch, and whether it was learnt from."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.batches: list[dict[str, Any]] = []

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        before = self.estimator_state
        output = super()._generate_and_score_completions(inputs)
        learnt, table = self.estimator_state is not before, list(self._logs["advantages"])
        self.batches.append({"advantages": output["advantages"].tolist(), "table": table, "learnt": learnt})
        return output


OWN = ("method", "estimator", "cluster_column", "prompt_id_column", "peft_config")


def trainer(folder: Path, reward: Any = None, rows: int = 64, kind: Any = Remembering, **changes: Any) -> Any:
    """A trainer of `kind` on the toy; settings of the trainer and of its configuration alike by name."""
    torch.set_num_threads(1)
    keywords = {name: changes.pop(name) for name in OWN if name in changes}
    return kind(
        model(),
        reward_funcs=Graded() if reward is None else reward,
        args=changes.pop("config", GRPOConfig)(**settings(folder, **changes)),
        train_dataset=dataset(rows),
        eval_dataset=dataset(16),
        processing_class=tokenizer(),
        **keywords,
    )


def seen(made: Any) -> dict[str, Any]:
    """What a process saw: batches, state, its reward calls, and its weights to the last bit."""
    weights = made.accelerator.unwrap_model(made.model).parameters()
    return {
        "state": dump_state(made.estimator, made.estimator_state),
        "batches": made.batches,
        "calls": made.reward_funcs[0].calls,
        "weights": [w.detach().flatten().tolist() for w in weights],
    }


def main(folder: str, jobs: str) -> None:
    """Train job by job, each a dict of settings, "resume" (a path) apart; write <rank>.json, a list of `seen`."""
    found = []
    for job in json.loads(jobs):
        resume = job.pop("resume", None)
        made = trainer(Path(job.pop("output")), **job)
        made.train(resume_from_checkpoint=resume)
        found.append(seen(made))
    Path(folder, f"{made.accelerator.process_index}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
