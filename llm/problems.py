"""From settings to problems: those to train on, those to validate with, and the record of what was seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ebpo_sim import report
from ebpo_sim.errors import InputError
from llm import trained_on
from llm.settings import Settings
from llm.tasks import Cell, Problem, cells, key_of, load_problems, pool, split_of
from llm.tasks.word_problems import INSTRUCTION
from llm.trained_on import TrainedOn

GENERATED = "generated"


class Task(NamedTuple):
    """Problems to train on and to validate with."""

    train: list[Problem]
    validation: list[Problem]


def task(settings: Settings) -> Task:
    """The problems of a run. Raises InputError for an unknown topic, a missing column, and an empty split."""
    before = trained_on.read(settings.model) or TrainedOn()
    if settings.dataset == GENERATED:
        chosen = cells(settings.topics, settings.max_level)
        train = [p for c, n in by_cell(settings, chosen, settings.per_cell) for p in pool("train", [c], n, 0)]
        counts = by_cell(settings, chosen, settings.eval_per_cell)
        return Task(train, unseen([p for c, n in counts for p in pool("validation", [c], n, 0)], before, ()))
    instruction, ends = instruction_of(settings), endings(settings)
    problems = load_problems(settings.dataset, settings.dataset_split, instruction=instruction)
    if settings.validation:
        kept, held = problems, load_problems(settings.validation, settings.validation_split, instruction=instruction)
        shared = keys(kept, ends) & keys(held, ends)
        if shared:
            raise InputError(
                f"--validation {settings.validation!r} shares {len(shared)} prompts with --dataset: take them out of "
                "one, or leave --validation empty to hold problems out"
            )
    else:
        kept = [p for p in problems if split_of(p.prompt, ends) == "train"]
        held = [p for p in problems if split_of(p.prompt, ends) == "validation"]
    held = unseen(held, before, ends)
    if not kept or not held:
        raise InputError(
            f"--dataset {settings.dataset!r} leaves {len(kept)} problems to train on and {len(held)} to validate "
            "with: name a larger one, or another with --validation"
        )
    return Task(kept, held[: settings.eval_limit or None])


def by_cell(settings: Settings, chosen: Sequence[Cell], each: int) -> list[tuple[Cell, int]]:
    """How many problems each cell gives: `each`, or of so many a cell the level's share of --level-shares.

    Raises InputError for shares that are none, and for levels that are not there.
    """
    if not settings.level_shares:
        return [(cell, each) for cell in chosen]
    levels = {cell.level for cell in chosen}
    try:
        parts = (part.partition("=") for part in settings.level_shares.split(","))
        shares = {int(level): float(share) for level, _, share in parts}
    except ValueError:
        shares = {}
    whole = sum(shares.values())
    if not shares or not set(shares) <= levels or not (min(shares.values()) >= 0 and 0 < whole < float("inf")):
        raise InputError(
            f"--level-shares must be LEVEL=SHARE,... with levels of {sorted(levels)} and shares of at least 0, got "
            f"{settings.level_shares!r}"
        )
    counts = [(cell, round(each * len(levels) * shares.get(cell.level, 0.0) / whole)) for cell in chosen]
    return [(cell, count) for cell, count in counts if count]


def record_of(settings: Settings, problems: Task) -> TrainedOn:
    """What the policy of a run will have seen, its base's training included."""
    before = trained_on.read(settings.model) or TrainedOn()
    if settings.dataset == GENERATED:
        return before | TrainedOn(generated=True)
    ends = endings(settings)
    # a data set that was named for validation is a test set of the user's: it stays open to evaluations
    validated = frozenset[str]() if settings.validation else keys(problems.validation, ends)
    return before | TrainedOn(keys(problems.train, ends), validated)


def unseen(problems: list[Problem], record: TrainedOn, ends: Sequence[str]) -> list[Problem]:
    """Those that the base was not trained on; how many others there were is said."""
    kept = [p for p in problems if record.split_of(p.prompt, ends) != "train"]
    if len(kept) < len(problems):
        report.say(f"validation: left out {len(problems) - len(kept)} problems that --model was trained on")
    return kept


def keys(problems: Sequence[Problem], ends: Sequence[str]) -> frozenset[str]:
    """The keys of problems."""
    return frozenset(key_of(p.prompt, ends) for p in problems)


def endings(settings: Settings) -> tuple[str, ...]:
    """Instructions that a prompt may end with and that do not make it another problem."""
    return INSTRUCTION, instruction_of(settings) or ""


def instruction_of(settings: Settings) -> str | None:
    """What is added to every prompt of a data set: None for what its layout is used with, "" for nothing."""
    return {"": None, "none": ""}.get(settings.instruction, settings.instruction)
