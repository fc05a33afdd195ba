"""Which folder a run writes: the default's for the run with default options, one of its own below it for any other."""

from __future__ import annotations

import argparse
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

SAME = (  # options that leave the numbers alone
    "threads", "json", "html", "yes", "load", "wide", "out", "cache", "gallery", "jobs", "minutes", "keep_logs",
    "report", "publish",
)  # fmt: skip
NAME = 60  # characters of a folder named after options


def own_folder(parser: argparse.ArgumentParser, given: argparse.Namespace, argv: Sequence[str]) -> str:
    """--out, or where it is not given the default's folder, which belongs to the run with default options; the run of
    other options gets a folder below it that is named from them, as in results/claims/quick."""
    if any(word == "--out" or word.startswith("--out=") for word in argv):
        return str(given.out)
    positional = {action.dest for action in parser._actions if not action.option_strings}
    parts = []
    for name, value in vars(given).items():
        if name not in SAME and value != parser.get_default(name):
            words = "+".join(map(str, dict.fromkeys(value))) if isinstance(value, list | tuple) else str(value)
            key = "" if name in positional else name.replace("_", "-")
            parts.append(key if value is True else f"{key}={words}" if key else words)
    text = ",".join(parts)
    folder = ",".join(re.sub(r"[^\w.=+-]+", "-", part) for part in parts)
    if len(folder) > NAME or re.search(r"[^\w.:,=+-]", text) or folder.startswith("."):  # else two could share a name
        folder = f"{folder[:NAME].strip('.,-')}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return str(Path(given.out, folder)) if parts else str(given.out)


def shared_folder(out: str, default: str) -> str:
    """Where runs with all options keep what they can share: `default` for a folder in it, else `out` itself."""
    return default if Path(out).is_relative_to(default) else out
