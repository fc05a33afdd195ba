"""Which problems a run leaves out: too long prompts, and those that the start policy always or never solves."""

from __future__ import annotations

from collections.abc import Sequence

from ebpo_sim import report
from ebpo_sim.errors import InputError
from llm.problems import Task
from llm.settings import Settings
from llm.tasks import Problem
from llm.tasks.tokenizer import Tokenizer

FILE = "filter.csv"  # one row a training problem: its pass rate before training, and whether it is trained on


def bounds_of(settings: Settings) -> tuple[float, float] | None:
    """The pass rates that --filter-prompts keeps, both included; None without it. Raises InputError for no interval."""
    if not settings.filter_prompts:
        return None
    try:
        low, high = map(float, settings.filter_prompts.split(","))
    except ValueError:
        low, high = 1.0, 0.0
    if not 0 <= low <= high <= 1:
        raise InputError(
            f"--filter-prompts must be two pass rates from 0 to 1, as in 0.1,0.9, got {settings.filter_prompts!r}"
        )
    return low, high


def short_enough(settings: Settings, found: Task, tokenizer: Tokenizer) -> Task:
    """The problems whose prompts have at most --max-prompt-tokens tokens; how many are left out is said.

    Raises InputError where none is left.
    """
    most = settings.max_prompt_tokens
    if not most:
        return found
    kept = Task(*([p for p in some if len(tokenizer.prompt(p)) <= most] for some in found))
    for name, before, after in zip(("training", "validation"), found, kept, strict=True):
        report.say(f"--max-prompt-tokens {most}: left out {len(before) - len(after)} of {len(before)} {name} problems")
        if not after:
            raise InputError(f"--max-prompt-tokens {most} leaves no {name} problem of {len(before)}: raise it")
    return kept


def by_rate(settings: Settings, problems: Sequence[Problem], rates: Sequence[float]) -> list[int]:
    """The numbers of the problems that --filter-prompts keeps, by their pass rates; how many it drops is said.

    Raises InputError where fewer than --prompts are left.
    """
    bounds = bounds_of(settings)
    if bounds is None:
        return list(range(len(problems)))
    low, high = bounds
    kept = [i for i, rate in enumerate(rates) if low <= rate <= high]
    below, above = (sum(test) for test in ((r < low for r in rates), (r > high for r in rates)))
    by = "as --ranking has them"
    if not settings.ranking:
        by = f"by {settings.filter_samples} answers of the start policy each"
    report.say(
        f"--filter-prompts {settings.filter_prompts}: {len(kept)} of {len(problems)} problems are trained on, {below} "
        f"had lower pass rates and {above} higher ones, {by}"
    )
    if len(kept) < max(1, settings.prompts):
        raise InputError(
            f"--filter-prompts {settings.filter_prompts} leaves {len(kept)} problems, fewer than the "
            f"{settings.prompts} of a step: widen it, lower --prompts or name a larger data set"
        )
    return kept


def rows(problems: Sequence[Problem], rates: Sequence[float], kept: Sequence[int]) -> list[dict[str, object]]:
    """The rows of `FILE`."""
    chosen = set(kept)
    return [
        {"prompt_id": p.id, "cluster": p.cell.topic, "level": p.cell.level, "pass_rate": rate, "kept": i in chosen}
        for i, (p, rate) in enumerate(zip(problems, rates, strict=True))
    ]
