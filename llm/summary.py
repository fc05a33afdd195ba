"""Where a run started and where it ended, with standard errors, and where its time went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ebpo_sim import report
from llm.evaluate import mean_and_error
from llm.tasks import Problem

EDGE = 20  # steps averaged at either end of the reward curve


def summarise(
    settings: Mapping[str, Any],
    metrics: Sequence[Mapping[str, Any]],
    problems: Sequence[Problem],
    start_rates: Sequence[float],
    end_rates: Sequence[float],
) -> dict[str, Any]:
    """Validation pass@1 before and after by topic, rewards of the first and last steps, seconds of each part.

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
            "start": _pair(start),
            "end": _pair(end),
            "change": _pair(change),
        }
    edge = min(EDGE, max(1, len(metrics) // 2))
    rewards = [row["reward"] for row in metrics]
    parts = [key for key in metrics[0] if key.startswith("seconds_")]
    return {
        "settings": dict(settings),
        "validation_pass1": validation,
        "reward": {"steps": edge, "first": _pair(rewards[:edge]), "last": _pair(rewards[-edge:])},
        "seconds": {key.removeprefix("seconds_"): sum(row[key] for row in metrics) for key in parts},
        "last": dict(metrics[-1]),
    }


def _pair(values: Sequence[float]) -> list[float | None]:
    mean, error = mean_and_error(values)
    return [mean, None if error != error else error]


def text(summary: Mapping[str, Any]) -> str:
    """The summary for a reader."""
    rows = [
        [topic, str(row["prompts"]), *(report.with_error(*row[key]) for key in ("start", "end", "change"))]
        for topic, row in summary["validation_pass1"].items()
    ]
    reward, seconds = summary["reward"], summary["seconds"]
    total = sum(seconds.values())
    return "\n".join(
        [
            report.text_table(["topic", "prompts", "base", "trained", "change"], rows),
            "validation pass@1 ± one standard error over prompts (paired for the change; one run, one seed)",
            f"reward, {reward['steps']} steps at either end: {report.with_error(*reward['first'])} -> "
            f"{report.with_error(*reward['last'])} ± one standard error over steps",
            f"seconds: {total:.1f} in all; " + ", ".join(f"{part} {spent:.1f}" for part, spent in seconds.items()),
        ]
    )
