"""The full-run path: the settings of `llm/train.py` handed to TRL, with the same estimator and objectives.

    accelerate launch --config_file llm/configs/fsdp2.yaml llm/train.py --backend trl --preset paper --engine vllm

TRL brings FSDP, DeepSpeed, vLLM and many processes; this module maps names. Batches are the curriculum's, in its
order, on every number of processes. TRL's schedule starts from a rate of 0, and with vLLM it weights tokens by the
ratio of trainer and sampler. It shows no answers and validates with --keep-best alone: those options, --sample-rows,
--old-log-probs, --kl-every and --noise-parts have no effect, which is said; use llm/evaluate.py on the model it writes.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from ebpo_sim import report, rungs
from ebpo_sim.cli import spelling
from ebpo_sim.errors import InputError
from ebpo_sim.methods.method import Method, parse_method
from ebpo_sim.sampling.orders import BY_DIFFICULTY
from llm import checkpoints, hub, prompt_filter, trained_on, trl_checkpoints, trl_options
from llm.engines import precision
from llm.problems import record_of, task
from llm.run import (
    SCRATCH,
    load_policy,
    longest_answer,
    objective_of,
    rates_from,
    sized,
    tokenizer_of,
    verifier_of,
)
from llm.settings import Settings
from llm.sizes import fitted, use_threads
from llm.tasks.tokenizer import Tokenizer
from llm.trained_on import TrainedOn
from llm.trl_data import Reward, row_of, rows_of

BEST = "best"
VALIDATION = {"validation", "validation_split", "eval_every", "eval_per_cell", "eval_limit", "eval_samples"}
NO_EFFECT = VALIDATION | {"show_every", "sample_rows", "old_log_probs", "noise_parts", "kl_every"}
# transformers keeps the saving interval of the checkpoint; what has no effect may change, but not what is validated
# with, which decides the problems trained on
FREE = checkpoints.FREE - {"checkpoint_every"} | NO_EFFECT - {
    "validation",
    "validation_split",
    "eval_per_cell",
    "eval_limit",
}
LOSSES = {"token_mean": "dapo", "sequence_mean": "grpo", "constant_length": "dr_grpo"}


def arguments(settings: Settings, out: Path, longest: int, processes: int, named: bool = False) -> dict[str, Any]:
    """The keywords of TRL's GRPOConfig; without clip and divergence where the method has named its objectives.

    Raises InputError for batches that TRL cannot split so.
    """
    batch, mini = (n * settings.group_size for n in (settings.prompts, settings.mini_batch or settings.prompts))
    rows = settings.micro_rows or max(1, mini // processes)
    if mini % (rows * processes):
        raise InputError(
            f"the {mini} answers of an optimizer step must be a multiple of --micro-rows {rows} times the {processes} "
            "processes: change --mini-batch, --prompts or --micro-rows"
        )
    each = batch // mini * settings.updates  # optimizer steps a batch
    own = {
        "beta": settings.kl_coef,
        "epsilon": settings.clip_low,
        "epsilon_high": settings.clip_high,
        "delta": settings.clip_dual or None,
    }
    return {
        **({} if named else own),
        "output_dir": str(out),
        "num_generations": settings.group_size,
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": mini // (rows * processes),
        "steps_per_generation": batch // (rows * processes),
        "num_iterations": settings.updates,
        "max_steps": settings.steps * each,
        "max_completion_length": longest,
        "temperature": settings.temperature,
        "learning_rate": settings.lr,
        "lr_scheduler_type": "linear",
        "warmup_steps": settings.warmup * each,
        "adam_beta2": 0.99,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.grad_clip,
        "loss_type": LOSSES[settings.aggregation],
        "disable_dropout": True,
        "use_bias_correction_kl": False,  # the plain k3 of llm.objectives
        "shuffle_dataset": False,  # the curriculum has put the rows in order
        "remove_unused_columns": False,
        "seed": settings.seed,
        "use_cpu": settings.device == "cpu",
        "bf16": settings.dtype == "bf16",
        "gradient_checkpointing": settings.gradient_checkpointing,
        "use_vllm": settings.engine == "vllm",
        "logging_steps": 1,
        "save_steps": settings.checkpoint_every * each,
        "report_to": "none",
    }


def validations(settings: Settings) -> dict[str, Any]:
    """The keywords of GRPOConfig by which TRL validates every --eval-every steps, --eval-samples answers a problem."""
    each = settings.prompts // (settings.mini_batch or settings.prompts) * settings.updates
    return {
        "eval_strategy": "steps",
        "eval_steps": settings.eval_every * each,
        "num_generations_eval": settings.eval_samples,
        "per_device_eval_batch_size": settings.eval_samples * max(1, 64 // settings.eval_samples),
    }


def train(
    settings: Settings, out: Path, cache: Path, resume: bool = False, more: Sequence[str] = (), keep_best: bool = False
) -> None:
    """Train with TRL and write checkpoints, metrics.jsonl and the model into `out`. more: see `trl_options`.

    keep_best: validate, and keep the model of the highest mean reward there in the folder best.
    """
    try:
        from accelerate import PartialState
        from datasets import Dataset
        from trl import GRPOConfig

        from ebpo_sim.integrations.trl import MethodTrainer
    except ImportError as error:
        raise InputError(f"--backend trl needs TRL: pip install 'ebpo-sim[trl]' ({error})") from error
    method = check(settings, keep_best)
    defaults = {f.name: f.default_factory() if callable(f.default_factory) else f.default for f in fields(GRPOConfig)}
    extra = trl_options.read(more, defaults, arguments(Settings(), out, 1, 1).keys())
    if settings.order in BY_DIFFICULTY and not settings.ranking:
        raise InputError(
            f"--order {settings.order} with --backend trl needs --ranking, a rollouts.csv of llm/evaluate.py"
        )
    if prompt_filter.bounds_of(settings) and not settings.ranking:
        raise InputError("--filter-prompts with --backend trl needs --ranking, a rollouts.csv of llm/evaluate.py")
    if settings.engine == "vllm" and importlib.util.find_spec("vllm") is None:
        raise InputError("--engine vllm needs vLLM: pip install vllm, or use --engine hf")
    state = PartialState(cpu=settings.device == "cpu")
    use_threads(settings.threads)
    problems = task(settings)
    if settings.max_prompt_tokens:
        problems = prompt_filter.short_enough(settings, problems, tokenizer_of(settings, limited=False))
    settings, record = fitted(settings, problems.train), record_of(settings, problems)
    kept = prompt_filter.by_rate(settings, problems.train, rates_from(settings, problems.train) or ())
    problems = problems._replace(train=[problems.train[i] for i in kept])
    last = None
    if resume:
        last = str(trl_checkpoints.last_whole(out, _identity(settings, more), record, FREE))
    else:
        trl_checkpoints.refuse_new_run(out)
    if settings.model == SCRATCH:
        sized(settings, problems.train, precision(settings.device, settings.dtype))
    with state.main_process_first():  # one warm start for all processes, from the cache for the others
        model, tokenizer = base_model(settings, out, cache, state.is_main_process)
    verifier = verifier_of(settings)
    verifier.start()
    for problem in problems.train:
        tokenizer.prompt(problem)
    wrapped = tokenizer.wrapped
    asked = arguments(settings, out, longest_answer(settings, tokenizer), state.num_processes, bool(method.objectives))
    asked |= validations(settings) if keep_best else {}
    known = {field.name for field in fields(GRPOConfig)} | {"output_dir"}
    if asked.keys() - known - {"use_bias_correction_kl"}:  # this one is newer than the oldest TRL
        raise InputError(f"this TRL has no {sorted(asked.keys() - known)}: install another")
    with verifier:
        trainer = MethodTrainer(
            model,
            Reward(verifier, tokenizer.eos_ids),
            config_of({name: value for name, value in asked.items() if name in known} | extra),
            Dataset.from_list(rows_of(settings, problems.train, tokenizer.chat)),
            Dataset.from_list([row_of(p, tokenizer.chat) for p in problems.validation]) if keep_best else None,
            processing_class=wrapped,
            peft_config=hub.adapter_plan(settings.lora_rank) if settings.lora_rank else None,
            method=method,
            cluster_column="topic",
            prompt_id_column="id",
            callbacks=[trl_checkpoints.Complete(_identity(settings, more), record, state.wait_for_everyone)],
        )
        if keep_best:
            trainer.add_callback(trl_checkpoints.Best(lambda: _save_best(trainer, out / BEST, record, tokenizer)))
        if state.is_main_process:
            report.write_bytes(out / "settings.json", report.to_json(settings.as_dict()).encode())
        trainer.train(resume_from_checkpoint=last)
        failed = sum(verifier.failures.values())
    adapted = bool(settings.lora_rank)
    saved = out / ("adapters" if adapted else "model")
    trainer.save_model(str(saved))
    if adapted and state.num_processes == 1:  # sharded weights are not here to be added up
        checkpoints.export(out / "model", trainer.model, tokenizer, record)
    if state.is_main_process:
        trained_on.write(saved, record)
        history = "\n".join(report.to_json(row).replace("\n", "") for row in trainer.state.log_history)
        report.write_bytes(out / "metrics.jsonl", f"{history}\n".encode())
        if not adapted:
            wrapped.save_pretrained(out / "model")
        if failed:
            report.say(f"the verifier failed on {failed} answers, scored 0: {verifier.failures}")
        report.say(
            f"files: {out}/{{model,metrics.jsonl,checkpoint-*}}; python llm/evaluate.py {out}/model --dataset ..."
        )


def _save_best(trainer: Any, folder: Path, record: TrainedOn, tokenizer: Tokenizer) -> None:
    trainer.save_model(str(folder))
    if trainer.is_world_process_zero():
        trained_on.write(folder, record)
        tokenizer.wrapped.save_pretrained(folder)
        row = next(row for row in reversed(trainer.state.log_history) if "eval_reward" in row)
        report.say(f"{folder.name}: step {row['step']}, mean validation reward {row['eval_reward']:.3f}")


def _identity(settings: Settings, more: Sequence[str]) -> dict[str, Any]:
    """What a resumed run must have as it was."""
    return settings.as_dict() | ({"trl": sorted(more)} if more else {})


def config_of(asked: dict[str, Any]) -> Any:
    """GRPOConfig. Raises InputError for values that it refuses."""
    from trl import GRPOConfig

    try:
        return GRPOConfig(**asked)
    except (ImportError, TypeError, ValueError) as error:
        raise InputError(f"TRL refuses these options: {' '.join(str(error).split())}") from error


def check(settings: Settings, validates: bool = False) -> Method:
    """The method; what `llm.run.prepare` refuses is refused, and groups of one."""
    method = parse_method(settings.estimator, None, rungs.TRL)
    precision(settings.device, settings.dtype)
    objective_of(settings, 1)
    if settings.kl_coef and settings.kl_kind != "k3" and not method.objectives:
        raise InputError(
            f"--kl-kind {settings.kl_kind} is not TRL's, which computes k3: use --backend own or name both, "
            f"--estimator '{settings.estimator} + clip + kl:kind={settings.kl_kind}'"
        )
    if settings.temperature == 0 or settings.group_size < 2:
        raise InputError(
            f"TRL needs a positive --temperature and a --group-size of at least 2, got {settings.temperature} and "
            f"{settings.group_size}"
        )
    without = [
        spelling(f.name)
        for f in fields(Settings)
        if f.name in NO_EFFECT - (VALIDATION if validates else set()) and getattr(settings, f.name) != f.default
    ]
    if without:
        report.say(f"no effect with --backend trl: {', '.join(without)}")
    return method


def base_model(settings: Settings, out: Path, cache: Path, write: bool) -> tuple[str, Tokenizer]:
    """(name or folder of the model to start from, our tokenizer for it).

    TRL reads a model by name (for a reference policy and for vLLM), so the warm-started one is written to a folder.
    """
    if settings.model != SCRATCH:
        return settings.model, hub.read_tokenizer(settings.model, settings.chat, settings.max_prompt)
    model, tokenizer = load_policy(settings, cache, precision(settings.device, settings.dtype))
    folder = out / "base"
    if write:
        checkpoints.export(folder, model, tokenizer)
    return str(folder), tokenizer
