"""One GPU, one run of minutes: correctness against the CPU, speed, memory, and a short GRPO/EBPO comparison.

    python llm/gpu_check.py                      # writes results/llm/gpu_check.json and prints it in short
    python llm/gpu_check.py --device cpu --small # the same program where there is no GPU, to try it

1. correctness: the same weights and answers on both devices: log-probabilities, gradient, advantages; and how far
   bfloat16 is from float32, and the sampler from the training forward.
2. speed: a from-scratch model of more than 100M parameters on the generated task: tokens a second of sampling and of
   training, the estimator's share of a step, peak memory, with and without the exact skipping of silent rows.
3. comparison: estimators from the same warm start on paired seeds, per step and per second.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

if not __package__:  # run as a script: the repository instead of this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

if __name__ == "__main__":
    from llm import early

    early.guard()

import torch
import transformers

from ebpo_sim import cli, group_rewards, make, report
from ebpo_sim.compare.differences import mean_of, paired
from ebpo_sim.errors import InputError
from ebpo_sim.labels import REFERENCE
from llm import outcomes, policy, rollouts, train
from llm.engines import HFEngine, Precision, answer, precision
from llm.folders import write_json
from llm.objectives import Loss
from llm.problems import task
from llm.run import Run, curriculum_of, prepare
from llm.scores import mean_and_error
from llm.settings import Settings
from llm.tasks import CELLS, CharTokenizer, make_verifier, pool

LARGE = Settings(
    hidden=1024, layers=16, heads=16, kv_heads=8, sft_steps=100, sft_batch=512, sft_lr=6e-4, prompts=2048, group_size=8,
    micro_rows=2048,
    lr=3e-5, dtype="bf16", steps=40, eval_per_cell=16, per_cell=400, warmup=5,
)  # fmt: skip
SMALL = replace(
    LARGE, hidden=32, layers=1, heads=2, kv_heads=1, sft_steps=30, sft_batch=64, prompts=32, group_size=4, steps=4,
    lr=3e-4, eval_per_cell=2, warmup=1,
)  # fmt: skip
ARMS = ("grpo", "ebpo", "ebpo:shrinkage=0", "ebpo:shrinkage=1")
TIMED_STEPS = 6  # of which the first two are left out: they compile and allocate
WARM_UP = 2


def correctness(device: str) -> dict[str, Any]:
    """Differences between the CPU in float32 and the device, on a small model with grouped-query attention."""
    cpu, gpu = precision("cpu", "fp32"), precision(device, "fp32")
    model: Any = policy.build(Settings(hidden=128, layers=4, heads=4, kv_heads=2), 1)
    with torch.no_grad():  # a bias to the end token, so that rows finish at many lengths
        model.get_input_embeddings().weight[CharTokenizer.eos_ids[0]] *= 4
    problems, tokenizer = pool("train", CELLS, 2, 0), CharTokenizer()
    answered = answer(HFEngine(model, tokenizer, 9, cpu), make_verifier("exact"), problems, 4, 0)
    reward_PG = torch.rand((len(problems), 4), generator=torch.Generator().manual_seed(0)).round().double()
    found: dict[str, Any] = {}
    said = {
        where.device.type + "/" + where.dtype: _loss_and_gradient(model, answered.rolled, reward_PG, where)
        for where in (cpu, gpu, Precision(gpu.device, "bf16"))
    }
    log_prob, gradient, advantage = said["cpu/fp32"]
    for dtype in ("fp32", "bf16"):
        other = said[f"{gpu.device.type}/{dtype}"]
        difference = ((other[0] - log_prob) * answered.rolled.mask_NT).abs()
        found[f"{dtype}_log_prob_max_difference"] = float(difference.max())
        found[f"{dtype}_gradient_relative_error"] = float((other[1] - gradient).norm() / gradient.norm())
    found["advantages_identical"] = bool(torch.equal(advantage, said[f"{gpu.device.type}/fp32"][2]))
    for dtype in ("fp32", "bf16"):
        where = Precision(gpu.device, dtype)
        rolled = HFEngine(model.to(gpu.device), tokenizer, 9, where).sample(problems, 4, 1)
        with torch.no_grad(), where.context():
            again = rollouts.log_probs(model, *rolled[:4])
        gap = ((again - rolled.log_prob_NT) * rolled.mask_NT).abs()
        found[f"{dtype}_sampler_trainer_max_gap"] = float(gap.max())
    found["passed"] = bool(
        found["fp32_log_prob_max_difference"] < 1e-4
        and found["fp32_gradient_relative_error"] < 1e-3
        and found["fp32_sampler_trainer_max_gap"] < 1e-4
        and found["bf16_gradient_relative_error"] < 0.1
        and found["advantages_identical"]
    )
    return found


def _loss_and_gradient(
    model: Any, rolled: rollouts.Rollouts, reward_PG: torch.Tensor, where: Precision
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(log-probabilities, gradient, advantages) of one EBPO batch on a device, brought to the CPU."""
    model.to(where.device).zero_grad()
    rolled = rollouts.Rollouts(*(part.to(where.device) for part in rolled))
    estimator, objective = make("ebpo"), Loss()
    advantage_PG, _, _ = estimator.step(estimator.init(), group_rewards(reward_PG.to(where.device)))
    with where.context():
        log_prob_NT = rollouts.log_probs(model, *rolled[:4])
    loss, _ = objective.loss(
        log_prob_NT, rolled.log_prob_NT, advantage_PG.flatten().float(), objective.weights(rolled.mask_NT)
    )
    loss.backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters()]).float().cpu()
    return log_prob_NT.detach().float().cpu(), gradient, advantage_PG.cpu()


