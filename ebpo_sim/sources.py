"""Which files of this project a result rests on: the sources that a module imports, and one hash of them.

Of the standard library and of other projects nothing is read: their versions belong to the settings, where they matter.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import re
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path

PROJECT = ("ebpo_sim", "llm", "paper_figures")
SCRIPT = re.compile(r"\w+\.py")
DATA = ".csv"  # tables beside the sources, which modules of their folder read


@lru_cache(maxsize=1)
def project() -> tuple[Path, ...]:
    """The folders of the project's packages that can be imported here; from a wheel, ebpo_sim alone."""
    specs = [importlib.util.find_spec(name) for name in PROJECT]
    return tuple(Path(s.submodule_search_locations[0]) for s in specs if s and s.submodule_search_locations)


def located(name: str, folders: tuple[Path, ...]) -> Iterator[Path]:
    """The files that importing `name` runs: packages on the way, then the module; a name in a module is no file."""
    top, *rest = name.split(".")
    for folder in folders:
        if folder.name == top:
            yield folder / "__init__.py"
            for part in rest:
                folder /= part
                found = next((p for p in (folder / "__init__.py", folder.with_suffix(".py")) if p.is_file()), None)
                if found is None:
                    return
                yield found


@cache
def imports(source: bytes) -> tuple[str, ...]:
    """Dotted names of what a source imports, in functions too but not for types alone, and every string "name.py"."""
    nodes: list[ast.AST] = [ast.parse(source)]
    found: list[str] = []
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            nodes += node.orelse
            continue
        nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and SCRIPT.fullmatch(node.value):
            found.append(node.value)
    return tuple(dict.fromkeys(found))


def used(path: Path, folders: tuple[Path, ...]) -> Iterator[Path]:
    """The files that a source imports, and those beside it that it runs by name: a script's own, a worker's."""
    for name in imports(path.read_bytes()):
        yield from located(name, folders)
        beside = path.parent / f"{name.partition('.')[0]}.py"
        if beside.is_file():
            yield beside


def reached(module: str, folders: tuple[Path, ...]) -> list[Path]:
    """The sources that importing the module runs, transitively, and the tables in their folders.

    Raises ValueError for a module that is not in the folders.
    """
    queue = list(located(module, folders))
    if len(queue) != len(module.split(".")):
        raise ValueError(f"no module {module!r} in {[str(folder) for folder in folders]}")
    found = dict.fromkeys(queue)
    while queue:
        new = set(used(queue.pop(), folders)) - found.keys()
        found |= dict.fromkeys(new)
        queue += new
    tables = [p for folder in {path.parent for path in found} for p in folder.glob(f"*{DATA}")]
    return [*found, *tables]


@lru_cache(maxsize=64)
def digest(module: str, folders: tuple[Path, ...] | None = None) -> str:
    """A hash of the names and bytes of all that `reached` lists; folders: the project's. Raises ValueError likewise."""
    where = project() if folders is None else folders
    roots = {folder.name: folder.parent for folder in where}
    read = {}
    for path in reached(module, where):
        (root,) = (root for name, root in roots.items() if path.is_relative_to(root / name))
        read[path.relative_to(root).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    return hashlib.sha256(repr(sorted(read.items())).encode()).hexdigest()
