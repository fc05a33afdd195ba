"""RLVR of a causal language model with any estimator of `ebpo_sim`, from two cores to a GPU.

    python llm/train.py                                    # a tiny model from scratch: minutes, nothing downloaded
    python llm/train.py --estimator grpo --out results/llm/grpo
    python llm/train.py --estimator ebpo_debiased:memory=0.95 --order alternating --group-size 2
    python llm/train.py --resume                           # after a kill, with the options of the killed run
    python llm/train.py --model Qwen/Qwen3-0.6B --dataset math.jsonl --device cuda --dtype bf16 --lr 1e-6
    python llm/train.py --model FOLDER --dataset problems.jsonl --verifier checks.py:is_right --lora-rank 16
    accelerate launch llm/train.py --backend trl --preset paper    # many GPUs, by TRL; see llm/backend_trl.py

Decisions:
1. Advantages come from one call of the method a step; clusters are topics; a prompt's answers share a group.
2. On-policy by default: old log-probabilities are the sampler's, one update a batch; --updates and --mini-batch make
   more of it, and then the ratio clips.
3. No value function, and no KL to the base unless --kl-coef.
4. Token-mean loss. Rows of advantage exactly 0 are not computed, and still counted in the denominator.
5. Every draw is seeded by (seed, purpose, step): a resumed run is the uninterrupted one, bit for bit on a CPU.
6. An answer without its end token scores 0; the end token is trained, nothing after it is.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
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
from llm import checkpoints, learner, noise, outcomes, prompt_filter, resume_point, summary
from llm.clock import Clock
from llm.collect import answers, seed_for
from llm.curriculum import Curriculum
from llm.folders import alone_in, write_json
from llm.logs import RunLog
from llm.problems import record_of, task
from llm.run import Run, curriculum_of, prepare, rates_from, tokenizer_of
from llm.scores import diversity, diversity_names, mean_and_error
from llm.settings import Settings, parse
from llm.sizes import fitted, use_threads
from llm.tasks import Problem

BEST = "best.pt"
SHOWN = 3  # prompts whose first answer is shown every --show-every steps


def train_step(run: Run, curriculum: Curriculum, step: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Sample, verify, estimate, update; (metrics of the step, one row a rollout)."""
    clock, failed = Clock(run.where.device), sum(run.verifier.failures.values())
    batch = answers(run, curriculum, step, clock.note)
    run.state = batch.state
    lr, whole = learner.learning_rate(run, step), len(batch.kept_N) == len(batch.problems)
    trained: dict[str, float | None] = {"grad_norm": 0.0, "clip_fraction": 0.0, "rows_trained": 0.0, "lr": lr}
    if run.settings.noise_parts:
        trained |= {noise.SIGNAL: None, noise.NOISE: None}
    gap: float | None = None
    kl_step: float | None = 0.0
    if len(batch.kept_N):
        rolled = batch.rolled if whole else batch.rolled.rows(batch.kept_N)
        advantage_N = torch.from_numpy(batch.advantage_N).float().to(run.where.device)[batch.kept_N]
        first = batch.first_rows()
        sampled, rolled = rolled, learner.with_old_log_probs(run, rolled, advantage_N, first)
        group_N = torch.from_numpy(batch.group_N).to(run.where.device)[batch.kept_N]
        trained |= learner.update(run, rolled, advantage_N, lr, group_N, len(batch.problems))
        run.engine.sync()
        clock.note("update")
        gap = learner.sampler_gap(run, sampled, rolled, advantage_N, first)
        kl_step = None if step % run.settings.kl_every else learner.kl_of_step(run, rolled, first)
    tokens, info, rolled = int(batch.length_N.sum()), batch.info, batch.rolled
    silent_P = np.bincount(batch.group_N, batch.advantage_N != 0) == 0
    metrics = {
        "step": step + 1,
        "reward": float(batch.reward_N.mean()),
        "entropy": float(rolled.entropy_NT.sum()) / tokens,
        **trained,
        "kl_step": kl_step,
        "sampler_gap": gap,
        "rollouts": len(batch.problems),
        "length": tokens / len(batch.problems),
        "missing_eos": float((~rolled.finished_N).float().mean()),
        "verifier_failures": sum(run.verifier.failures.values()) - failed,
        "shrinkage": None if info is None or info.shrinkage_P is None else float(info.shrinkage_P.mean()),
        "prior_mean": None if info is None or info.prior_mean_P is None else float(info.prior_mean_P.mean()),
        "zero_signal": float(silent_P.mean()),
        "uniform_groups": float(batch.groups.degenerate_P.mean()),
    }
    clock.note("measure")
    metrics |= {"tokens_per_second": tokens / sum(clock.seconds.values()), **clock.seconds}
    rows = [
        {
            "step": step + 1, "prompt_id": p.id, "cluster": p.cell.topic, "reward": float(batch.reward_N[n]),
            "length": int(batch.length_N[n]), "advantage": float(batch.advantage_N[n]), "text": batch.texts[n],
        }
        for n, p in enumerate(batch.problems)
    ]  # fmt: skip
    return {key: _finite(value) for key, value in metrics.items()}, rows