def speed(settings: Settings, cache: Path) -> dict[str, Any]:
    """Medians over steps of the warm-started model: seconds of each part, tokens a second, peak memory."""
    found: dict[str, Any] = {}
    for name, dtype in (("grpo", "bf16"), ("ebpo", "bf16"), ("ebpo", "fp32")):
        run = _run(replace(settings, estimator=name), cache)
        engine: Any = run.engine
        run.where = engine.where = Precision(run.where.device, dtype)
        if run.where.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(run.where.device)
        steps = [metrics for metrics, _ in _steps(run, TIMED_STEPS)][WARM_UP:]
        seconds = {k: statistics.median(m[k] for m in steps) for k in steps[0] if k.startswith("seconds_")}
        tokens = statistics.median(m["length"] for m in steps) * settings.prompts * settings.group_size
        whole = sum(seconds.values())
        found[f"{name}/{dtype}"] = {
            **seconds,
            "answer_tokens_a_step": tokens,
            "sampled_tokens_per_second": tokens / seconds["seconds_sample"],
            "trained_tokens_per_second": tokens * statistics.median(m["rows_trained"] for m in steps)
            / seconds["seconds_update"],
            "answers_per_second": settings.prompts * settings.group_size / whole,
            "rows_trained": statistics.median(m["rows_trained"] for m in steps),
            "estimator_share_of_a_step": seconds["seconds_estimator"] / whole,
            "sampler_gap": steps[-1]["sampler_gap"],
            "peak_memory_bytes": torch.cuda.max_memory_allocated() if run.where.device.type == "cuda" else None,
        }  # fmt: skip
        del run
    return found


