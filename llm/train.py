"""RLVR of a tiny causal language model, from a supervised warm start, with any estimator of `ebpo_sim`.

    python llm/train.py                                    # two cores, minutes, nothing downloaded
    python llm/train.py --estimator grpo --out results/llm/grpo
    python llm/train.py --estimator ebpo_debiased:memory=0.95 --order topic --group-size 2
    python llm/train.py --resume                           # after a kill, with the options of the killed run

Decisions:
1. Advantages come from one call of the estimator object a step; clusters are topics; a prompt's answers share a group.
2. On-policy by default: old log-probabilities are the sampler's, one update a batch; --updates makes more passes.
3. No value function, and no KL to the base unless --kl-coef.
4. Token-mean loss. Rows of advantage exactly 0 are not computed, and still counted in the denominator.
5. Every draw is seeded by (seed, purpose, step): a resumed run is the uninterrupted one, bit for bit on a CPU.
6. An answer without its end token scores 0; the end token is trained, nothing after it is.
"""

from __future__ import annotations

import copy
import hashlib
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if not __package__:  # run as a script: the repository instead of this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ebpo_sim import cli, group_rewards, make, report
from ebpo_sim.estimators import Estimator, dump_state, load_state
from llm import checkpoints, evaluate, policy, rollouts, summary
from llm.curriculum import Curriculum, rank
from llm.logs import RunLog
from llm.objectives import Objective, k3
from llm.settings import Settings, parse
from llm.tasks import MAX_ANSWER, CharTokenizer, Problem, cells, pool

MAX_NEW = MAX_ANSWER + 1  # the longest gold answer and its end token
TOKENIZER = CharTokenizer()


@dataclass
class Run:
    """What changes while training, and what every step needs."""

    settings: Settings
    model: PreTrainedModel
    reference: PreTrainedModel | None
    optimizer: torch.optim.Optimizer
    estimator: Estimator
    state: Any
    objective: Objective


class Clock:
    """Seconds of each part since the previous one was noted."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def note(self, part: str) -> None:
        now = time.perf_counter()
        self.seconds[f"seconds_{part}"] = now - self._last
        self._last = now


def seed_for(seed: int, purpose: str, step: int) -> int:
    """A seed for one purpose at one step."""
    return int.from_bytes(hashlib.sha256(f"{seed} {purpose} {step}".encode()).digest()[:8]) >> 1


def learning_rate(settings: Settings, step: int) -> float:
    """Linear warm-up, then linear decay to 0 at the end; steps count from 0."""
    return settings.lr * min(1.0, (step + 1) / max(1, settings.warmup)) * (1 - step / settings.steps)


def train_step(run: Run, problems: list[Problem], step: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Sample, verify, estimate, update; (metrics of the step, one row a rollout)."""
    settings, clock = run.settings, Clock()
    generator = torch.Generator().manual_seed(seed_for(settings.seed, "sample", step))
    prompt_PL, mask_PL = TOKENIZER.pad_left([p.prompt for p in problems])
    rolled = rollouts.sample(run.model, prompt_PL, mask_PL, settings.group_size, MAX_NEW, TOKENIZER, generator)
    clock.note("sample")
    reward_PG = rollouts.rewards(rollouts.answers(rolled, TOKENIZER), problems, settings.group_size)
    length_PG = rolled.mask_NT.sum(dim=1).view_as(reward_PG)
    clock.note("verify")
    groups = group_rewards(
        reward_PG,
        lengths=length_PG,
        clusters=[p.cell.topic for p in problems],
        prompt_ids=[p.prompt for p in problems],
    )
    advantage_PG, info, run.state = run.estimator.step(run.state, groups)
    clock.note("estimator")
    trained = update(run, rolled, advantage_PG.flatten().float(), learning_rate(settings, step))
    clock.note("update")
    tokens = int(length_PG.sum())
    metrics = {
        "step": step + 1,
        "reward": float(reward_PG.mean()),
        "entropy": float(rolled.entropy_NT.sum()) / tokens,
        **trained,
        "kl_step": kl_of_step(run, rolled),
        "length": tokens / reward_PG.numel(),
        "missing_eos": float((~rolled.finished_N).float().mean()),
        "shrinkage": None if info.shrinkage_P is None else float(info.shrinkage_P.mean()),
        "prior_mean": None if info.prior_mean_P is None else float(info.prior_mean_P.mean()),
        "zero_signal": float((advantage_PG == 0).all(dim=1).float().mean()),
        "uniform_groups": float(info.degenerate_P.mean()),
    }
    clock.note("measure")
    metrics |= {"tokens_per_second": tokens / sum(clock.seconds.values()), **clock.seconds}
    rows = [
        {"step": step + 1, "prompt_id": p.prompt, "cluster": p.cell.topic, "reward": r, "length": n, "advantage": a}
        for p, rs, ns, advantages in zip(
            problems, reward_PG.tolist(), length_PG.tolist(), advantage_PG.tolist(), strict=True
        )
        for r, n, a in zip(rs, ns, advantages, strict=True)
    ]
    return {key: _finite(value) for key, value in metrics.items()}, rows


