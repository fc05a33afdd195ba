"""Where a run started and where it ended, with standard errors, and where its time went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ebpo_sim import report
from llm import noise
from llm.scores import mean_and_error
from llm.tasks import Problem

EDGE = 20  # steps averaged at either end of the reward curve


def summarise(
    settings: Mapping[str, Any],
    metrics: Sequence[Mapping[str, Any]],
    problems: Sequence[Problem],
    start_rates: Sequence[float],
    end_rates: Sequence[float],
) -> dict[str, Any]:
    """Validation pass@1 before and after by topic, rewards and (with --noise-parts) gradient noise scale of the first
    and last steps, seconds of each part.

    Errors of pass@1 are over the prompts of one run, paired for the change; they say nothing of other seeds. Those
    of rewards are over the averaged steps.
    """
    topics: dict[str, list[int]] = {"all": list(range(len(problems)))}
    for i, problem in enumerate(problems):
        topics.setdefault(problem.cell.topic, []).append(i)
    validation = {}
    for topic, members in topics.items():
        start, end = [start_rates[i] for i in members], [end_rates[i] for i in members]
        change = [b - a for a, b in zip(start, end, strict=True)]
        validation[topic] = {
            "prompts": len(members),
            "start": mean_and_error(start),
            "end": mean_and_error(end),
            "change": mean_and_error(change),
        }
    edge = min(EDGE, max(1, len(metrics) // 2))
    rewards = [row["reward"] for row in metrics]
    found = [row for row in metrics if noise.measured([row])]
    ends = {"first": found[:edge], "last": found[-edge:]}
    scales = {end: list(noise.scale(noise.measured(part))) for end, part in ends.items()}
    parts = [key for key in metrics[0] if key.startswith("seconds_")]
    return {
        "settings": dict(settings),
        "validation_pass1": validation,
        "reward": {"steps": edge, "first": mean_and_error(rewards[:edge]), "last": mean_and_error(rewards[-edge:])},
        **({"noise_scale": {"steps": edge, **scales}} if found else {}),
        "seconds": {key.removeprefix("seconds_"): sum(row[key] for row in metrics) for key in parts},
        "last": dict(metrics[-1]),
        "best": best(metrics),
    }


def best(metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The step of the highest validation pass@1, the first of equals, and how many validations there were."""
    validated = [row for row in metrics if row["validation_pass1"] is not None]
    highest = max(validated, key=lambda row: row["validation_pass1"])
    return {
        "step": highest["step"],
        "validation_pass1": highest["validation_pass1"],
        "validation_se": highest["validation_se"],
        "validations": len(validated),
    }


def best_text(summary: Mapping[str, Any], file: str) -> str:
    """What the file of the best policy holds."""
    found = summary["best"]
    value = report.with_error(found["validation_pass1"], found["validation_se"])
    return (
        f"{file}: step {found['step']}, validation pass@1 {value}, the highest of {found['validations']} validations "
        "and so too high on average: evaluate it on --split heldout"
    )


def text(summary: Mapping[str, Any]) -> str:
    """The summary for a reader."""
    rows = [
        [topic, str(row["prompts"]), *(report.with_error(*row[key]) for key in ("start", "end", "change"))]
        for topic, row in summary["validation_pass1"].items()
    ]
    reward, seconds, scale = summary["reward"], summary["seconds"], summary.get("noise_scale")
    noises = []
    if scale is not None:
        start, end = (f"{nu:.0f} ± {se:.0f}" if nu else "not resolved" for nu, se in (scale["first"], scale["last"]))
        noises = [f"gradient noise scale, {scale['steps']} steps at either end: {start} -> {end} rollouts"]
    total = sum(seconds.values())
    return "\n".join(
        [
            report.text_table(["topic", "prompts", "base", "trained", "change"], rows),
            "validation pass@1 ± one standard error over prompts (paired for the change; one run, one seed)",
            f"reward, {reward['steps']} steps at either end: {report.with_error(*reward['first'])} -> "
            f"{report.with_error(*reward['last'])} ± one standard error over steps",
            *noises,
            f"seconds: {total:.1f} in all; " + ", ".join(f"{part} {spent:.1f}" for part, spent in seconds.items()),
        ]
    )