def _finite(value: float | None) -> float | None:
    return value if value is None or math.isfinite(value) else None


def validate(run: Run, problems: Sequence[Problem]) -> list[outcomes.Outcome]:
    """Answers to the validation problems, drawn with the same seed every time."""
    seed, settings = seed_for(0, "validation", 0), run.settings
    return outcomes.sampled_outcomes(
        run.engine, run.verifier, problems, settings.eval_samples, seed, settings.temperature
    )


def measures(run: Run) -> bool:
    """Whether the run's allocation or filter needs pass rates."""
    ordered = run.method.allocation is not None and "pass_rates" in run.method.allocation.needs
    return ordered or bool(run.settings.filter_prompts)


def rates_of(run: Run, problems: Sequence[Problem]) -> list[float] | None:
    """The training problems' pass rates before training, where they are needed: of --ranking or the base."""
    if not measures(run):
        return None
    if run.settings.ranking:
        return rates_from(run.settings, problems)
    seed = seed_for(run.settings.seed, "ranking", 0)
    samples = run.settings.filter_samples if run.settings.filter_prompts else 4
    found = outcomes.sampled_outcomes(run.engine, run.verifier, problems, samples, seed, run.settings.temperature)
    return outcomes.pass_rates(found)


def train(
    settings: Settings, out: Path, cache: Path, resume: bool = False, export: bool = False, keep_best: bool = False
) -> dict[str, Any]:
    """Train, or continue to train, and write metrics, rollouts, checkpoints and summary.json into `out`.

    keep_best: also best.pt, the checkpoint of the highest validation pass@1, the first of equals.
    """
    use_threads(settings.threads)
    prompt_filter.bounds_of(settings)
    path = out / "checkpoint.pt"
    saved = checkpoints.load(path) if resume else None
    if export:
        checkpoints.check_export(out / "model", settings.model)
    found = task(settings)
    if settings.max_prompt_tokens:
        found = prompt_filter.short_enough(settings, found, tokenizer_of(settings, limited=False))
    problems, held = found
    settings, record = fitted(settings, problems), record_of(settings, found)
    if saved is not None:
        kept = {
            name: saved["settings"].get(name) for name in ("micro_rows", "sample_rows") if not getattr(settings, name)
        }
        settings = replace(settings, **kept)  # as they were chosen then
        checkpoints.check_settings(saved["settings"], settings.as_dict())
        if saved["split"] != record.as_dict():
            raise InputError(
                f"--dataset {settings.dataset!r} holds other problems than when the checkpoint was written: restore it"
            )
    run = prepare(settings, cache, problems, held)
    log: RunLog | None = None
    if saved is None:
        first, rates = 0, rates_of(run, problems)
        start_rates = outcomes.pass_rates(validate(run, held))
    else:
        log, first, rates, start_rates = resume_point.restore(run, saved, out, len(problems), len(held), measures(run))
    past = [] if log is None else log.metrics()
    best = max((row["validation_pass1"] or 0.0 for row in past), default=-1.0)
    kept_P = prompt_filter.by_rate(settings, problems, rates or ())
    if settings.filter_prompts:
        report.write_csv(out / prompt_filter.FILE, prompt_filter.rows(problems, rates or (), kept_P))
    kept_rates = None if rates is None else [rates[i] for i in kept_P]
    curriculum = curriculum_of(settings, [problems[i] for i in kept_P], kept_rates, run.method)
    with report.progress(settings.steps, settings.estimator) as bar, run.verifier:
        bar.update(first)
        for step in range(first, settings.steps):
            metrics, rows = train_step(run, curriculum, step)
            if settings.noise_parts:
                past.append(metrics)
                metrics |= noise.logged(past)
            if log is None:  # not before a step has worked: until then the folder may hold another run
                for old in (path, out / BEST):  # they belong to the logs that start anew here
                    old.unlink(missing_ok=True)
                log = RunLog(out)
            metrics |= {"validation_pass1": None, "validation_se": None, "seconds_validate": 0.0}
            metrics |= dict.fromkeys(diversity_names(held))
            if _due(step, settings.eval_every, settings.steps):
                clock = Clock(run.where.device)
                told = validate(run, held)
                mean, error = mean_and_error(outcomes.pass_rates(told))
                clock.note("validate")
                metrics |= {"validation_pass1": mean, "validation_se": error, **diversity(told), **clock.seconds}
            if settings.show_every and _due(step, settings.show_every, settings.steps):
                show(log, curriculum, rows)
            log.add(metrics, [{k: v for k, v in row.items() if k != "text"} for row in rows])
            improved = keep_best and (metrics["validation_pass1"] or -1.0) > best
            best = max(best, metrics["validation_pass1"] or -1.0)
            due = _due(step, settings.checkpoint_every, settings.steps)
            for file in (out / BEST,) * improved + (path,) * due:
                checkpoints.save(file, resume_point.content(run, step + 1, rates, start_rates, log, record))
            bar.set_postfix(reward=f"{metrics['reward']:.3f}", refresh=False)
            bar.update()
        end_rates = outcomes.pass_rates(validate(run, held))
        failures = {kind: count for kind, count in run.verifier.failures.items() if count}
    assert log is not None  # steps are at least 1, and a resumed run has its log
    said = summary.summarise(run.settings.as_dict(), log.metrics(), held, start_rates, end_rates)
    write_json(out / "summary.json", said)
    if failures:
        report.say(f"the verifier failed on answers, each scored 0: {failures} {run.verifier.examples}")
    if export:
        checkpoints.export(out / "model", run.model, run.engine.tokenizer, record)
    return said