def _finite(value: float | None) -> float | None:
    return value if value is None or math.isfinite(value) else None


def update(run: Run, rolled: rollouts.Rollouts, advantage_N: Tensor, lr: float) -> dict[str, float]:
    """--updates AdamW steps on one batch; rows without a gradient are left out. What to log of them."""
    objective, settings = run.objective, run.settings
    needed = objective.needed_rows(advantage_N)
    part = rolled.rows(needed)
    weight_NT = objective.weights(rolled.mask_NT)[needed, : part.tokens_NT.shape[1]]
    where = part.prompt_NL, part.prompt_mask_NL, part.tokens_NT, part.mask_NT
    reference_NT = None
    if run.reference is not None and len(needed):
        with torch.no_grad():
            reference_NT = rollouts.log_probs(run.reference, *where)
    for group in run.optimizer.param_groups:
        group["lr"] = lr
    norms, clipped = [], 0
    for _ in range(settings.updates):
        run.optimizer.zero_grad()
        if len(needed):
            log_prob_NT = rollouts.log_probs(run.model, *where)
            loss, stopped = objective.loss(log_prob_NT, part.log_prob_NT, advantage_N[needed], weight_NT, reference_NT)
            loss.backward()
            clipped += stopped
        for parameter in run.model.parameters():  # a batch without signal has a zero gradient, and momentum moves on
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        norms.append(float(torch.nn.utils.clip_grad_norm_(run.model.parameters(), settings.grad_clip)))
        run.optimizer.step()
    return {
        "grad_norm": sum(norms) / len(norms),
        "clip_fraction": clipped / (settings.updates * int(rolled.mask_NT.sum())),
        "rows_trained": len(needed) / len(advantage_N),
        "lr": lr,
    }


@torch.no_grad()
def kl_of_step(run: Run, rolled: rollouts.Rollouts) -> float:
    """KL(before the step, after it) a token, nats, by k3 on one answer a prompt."""
    some = rolled.rows(torch.arange(0, len(rolled.tokens_NT), run.settings.group_size))
    new_NT = rollouts.log_probs(run.model, some.prompt_NL, some.prompt_mask_NL, some.tokens_NT, some.mask_NT)
    return float((k3(new_NT - some.log_prob_NT) * some.mask_NT).sum() / some.mask_NT.sum())


def prepare(settings: Settings, cache: Path) -> Run:
    """A run before its first step: everything refused here is refused before any work."""
    chosen = cells(settings.topics, settings.max_level)
    estimator = make(settings.estimator)
    objective = Objective(
        settings.clip_low, settings.clip_high, settings.aggregation, MAX_NEW, settings.kl_coef  # type: ignore[arg-type]
    )  # fmt: skip
    shape = policy.Shape(settings.arch, settings.hidden, settings.layers, settings.heads, settings.kv_heads)
    policy.build(shape, 0)
    curriculum_of(settings, (), check_only=True)
    plan = policy.WarmStart(settings.sft_steps, settings.sft_batch, seed=settings.sft_seed)
    started = time.perf_counter()
    model, cached = policy.warm_start(shape, plan, chosen, cache)
    report.say(f"warm start: {'from the cache' if cached else f'{time.perf_counter() - started:.0f} s'}")
    reference = copy.deepcopy(model).requires_grad_(False) if settings.kl_coef > 0 else None
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr, betas=(0.9, 0.99), weight_decay=0.0)
    return Run(settings, model, reference, optimizer, estimator, estimator.init(), objective)