def comparison(settings: Settings, cache: Path, seeds: int, limit: float) -> dict[str, Any]:
    """Validation pass@1 before and after a few steps, per arm and seed, and the median seconds of a training step.

    Seed by seed, all arms of one before the next; no new seed once `limit` seconds are gone.
    """
    started = time.perf_counter()
    rows: list[dict[str, Any]] = []
    for seed in range(seeds):
        if seed and (time.perf_counter() - started) * (seed + 1) / seed > limit:
            break
        for name in ARMS:
            run = _run(replace(settings, estimator=name, seed=seed), cache)
            _, held = task(settings)
            before = _pass_rate(run, held)
            steps = [metrics for metrics, _ in _steps(run, settings.steps)]
            each = [sum(v for k, v in m.items() if k.startswith("seconds_")) for m in steps[WARM_UP:]]
            rows.append(
                {
                    "estimator": name, "seed": seed, "base": before, "trained": _pass_rate(run, held),
                    "seconds_a_step": statistics.median(each), "entropy": steps[-1]["entropy"],
                    "rows_trained": statistics.mean(m["rows_trained"] for m in steps),
                    "reward_last": statistics.mean(m["reward"] for m in steps[-10:]),
                }
            )  # fmt: skip
            del run
    measured = {
        key: {name: {r["seed"]: r[key] for r in rows if r["estimator"] == name} for name in ARMS}
        for key in ("trained", "seconds_a_step")
    }
    summary = {}
    for name in ARMS:
        gain = paired(measured["trained"][name], measured["trained"][REFERENCE])
        found = {key: mean_of(by_arm[name].values()) for key, by_arm in measured.items()} | {"trained_minus_grpo": gain}
        summary[name] = {key: mean and mean[:2] for key, mean in found.items()}  # with its standard error
    return {"seeds": len(rows) // len(ARMS), "steps": settings.steps, "arms": summary, "runs": rows}


def _run(settings: Settings, cache: Path) -> Run:
    problems, held = task(settings)
    return prepare(settings, cache, problems, held)


def _steps(run: Run, count: int) -> list[tuple[dict[str, Any], Any]]:
    curriculum = curriculum_of(run.settings, task(run.settings).train)
    return [train.train_step(run, curriculum, step) for step in range(count)]


def _pass_rate(run: Run, held: Sequence[Any]) -> float:
    return mean_and_error(outcomes.pass_rates(train.validate(run, held)))[0]


def machine(device: str) -> dict[str, Any]:
    """What the numbers were measured on."""
    name = torch.cuda.get_device_name(torch.device(device)) if device.startswith("cuda") else "CPU"
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "device": name,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "cpu_cores": os.cpu_count(),
    }


def main(argv: Sequence[str]) -> None:
    """The command line; see the module's docstring."""
    parser = cli.Parser(prog="python llm/gpu_check.py", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--device", default="cuda", help="cuda, cuda:N, or cpu to try the program (default cuda)")
    add("--small", action="store_true", help="a tiny model and few steps, to try the program")
    add("--seeds", type=int, default=4, help="paired seeds of the comparison, as many as fit --minutes (default 4)")
    add("--minutes", type=float, default=7.0, help="aim to end within this time (default 7)")
    add("--out", default="results/llm/gpu_check.json", help="file of the results (default %(default)s)")
    given = parser.parse_args(argv)
    if Path(given.out).is_dir():
        raise InputError(f"--out must be a file, got the folder {given.out!r}: name one in it")
    if given.seeds < 1 or not given.minutes > 0:
        raise InputError(f"--seeds must be at least 1 and --minutes positive, got {given.seeds}, {given.minutes}")
    started = time.perf_counter()
    torch.set_num_threads(1)
    precision(given.device, "fp32")
    out = report.writable_folder(str(Path(given.out).parent)) / Path(given.out).name
    settings = replace(SMALL if given.small else LARGE, device=given.device)
    command = " ".join(["python llm/gpu_check.py", *argv])
    found: dict[str, Any] = {"machine": machine(given.device), "command": command, "settings": settings.as_dict()}
    with report.locked(out.parent), tempfile.TemporaryDirectory() as cache:
        parts: dict[str, Callable[[], Any]] = {
            "correctness": lambda: correctness(given.device),
            "model": lambda: _warm(settings, Path(cache)),
            "speed": lambda: speed(settings, Path(cache)),
            "comparison": lambda: comparison(
                replace(settings, prompts=min(64, settings.prompts)),
                Path(cache),
                given.seeds,
                given.minutes * 60 - (time.perf_counter() - started),
            ),
        }
        for name, part in parts.items():
            began = time.perf_counter()
            found[name] = part()
            found[name]["wall_seconds"] = time.perf_counter() - began
            report.say(f"{name}: {json.dumps(found[name])[:600]}")
            write_json(out, found)
        found["wall_seconds"] = time.perf_counter() - started
        write_json(out, found)
    report.say(f"{found['wall_seconds']:.0f} s; file: {given.out}")


def _warm(settings: Settings, cache: Path) -> dict[str, Any]:
    run = _run(settings, cache)
    parameters = sum(p.numel() for p in run.model.parameters())
    _, held = task(settings)
    return {"parameters": parameters, "base_pass1": _pass_rate(run, held)}


if __name__ == "__main__":
    cli.run(main)
