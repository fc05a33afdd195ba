"""The folder that a run writes into."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ebpo_sim import report


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Hold the output folder as `report.locked` does, on the first process of several alone.

    A folder that was made for a run which is then refused is taken away again.
    """
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    new = not out.exists()
    try:
        with report.locked(out):
            yield
    finally:
        if new:
            with suppress(OSError):  # it holds files now
                out.rmdir()