def curriculum_of(settings: Settings, ranking: Sequence[int], check_only: bool = False) -> Curriculum:
    """The order of the training problems; `check_only` refuses impossible batches without a ranking."""
    problems = pool("train", cells(settings.topics, settings.max_level), settings.per_cell, 0)
    ranking = range(len(problems)) if check_only else ranking
    order: Any = settings.order
    return Curriculum(order, problems, settings.prompts, settings.steps, settings.seed, tuple(ranking))


def validate(run: Run, problems: Sequence[Problem]) -> list[evaluate.Outcome]:
    """Answers to the validation problems, drawn with the same seed every time."""
    return evaluate.sampled_outcomes(run.model, problems, run.settings.eval_samples, seed_for(0, "validation", 0))


def train(settings: Settings, out: Path, cache: Path, resume: bool = False) -> dict[str, Any]:
    """Train, or continue to train, and write metrics, rollouts, checkpoints and summary.json into `out`."""
    torch.set_num_threads(settings.threads)
    path = out / "checkpoint.pt"
    saved = checkpoints.load(path) if resume else None
    if saved is not None:
        checkpoints.check_settings(saved["settings"], settings.as_dict())
    run = prepare(settings, cache)
    held = pool("validation", cells(settings.topics, settings.max_level), settings.eval_per_cell, 0)
    if saved is None:
        path.unlink(missing_ok=True)  # it belongs to the logs that start anew here
        log, first, ranking = RunLog(out), 0, _ranking(run)
        start_rates = evaluate.pass_rates(validate(run, held))
    else:
        run.model.load_state_dict(saved["model"])
        if run.reference is not None:
            run.reference.load_state_dict(saved["reference"])
        run.optimizer.load_state_dict(saved["optimizer"])
        run.state = load_state(run.estimator, saved["estimator"])
        log, first, ranking, start_rates = (
            RunLog(out, saved["log_bytes"]),
            saved["step"],
            saved["ranking"],
            saved["start"],
        )
    curriculum = curriculum_of(settings, ranking)
    with report.progress(settings.steps, settings.estimator) as bar:
        bar.update(first)
        for step in range(first, settings.steps):
            metrics, rows = train_step(run, curriculum.batch(step), step)
            metrics |= {"validation_pass1": None, "validation_se": None, "seconds_validate": 0.0}
            if (step + 1) % settings.eval_every == 0 or step + 1 == settings.steps:
                clock = Clock()
                mean, error = evaluate.mean_and_error(evaluate.pass_rates(validate(run, held)))
                clock.note("validate")
                metrics |= {"validation_pass1": mean, "validation_se": _finite(error), **clock.seconds}
            log.add(metrics, rows)
            if (step + 1) % settings.checkpoint_every == 0 or step + 1 == settings.steps:
                checkpoints.save(path, _content(run, step + 1, ranking, start_rates, log))
            bar.set_postfix(reward=f"{metrics['reward']:.3f}", refresh=False)
            bar.update()
    end_rates = evaluate.pass_rates(validate(run, held))
    found = summary.summarise(settings.as_dict(), log.metrics(), held, start_rates, end_rates)
    report.write_bytes(out / "summary.json", (report.to_json(found) + "\n").encode())
    return found


def _ranking(run: Run) -> list[int]:
    """The training pool from easiest to hardest by the base's pass rates, for the order that needs it."""
    if run.settings.order != "easy_to_hard":
        return []
    problems = pool("train", cells(run.settings.topics, run.settings.max_level), run.settings.per_cell, 0)
    outcomes = evaluate.sampled_outcomes(run.model, problems, 4, seed_for(run.settings.seed, "ranking", 0))
    return list(rank(evaluate.pass_rates(outcomes)))


def _content(run: Run, step: int, ranking: list[int], start: list[float], log: RunLog) -> dict[str, Any]:
    return {
        "step": step,
        "settings": run.settings.as_dict(),
        "model": run.model.state_dict(),
        "reference": None if run.reference is None else run.reference.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "estimator": dump_state(run.estimator, run.state),
        "ranking": ranking,
        "start": start,
        "log_bytes": log.lengths(),
    }


def main(argv: Sequence[str]) -> None:
    """The command line; see the module's docstring and --help."""
    settings, given = parse(argv, __doc__.splitlines()[0])
    found = train(settings, report.writable_folder(given.out), report.writable_folder(given.cache), given.resume)
    report.say(summary.text(found))
    report.say(f"files: {given.out}/{{metrics.csv,metrics.jsonl,rollouts.csv,summary.json,checkpoint.pt}}")


if __name__ == "__main__":
    cli.run(main)
