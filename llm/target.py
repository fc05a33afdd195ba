"""What is evaluated: a checkpoint or a model, with which settings, on which problems. A file is data, never code."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ebpo_sim import cli, report
from ebpo_sim.errors import InputError
from llm import checkpoints, trained_on
from llm.problems import GENERATED, by_cell, endings, instruction_of
from llm.settings import Settings
from llm.tasks import SPLITS, Problem, cells, load_problems, longer_cells, longest_answer, pool
from llm.trained_on import TrainedOn

FROM_TRAINING = ("instruction", "verifier", "chat", "max_new", "engine", "device", "dtype", "temperature",
                 "sample_rows", "threads")  # fmt: skip
HARMLESS = (
    "auto",
    "exact",
    "generated",
    "math",
    "reasoning_gym",
)  # verifiers that a file may name: they are this project's own


class Target(NamedTuple):
    """settings: of the policy and its task. saved: the checkpoint, where it is one. record: what it was trained on."""

    settings: Settings
    saved: dict[str, Any] | None
    record: TrainedOn | None


def targets_of(given: argparse.Namespace) -> list[Target]:
    """The policy with each of the data sets. A file is a checkpoint of `llm/train.py` and brings its own settings;
    anything else is a Hugging Face model.

    Options given on the command line replace the checkpoint's. Raises InputError for settings this code does not know,
    for data sets named twice, and for a checkpoint that names a verifier of its own: it would decide which code runs.
    """
    target = Path(given.target)
    asked = {name: getattr(given, name) for name in FROM_TRAINING if getattr(given, name) is not None}
    asked = {"engine": "hf", **asked}
    if target.is_file() or target.suffix == ".pt":
        saved = checkpoints.load(target)
        base = Settings.of(saved["settings"], f"checkpoint {given.target!r}")
        if base.verifier not in HARMLESS and "verifier" not in asked and not given.trust_checkpoint:
            raise InputError(
                f"checkpoint {given.target!r} names the verifier {base.verifier!r}, and a file does not decide which "
                f"code runs: name it again with --verifier {base.verifier}, or add --trust-checkpoint"
            )
        record = trained_on.of_dict(saved["split"], f"checkpoint {given.target!r}")
        base = replace(base, threads=min(base.threads, cli.available_cores()))
        one = Target(replace(base, **asked), saved, record)
    else:
        one = Target(
            replace(Settings(model=given.target, dataset="sample"), **asked), None, trained_on.read(given.target)
        )
    names = given.dataset or [one.settings.dataset]
    splits = given.dataset_split or [one.settings.dataset_split]
    if len(set(names)) < len(names) or len(splits) not in (1, len(names)):
        raise InputError(
            f"--dataset must name each data set once and --dataset-split be given once or for each, got {names} and "
            f"{splits}"
        )
    splits = splits * len(names) if len(splits) == 1 else splits
    if given.split == "longer" and not one.settings.max_new and one.settings.model == "scratch":
        longest = longest_answer(longer_cells(one.settings.topics)) + 1
        one = one._replace(settings=replace(one.settings, max_new=longest))
    return [
        one._replace(settings=replace(one.settings, dataset=name, dataset_split=split))
        for name, split in zip(names, splits, strict=True)
    ]


def problems_of(target: Target, given: argparse.Namespace) -> list[Problem]:
    """The problems to evaluate on: of any source only those of the split, where it is known what was trained on.

    How many are left out is said. Raises InputError where none is left.
    """
    settings, trained = target.settings, None if target.saved is None else target.saved["settings"]
    if settings.dataset == GENERATED:
        chosen = cells(settings.topics, settings.max_level)
        splits = SPLITS if given.split in ("all", "longer") else (given.split,)
        if given.split == "longer":
            chosen = longer_cells(settings.topics)
        shared = replace(settings, level_shares="") if given.split == "longer" else settings
        counts = by_cell(shared, chosen, given.per_cell)
        found = [p for split in splits for cell, n in counts for p in pool(split, [cell], n, given.seed)]
    else:
        source = (settings.dataset, settings.dataset_split)
        if trained is not None and settings.dataset == trained["dataset"] and trained["validation"]:
            source = (trained["validation"], trained["validation_split"])  # all of its data set was trained on
        found = load_problems(*source, instruction=instruction_of(settings))
    if given.split == "longer" and settings.dataset != GENERATED:
        raise InputError(f"--split longer is of the generated task, not of {settings.dataset!r}: name another split")
    kept = found
    drawn_by_split = settings.dataset == GENERATED and given.split != "heldout"  # asked for by name
    if target.record is not None and given.split != "all" and not drawn_by_split:
        ends = endings(settings)
        kept = [p for p in found if target.record.split_of(p.prompt, ends) == given.split]
        if len(kept) < len(found):
            why = {"heldout": "that it was trained on or validated with", "train": "that it was not trained on"}
            report.say(
                f"left out {len(found) - len(kept)} of {len(found)} problems "
                f"{why.get(given.split, 'that it was not validated with')}; --split all keeps them"
            )
    if not kept:
        raise InputError(
            f"no problem of the {given.split} split is left of {len(found)}: name another --dataset or --split, or "
            "raise --per-cell"
        )
    return kept[: given.limit or None]
