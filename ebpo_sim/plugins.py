"""Parts of one's own, without editing the package: files named on the command line, and installed entry points.

`--load FILE.py` runs the file, which registers what it defines (`ebpo_sim.estimators.register`); packages may do the
same through the entry-point group `ebpo_sim.parts`, whose objects are functions that take nothing and register. What
runs is named by the user or was installed by them: never by the contents of a checkpoint, an export or a table.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from ebpo_sim.errors import InputError

GROUP = "ebpo_sim.parts"
_loaded: dict[Path, str] = {}  # file -> hash of what was run, in order
_entered: list[str] = []


def load(files: Iterable[str | Path]) -> None:
    """Run each file once in this process. Raises InputError for a file that is missing, is no Python, or fails."""
    for file in files:
        path = Path(file).resolve()
        if path in _loaded:
            continue
        if path.suffix != ".py" or not path.is_file():
            raise InputError(f"--load {str(file)!r} is no Python file: name one that registers a part, as in mine.py")
        source = path.read_bytes()
        mark = hashlib.sha256(source).hexdigest()
        name = f"ebpo_sim_loaded_{path.stem}_{mark[:8]}"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses and pickle look their module up by name
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[name]
            raise InputError(f"--load {str(file)!r} failed: {type(error).__name__}: {error}") from error
        _loaded[path] = mark


def enter() -> None:
    """Call the entry points of the group `ebpo_sim.parts`, once in this process. Raises InputError where one fails."""
    for point in sorted(metadata.entry_points(group=GROUP), key=lambda p: p.value):
        if point.value in _entered:
            continue
        try:
            point.load()()
        except Exception as error:
            raise InputError(
                f"entry point {point.value!r} of {GROUP} failed: {type(error).__name__}: {error}; mend its package"
            ) from error
        _entered.append(point.value)


def loaded() -> tuple[str, ...]:
    """The files loaded so far, for worker processes to load as well."""
    return tuple(map(str, _loaded))


def mark() -> str:
    """A hash of the contents of all loaded files, for the keys of caches; "" where none is."""
    return hashlib.sha256("".join(_loaded.values()).encode()).hexdigest()[:16] if _loaded else ""
