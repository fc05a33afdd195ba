"""The folder that a run writes into, and the JSON files in it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from ebpo_sim import report
from ebpo_sim.errors import InputError


def alone_in(out: Path) -> AbstractContextManager[None]:
    """Hold the output folder as `report.locked` does, on the first process of several alone."""
    return report.locked(out) if os.environ.get("RANK", "0") == "0" else nullcontext()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """The content as a file, whole or not at all."""
    report.write_bytes(path, (report.to_json(content) + "\n").encode())


def read_json(path: Path) -> Any:
    """What `write_json` wrote. Raises InputError for a file that cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{str(path)!r} cannot be read ({type(error).__name__}): restore it") from error
