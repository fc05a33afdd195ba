"""Finished pieces of work, a file each: what a killed run goes on from.

A file carries its own name and a checksum of its content, so one that was cut, changed, emptied or put in another's
place is found out, said and done again; a wrong number is never taken for a result.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ebpo_sim import report, sources


def key(module: str, *settings: Any) -> str:
    """A name for what `module` (its `__name__`) makes of settings that JSON can hold: another for other settings, and
    once any source of this project that the module imports has changed.

    What a run takes from elsewhere, such as a part of the user's own or a library's version, belongs to the settings.
    Raises ValueError for a module that is not of this project.
    """
    text = json.dumps([sources.digest(module), *settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def store(path: Path, content: Any) -> Any:
    """Write `content` (what JSON can hold, no NaN) whole; returned as `load` will give it: tuples as lists."""
    kept = json.loads(report.to_json(content))
    report.write_bytes(path, report.to_json(_sealed(path, kept)).encode())
    return kept


def load(path: Path) -> Any:
    """The content that `store` wrote; None where there is no file, or one that is damaged, which is said."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found != _sealed(path, found["content"]):
            raise ValueError("not what its checksum says")
        return found["content"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        report.note(f"{path} is damaged or of another version ({error!r}): it is made again")
        return None


def _sealed(path: Path, content: Any) -> dict[str, Any]:
    text = f"{path.name}\n{report.to_json(content)}"
    return {"name": path.name, "sha256": hashlib.sha256(text.encode()).hexdigest(), "content": content}
