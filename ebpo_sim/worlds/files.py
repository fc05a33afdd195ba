"""Files that are read: which ones may be, and what a damaged one is called."""

from __future__ import annotations

import csv
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ebpo_sim.errors import InputError

DAMAGE = (OSError, EOFError, zlib.error, UnicodeError, csv.Error, RecursionError, OverflowError)


def regular_file(text: str, kind: str) -> Path:
    """The path of an existing regular file. Raises InputError for a folder, and for a pipe or a device, which could
    block or never end."""
    try:
        mode = Path(text).stat().st_mode
    except FileNotFoundError:
        reason = "it does not exist"
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
        reason = str(getattr(error, "strerror", None) or error)
    else:
        if stat.S_ISREG(mode):
            return Path(text)
        reason = "it is a folder, a pipe or a device"
    raise InputError(f"{kind} {text!r} cannot be read ({reason}): name a file")


@contextmanager
def sound(text: str) -> Iterator[None]:
    """Turns what a damaged or hostile file raises while it is read into an InputError."""
    try:
        yield
    except DAMAGE as error:
        raise InputError(
            f"{text!r} cannot be read ({error}): it is damaged, truncated, too deeply nested or not what its name says"
        ) from error
