"""What is evaluated: a checkpoint or a model, with which settings, on which problems. A file is data, never code."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ebpo_sim import cli, report
from ebpo_sim.errors import InputError
from llm import checkpoints, trained_on
from llm.problems import GENERATED, endings, instruction_of
from llm.settings import Settings
from llm.tasks import SPLITS, Problem, cells, load_problems, pool
from llm.trained_on import TrainedOn

FROM_TRAINING = ("dataset", "dataset_split", "instruction", "verifier", "chat", "max_new", "device", "dtype",
                 "temperature", "sample_rows", "threads")  # fmt: skip
HARMLESS = ("auto", "exact", "math")  # verifiers that a file may name: they are this project's own


class Target(NamedTuple):
    """settings: of the policy and its task. saved: the checkpoint, where it is one. record: what it was trained on."""

    settings: Settings
    saved: dict[str, Any] | None
    record: TrainedOn | None


def target_of(given: argparse.Namespace) -> Target:
    """A file is a checkpoint of `llm/train.py` and brings its own settings; anything else is a Hugging Face model.

    Options given on the command line replace the checkpoint's. Raises InputError for settings this code does not know,
    and for a checkpoint that names a verifier of its own: it would decide which code runs.
    """
    target = Path(given.target)
    asked = {name: getattr(given, name) for name in FROM_TRAINING if getattr(given, name) is not None}
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
        return Target(replace(base, engine="hf", **asked), saved, record)
    base = Settings(model=given.target, dataset=given.dataset or "sample")
    return Target(replace(base, engine="hf", **asked), None, trained_on.read(given.target))


def problems_of(target: Target, given: argparse.Namespace) -> list[Problem]:
    """The problems to evaluate on: of any source only those of the split, where it is known what was trained on.

    How many are left out is said. Raises InputError where none is left.
    """
    settings, trained = target.settings, None if target.saved is None else target.saved["settings"]
    if settings.dataset == GENERATED:
        chosen = cells(settings.topics, settings.max_level)
        splits = SPLITS if given.split == "all" else (given.split,)
        found = [p for split in splits for p in pool(split, chosen, given.per_cell, given.seed)]
    else:
        source = (settings.dataset, settings.dataset_split)
        if trained is not None and settings.dataset == trained["dataset"] and trained["validation"]:
            source = (trained["validation"], trained["validation_split"])  # all of its data set was trained on
        found = load_problems(*source, instruction=instruction_of(settings))
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
