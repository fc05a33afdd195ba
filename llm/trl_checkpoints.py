"""The checkpoint-N folders of a run that TRL trains: whose they are, and which is the last whole one.

When transformers has written a folder, every process included, three files are added to it: settings.json, the record
of what was trained on, and, last of all, whole.json with the sizes of all files. A folder without it is not whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from ebpo_sim import report
from ebpo_sim.errors import InputError
from llm import checkpoints, trained_on
from llm.folders import read_json, write_json
from llm.trained_on import TrainedOn

SETTINGS, WHOLE = "settings.json", "whole.json"
OPTIMIZERS = ("optimizer*", "global_step*")  # of one process, of FSDP; of DeepSpeed


class Complete(TrainerCallback):
    """Adds the files above to every checkpoint. wait: returns when all processes have called it."""

    def __init__(self, settings: Mapping[str, Any], record: TrainedOn, wait: Any) -> None:
        self._settings, self._record, self._wait = settings, record, wait

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called by every process after its part of checkpoint-N is written."""
        self._wait()
        if state.is_world_process_zero:
            folder = Path(args.output_dir, f"checkpoint-{state.global_step}")
            trained_on.write(folder, self._record)
            write_json(folder / SETTINGS, self._settings)
            (folder / WHOLE).unlink(missing_ok=True)
            write_json(folder / WHOLE, sizes_of(folder))


class Best(TrainerCallback):
    """Saves the policy whenever a validation's mean reward is the highest so far, the first of equals. save: called by
    every process."""

    def __init__(self, save: Callable[[], object]) -> None:
        self._save = save

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called by every process after a validation, whose reward is in the log already."""
        rewards = rewards_of(state.log_history)
        if rewards[-1] > max(rewards[:-1], default=-math.inf):
            self._save()


def rewards_of(history: Sequence[Mapping[str, Any]]) -> list[float]:
    """The mean rewards of the validations in a log."""
    return [row["eval_reward"] for row in history if "eval_reward" in row]


def sizes_of(folder: Path) -> dict[str, int]:
    """Bytes of each file in a folder, by its path there."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != WHOLE)
    return {str(p.relative_to(folder)): p.stat().st_size for p in files}


def folders(out: Path) -> list[Path]:
    """The checkpoint-N in `out`, the last first."""
    found = {p.name.removeprefix("checkpoint-"): p for p in out.glob("checkpoint-*") if p.is_dir()}
    return [found[step] for step in sorted(filter(str.isdecimal, found), key=int, reverse=True)]


def refuse_new_run(out: Path) -> None:
    """Raises InputError where checkpoints of an earlier run lie in `out`: a new run's would be mixed with them."""
    if any(out.glob("checkpoint-*")):
        raise InputError(
            f"--out {str(out)!r} holds checkpoints of an earlier run: go on with it by --resume, or name another --out"
        )


def last_whole(out: Path, settings: Mapping[str, Any], record: TrainedOn, free: frozenset[str]) -> Path:
    """The last checkpoint that is whole; those skipped are said.

    Raises InputError where there is none, where it is another run's (settings outside `free` differ, or other problems
    were trained on), and where it has lost its optimizer or another file.
    """
    for folder in folders(out):
        if not (folder / WHOLE).is_file():
            report.say(f"{folder.name} was not written to its end, skipped")
            continue
        checkpoints.check_settings(_read(folder / SETTINGS), settings, free)
        if trained_on.read(str(folder)) != record:
            raise InputError(f"{str(folder)!r} was trained on other problems than --dataset holds now: restore them")
        written, found = _read(folder / WHOLE), sizes_of(folder)
        if not any(path for pattern in OPTIMIZERS for path in folder.glob(pattern)):
            raise InputError(
                f"{str(folder)!r} has lost its optimizer: restore it, or delete the folder to go further back"
            )
        for name in sorted(set(written) - {SETTINGS}):
            if found.get(name) != written[name]:
                raise InputError(
                    f"{str(folder / name)!r} has {found.get(name, 'no')} bytes, it was written with {written[name]}: "
                    "restore it, or delete the checkpoint to go further back"
                )
        return folder
    raise InputError(
        f"--resume finds no checkpoint of this backend that is whole in {str(out)!r}: start without --resume"
    )


def _read(path: Path) -> dict[str, Any]:
    found = read_json(path)
    if not isinstance(found, dict):
        raise InputError(f"{str(path)!r} must hold an object: restore it")
    return found
