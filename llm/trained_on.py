"""What a policy was trained on, kept as data in its checkpoints and beside its exported weights.

Problems are known by their keys (`llm.tasks.splits`), so no spelling of a path, copy or other file hides one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ebpo_sim.errors import InputError
from llm.folders import read_json, write_json
from llm.tasks.generated import is_generated
from llm.tasks.splits import Split, content, key_of, split_of

FILE = "ebpo_split.json"
FORMAT, VERSION = "ebpo split", 1
_KEY = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class TrainedOn:
    """Keys of the problems trained on and validated with; generated: the train split of the generated task too."""

    trained: frozenset[str] = frozenset()
    validated: frozenset[str] = frozenset()
    generated: bool = False

    def split_of(self, prompt: str, endings: Sequence[str] = ()) -> Split:
        """train: was trained on; validation: was validated with; heldout: neither."""
        key = key_of(prompt, endings)
        if key in self.trained:
            return "train"
        if self.generated and is_generated(content(prompt, endings)):
            return split_of(prompt, endings)
        return "validation" if key in self.validated else "heldout"

    def __or__(self, other: TrainedOn) -> TrainedOn:
        """Of a policy that went through both."""
        return TrainedOn(
            self.trained | other.trained, self.validated | other.validated, self.generated or other.generated
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "generated": self.generated,
            "trained": sorted(self.trained),
            "validated": sorted(self.validated),
        }


def of_dict(found: Any, where: str) -> TrainedOn:
    """Inverse of `as_dict`. Raises InputError, naming `where`, for anything else."""
    expected = TrainedOn().as_dict()
    if not isinstance(found, Mapping) or set(found) != set(expected) or not isinstance(found["generated"], bool):
        raise InputError(f"{where} is no record of what a policy was trained on: restore it")
    if (found["format"], found["version"]) != (FORMAT, VERSION):
        raise InputError(f"{where} is {(found['format'], found['version'])}, this code reads {(FORMAT, VERSION)}")
    for part in ("trained", "validated"):
        keys = found[part]
        if not isinstance(keys, list) or not all(isinstance(key, str) and _KEY.fullmatch(key) for key in keys):
            raise InputError(f"{where}: {part!r} must list keys of 16 hexadecimal digits: restore it")
    return TrainedOn(frozenset(found["trained"]), frozenset(found["validated"]), found["generated"])


def read(model: str) -> TrainedOn | None:
    """The record in a model's folder; None where there is none. Raises InputError for a damaged one."""
    path = Path(model) / FILE
    if not path.is_file():
        return None
    return of_dict(read_json(path), str(path))


def write(folder: Path, record: TrainedOn) -> None:
    """The record into a model's folder."""
    write_json(folder / FILE, record.as_dict())
