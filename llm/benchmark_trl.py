"""The loop of llm/train.py against TRL's GRPOTrainer: same model, prompts, estimator and threads, in one run.

    python llm/benchmark_trl.py                      # 16 prompts x 8 and 64 x 4 answers, one thread, minutes
    python llm/benchmark_trl.py --shape 32x8 --hidden 128 --layers 4 --rounds 20

A round is one step of TRL and then, on the prompts TRL drew, one of ours with rows of advantage 0 left out and one with
every row computed, the two in turn first. Both sides train the warm-started policy by GRPO with TRL's conventions, at a
learning rate of 1e-9: the policy stands still, so every round is the same work. Times are wall-clock. Sampling is from
prompts to texts (TRL's `_generate`; ours with the verifier in it, which TRL's is not); generation alone is TRL's
`model.generate` against our sampler, which also returns log-probabilities and entropies. A step is everything: TRL's
from the end of one to the end of the next, ours with what it measures of the step. Ratios are TRL / ours, by round;
their interval is a bootstrap of the median over rounds.
"""

from __future__ import annotations

import copy
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

if not __package__:  # run as a script: the repository instead of this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

if __name__ == "__main__":
    from llm import early

    early.guard()

import numpy as np
import torch

from ebpo_sim import cli, report
from ebpo_sim.errors import InputError
from ebpo_sim.timing import spread
from llm import train
from llm.curriculum import Curriculum
from llm.folders import write_json
from llm.problems import task
from llm.run import Run, prepare
from llm.settings import Settings
from llm.tasks import Problem

ESTIMATOR = "grpo:eps=1e-4"  # what TRL does with scale_rewards="group"
STILL = 1e-9  # learning rate
RATIOS = {  # ratio -> (TRL's time, ours)
    "generation alone": ("trl_generate", "ours_generate"),
    "sampling": ("trl_sample", "ours_sample"),
    "step, zero rows skipped": ("trl_step", "ours_step"),
    "step, every row": ("trl_step", "ours_step_every_row"),
}


class Rewards:
    """TRL's reward function: the verifier of the run on the texts of finished answers; keeps the problems it saw."""

    __name__ = "verified"

    def __init__(self, run: Run, problems: Sequence[Problem]) -> None:
        self._run, self._problems, self.seen, self.tokens = run, problems, list[Problem](), 0

    def __call__(self, completions: list[str], completion_ids: list[list[int]], number: list[int], **_: Any) -> Any:
        self.seen = [self._problems[n] for n in number]
        self.tokens = sum(map(len, completion_ids))
        ends = self._run.engine.tokenizer.eos_ids
        texts = [text if ids[-1] in ends else None for text, ids in zip(completions, completion_ids, strict=True)]
        return self._run.verifier.scores(texts, self.seen)


def our_step(run: Run, problems: list[Problem], number: int) -> tuple[float, dict[str, Any]]:
    """(seconds of the whole step, its metrics)."""
    settings = run.settings
    those = Curriculum(problems, len(problems), settings.group_size, number + 1, settings.seed)
    began = time.perf_counter()
    metrics, _ = train.train_step(run, those, number)
    return time.perf_counter() - began, metrics


def timed(work: Callable[..., Any], log: list[float]) -> Callable[..., Any]:
    """`work`, noting its seconds in `log`."""

    def noted(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        said = work(*args, **kwargs)
        log.append(time.perf_counter() - began)
        return said

    return noted


def measure(settings: Settings, cache: Path, rounds: int, warmup: int) -> list[dict[str, float]]:
    """A row a round: seconds of TRL's step and parts, and of ours; see the module's docstring."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    problems, _ = task(settings)
    run = prepare(settings, cache, problems)
    every = replace(run, objective=replace(run.objective, every_row=True))
    reward, rows = Rewards(run, problems), list[dict[str, float]]()
    generated, sampled = list[float](), list[float]()

    class Rounds(TrainerCallback):
        """Stops TRL's clock at the end of its step, runs ours, and starts it again."""

        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            row = {"trl_step": time.perf_counter() - self.began, "trl_generate": generated[-1]}
            row |= {"trl_sample": sampled[-1], "trl_tokens": reward.tokens}
            batch = reward.seen[:: settings.group_size]
            for made in (run, every) if len(rows) % 2 else (every, run):
                seconds, metrics = our_step(made, batch, len(rows))
                if made is every:
                    row |= {"ours_step_every_row": seconds, "ours_update_every_row": metrics["seconds_update"]}
                    continue
                row |= {"ours_step": seconds, "ours_update": metrics["seconds_update"]}
                row |= {"ours_generate": metrics["seconds_sample"], "rows_trained": metrics["rows_trained"]}
                row["ours_sample"] = metrics["seconds_sample"] + metrics["seconds_verify"]
                row["ours_tokens"] = metrics["length"] * len(batch) * settings.group_size
            rows.append(row)
            self.began = time.perf_counter()

    tokenizer: Any = run.engine.tokenizer  # the tiny model's
    with tempfile.TemporaryDirectory() as folder:
        made = GRPOTrainer(
            copy.deepcopy(run.model),
            reward_funcs=reward,
            args=GRPOConfig(
                output_dir=folder, use_cpu=True, bf16=False, gradient_checkpointing=False, report_to="none",
                per_device_train_batch_size=settings.prompts * settings.group_size, num_generations=settings.group_size,
                max_completion_length=run.engine.max_new, learning_rate=STILL, lr_scheduler_type="constant",
                max_steps=rounds + warmup, save_strategy="no", logging_steps=rounds + warmup, disable_tqdm=True,
                max_grad_norm=settings.grad_clip, seed=settings.seed, dataloader_pin_memory=False,
            ),
            train_dataset=Dataset.from_list([{"prompt": p.prompt, "number": n} for n, p in enumerate(problems)]),
            processing_class=tokenizer.wrapped,
            callbacks=[Rounds()],
        )  # fmt: skip
        made.model.generate = timed(made.model.generate, generated)
        made._generate = timed(made._generate, sampled)
        made.train()
    return rows[warmup:]


def ratio(rows: Sequence[dict[str, float]], names: tuple[str, str]) -> dict[str, float]:
    """Median over rounds of TRL's time / ours, with the 95 % interval of a bootstrap over rounds."""
    ratios = np.array([row[names[0]] / row[names[1]] for row in rows])
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(ratios, (2000, len(ratios))), axis=1)
    low, high = np.quantile(medians, [0.025, 0.975])
    return {"median": float(np.median(ratios)), "low": float(low), "high": float(high)}