def _due(step: int, every: int, steps: int) -> bool:
    return (step + 1) % every == 0 or step + 1 == steps


def show(log: RunLog, curriculum: Curriculum, rows: Sequence[dict[str, Any]]) -> None:
    """The first answers of a few prompts, on the screen in short and in samples.jsonl in full."""
    by_id = {p.id: p for p in curriculum.problems}
    for row in list({row["prompt_id"]: row for row in reversed(rows)}.values())[: -SHOWN - 1 : -1]:
        problem = by_id[row["prompt_id"]]
        log.show({"prompt": problem.prompt, "gold": problem.answer, **row})
        said = "(no end)" if row["text"] is None else row["text"]
        report.say(f"step {row['step']}: {problem.prompt[-60:]!r} -> {said[-60:]!r} (reward {row['reward']:g})")


def main(argv: Sequence[str]) -> None:
    """The command line; see the module's docstring and --help."""
    settings, given = parse(argv, __doc__.splitlines()[0])
    if given.preset == "paper" and given.backend == "own":
        raise InputError(
            "--preset paper needs --backend trl: its 8 billion parameters do not fit the one process of this loop"
        )
    out, cache = report.writable_folder(given.out), report.writable_folder(given.cache)
    with alone_in(out):
        if given.backend == "trl":
            from llm import backend_trl

            backend_trl.train(settings, out, cache, given.resume, given.trl, given.keep_best)
            return
        found = train(settings, out, cache, given.resume, given.export, given.keep_best)
    report.say(summary.text(found))
    if given.keep_best:
        report.say(summary.best_text(found, BEST))
    report.say(
        f"files: {given.out}/{{metrics.csv,metrics.jsonl,rollouts.csv,samples.jsonl,summary.json,checkpoint.pt}}"
    )


if __name__ == "__main__":
    cli.run(main)
