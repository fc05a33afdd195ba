"""Rows of a data set, wherever it is: a file, a folder of files, or the Hugging Face hub. Read as they are needed.

Files: those of `ebpo_sim.tables`; its Arrow streams are what `save_to_disk` of the datasets library writes.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from ebpo_sim import tables
from ebpo_sim.errors import InputError
from ebpo_sim.tables import Row

SPLIT_WORDS = {"train", "training", "validation", "valid", "val", "dev", "test", "testing", "eval"}
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")


class Table(NamedTuple):
    """Where rows come from. name: short, the same on every machine; where: for messages."""

    name: str
    where: str
    rows: Iterator[Row]


def open_table(source: str, split: str, wanted: Collection[str]) -> Table:
    """The rows of a file, a folder or a hub data set ("org/name" or "org/name:config").

    split: of a folder (a word in the names of its files and folders) or hub data set; a single file is one split.
    wanted: the columns anyone may ask for; others may be left out.
    Raises InputError for a source that does not exist or cannot be read, at the latest while its rows are read.
    """
    path = Path(source)
    try:
        folder = path.is_dir()
    except OSError as error:  # a name that no file can have
        raise InputError(f"data set {source[:80]!r} cannot be read: {error.strerror}") from error
    if folder:
        files = _split_files(path, split)
        return Table(path.resolve().name, source, (row for file in files for row in _file_rows(file, wanted)))
    if path.is_file() or tables.format_of(path):
        return Table(path.stem, source, _file_rows(path, wanted))
    if HUB_NAME.fullmatch(source):
        return Table(source, source, _hub_rows(source, split, wanted))
    raise InputError(
        f'data set {source!r} must be "sample", a file ({tables.KNOWN}), a folder or a Hugging Face name '
        "org/name: no such file exists"
    )


def _split_files(folder: Path, split: str) -> list[Path]:
    """The files of the split: named by it (data/test_en-00000-of-00001.parquet, test/x.arrow), else with it as a word.

    A folder in which nothing is named by a split holds one, "train".
    """
    files = sorted(p for p in folder.rglob("*") if p.is_file() and tables.format_of(p) and not _about(p))
    names = {p: [*p.relative_to(folder).parts[:-1], re.sub(r"-\d+-of-\d+$", "", p.stem)] for p in files}
    words = {p: set(re.split(r"[\W_]+", " ".join(names[p]).lower())) for p in files}
    chosen = [p for p in files if split in names[p]] or [p for p in files if split.lower() in words[p]]
    if not chosen and split == "train" and not any(found & SPLIT_WORDS for found in words.values()):
        chosen = files
    if not chosen:
        listed = ", ".join(str(p.relative_to(folder)) for p in files[:10]) or "no table"
        raise InputError(f"folder {str(folder)!r} has no file of the split {split!r}: it holds {listed}")
    kinds = sorted({str(p.parent / f"*{p.suffix}") for p in chosen})
    if len(kinds) > 1:
        raise InputError(
            f"folder {str(folder)!r} has the split {split!r} more than once: name one of {', '.join(kinds)}"
        )
    return chosen


def _about(path: Path) -> bool:
    """Whether a file is about a data set, or a by-product of it, rather than a part."""
    return path.name.startswith((".", "cache-")) or path.name in (
        "dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"
    )  # fmt: skip


def _file_rows(path: Path, wanted: Collection[str]) -> Iterator[Row]:
    """Rows of one file."""
    if not path.is_file():
        raise InputError(f"data set file {str(path)!r} does not exist: name another")
    return (row for _, row in tables.rows(path, wanted=wanted))


def _hub_rows(source: str, split: str, wanted: Collection[str]) -> Iterator[Row]:
    """Rows of a data set on the Hugging Face hub, or in its cache."""
    name, _, config = source.partition(":")
    try:
        datasets = importlib.import_module("datasets")
    except ImportError as error:
        raise InputError(
            f"data set {source!r} is no file, and one from the hub needs the datasets library: pip install datasets"
        ) from error
    try:
        found = datasets.load_dataset(name, config or None, split=split)
    except Exception as error:  # many kinds: no such name, split or configuration, no network
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"data set {source!r}, split {split!r}, cannot be loaded ({first}): check name and split, and give a "
            "configuration as org/name:config"
        ) from error
    columns = [column for column in found.column_names if column in wanted]
    yield from found.select_columns(columns) if columns else found