def tables(found: dict[str, Any]) -> str:
    """The results as text: milliseconds a step, then how many times TRL's time is ours."""
    parts = []
    for cell in found["cells"]:
        rows = cell["rounds"]
        times = [
            [name.replace("_", " "), str(spread([1e3 * row[name] for row in rows]))]
            for name in rows[0]
            if "tokens" not in name and name != "rows_trained"
        ]
        lines = [
            [name, f"{r['median']:.2f}", f"[{r['low']:.2f}, {r['high']:.2f}]"] for name, r in cell["ratios"].items()
        ]
        tokens = {side: np.mean([row[f"{side}_tokens"] for row in rows]) for side in ("trl", "ours")}
        share = np.mean([row["rows_trained"] for row in rows])
        parts += [
            f"{cell['prompts']} prompts x {cell['group_size']} answers; tokens a step {tokens['trl']:.0f} (TRL) and "
            f"{tokens['ours']:.0f} (ours); share of rows with an advantage {share:.2f}; {len(rows)} rounds",
            report.text_table(("ms", "median [quartiles]"), times),
            report.text_table(("TRL / ours", "median", "95 % interval"), lines),
        ]
    m = found["machine"]
    parts.append(
        f"TRL {m['trl']}, transformers {m['transformers']}, torch {m['torch']}, {m['threads']} of {m['cores']} cores; "
        f"load average {m['load_before']:.1f} before, {m['load_after']:.1f} after"
    )
    return "\n\n".join(parts)


def shape(text: str) -> tuple[int, int]:
    """16x8 as (16, 8). Raises InputError for anything else."""
    prompts, cross, group = text.partition("x")
    if not cross or not prompts.isdigit() or not group.isdigit() or int(prompts) < 1 or int(group) < 2:
        raise InputError(f"--shape must be PROMPTSxGROUP with at least 2 answers a prompt, as in 16x8, got {text!r}")
    return int(prompts), int(group)


@dataclass(frozen=True)
class Options:
    """The command line."""

    shape: tuple[str, ...] = cli.option(
        (), "prompts x answers a step (repeatable; default 16x8 and 64x4)", metavar="PxG"
    )
    rounds: int = cli.option(40, "timed rounds a shape (default %(default)s)", 2)
    warmup: int = cli.option(5, "rounds thrown away first (default %(default)s)", 1)
    threads: int = cli.option(1, "threads of torch, for both sides (default %(default)s)", check=cli.check_threads)
    hidden: int = cli.option(Settings.hidden, "width of the policy (default %(default)s)")
    layers: int = cli.option(Settings.layers, "its depth (default %(default)s)")
    sft_steps: int = cli.option(Settings.sft_steps, "steps of its warm start (default %(default)s)")
    seed: int = cli.seed_option("of prompts and answers (times vary all the same)")
    out: str = cli.out_option("where benchmark.json goes", "results/llm/benchmark_trl")
    cache: str = cli.out_option("warm-started models (default %(default)s)", "results/llm/cache")


def main(argv: Sequence[str]) -> None:
    """The command line; see the module's docstring."""
    given, defaults = cli.parse(Options, "python llm/benchmark_trl.py", __doc__, argv), Settings()
    shapes = [shape(text) for text in given.shape or ("16x8", "64x4")]
    out, cache = report.writable_folder(given.out), report.writable_folder(given.cache)
    try:
        import transformers
        import trl
    except ImportError as error:
        raise InputError(f"the benchmark needs TRL ({error}): python -m pip install 'ebpo-sim[trl]'") from error
    torch.set_num_threads(given.threads)
    machine = {"cores": os.cpu_count(), "threads": given.threads, "torch": torch.__version__, "trl": trl.__version__}
    machine |= {"transformers": transformers.__version__, "load_before": os.getloadavg()[0]}
    with report.locked(out):
        cells = []
        for prompts, group_size in shapes:
            settings = replace(
                defaults, estimator=ESTIMATOR, prompts=prompts, group_size=group_size,
                steps=given.rounds + given.warmup, lr=STILL, seed=given.seed,
                threads=given.threads, hidden=given.hidden, layers=given.layers,
                sft_steps=given.sft_steps,
            )  # fmt: skip
            rows = measure(settings, cache, given.rounds, given.warmup)
            ratios = {name: ratio(rows, pair) for name, pair in RATIOS.items()}
            cells.append({"prompts": prompts, "group_size": group_size, "ratios": ratios, "rounds": rows})
        found = {
            "machine": {**machine, "load_after": os.getloadavg()[0]},
            "settings": settings.as_dict(),
            "cells": cells,
        }
        write_json(out / "benchmark.json", found)
    report.say(tables(found))
    report.say(f"file: {given.out}/benchmark.json")


if __name__ == "__main__":
    cli.run(main)
