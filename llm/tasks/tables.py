"""Rows of a data set, wherever it is: a file, a folder of files, or the Hugging Face hub. Read as they are needed.

Files: JSON lines, a JSON list, CSV, Parquet, and the Arrow files that `save_to_disk` of the datasets library writes.
"""

from __future__ import annotations

import csv
import importlib
import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ebpo_sim.errors import InputError

Row = dict[str, Any]
SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".parquet", ".arrow")
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
    if path.is_file() or path.suffix in SUFFIXES:
        return Table(path.stem, source, _file_rows(path, wanted))
    if HUB_NAME.fullmatch(source):
        return Table(source, source, _hub_rows(source, split, wanted))
    raise InputError(
        f'data set {source!r} must be "sample", a file ({", ".join(SUFFIXES)}), a folder or a Hugging Face name '
        "org/name: no such file exists"
    )


def _split_files(folder: Path, split: str) -> list[Path]:
    """The files of the split: named by it (data/test_en-00000-of-00001.parquet, test/x.arrow), else with it as a word.

    A folder in which nothing is named by a split holds one, "train".
    """
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix in SUFFIXES and not _about(p))
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
    reader = {".json": _json, ".csv": _csv, ".parquet": _parquet, ".arrow": _arrow}.get(path.suffix, _json_lines)
    try:
        yield from reader(path, wanted)
    except InputError:
        raise
    except Exception as error:  # damage shows as one of many: each reader has its own, and Python's limits theirs
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{path} cannot be read ({first[:200]}): it is damaged or not what its name says") from error


def _json_lines(path: Path, wanted: Collection[str]) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                yield _object(json.loads(line), f"{path}, line {number}")


def _json(path: Path, wanted: Collection[str]) -> Iterator[Row]:
    """A list of objects, else one object a line."""
    with path.open(encoding="utf-8-sig") as stream:
        first = next((c for c in iter(lambda: stream.read(1), "") if not c.isspace()), "")
    if first != "[":
        yield from _json_lines(path, wanted)
        return
    for number, row in enumerate(json.loads(path.read_text(encoding="utf-8-sig")), 1):
        yield _object(row, f"{path}, entry {number}")


def _object(row: Any, where: str) -> Row:
    if not isinstance(row, dict):
        raise InputError(f"{where} is {type(row).__name__}, not an object: give one JSON object a problem")
    return row


def _csv(path: Path, wanted: Collection[str]) -> Iterator[Row]:
    csv.field_size_limit(1 << 30)
    with path.open(encoding="utf-8-sig", newline="") as stream:
        for row in csv.DictReader(stream):
            if None in row or None in row.values():
                raise InputError(f"{path} has a row of another length than its head: quote texts with commas in them")
            yield dict(row)


def _parquet(path: Path, wanted: Collection[str]) -> Iterator[Row]:
    file = _pyarrow("parquet").ParquetFile(path)
    columns = [name for name in file.schema_arrow.names if name in wanted]
    for batch in file.iter_batches(columns=columns or None):
        yield from batch.to_pylist()


def _arrow(path: Path, wanted: Collection[str]) -> Iterator[Row]:
    with path.open("rb") as stream:
        for batch in _pyarrow("ipc").open_stream(stream):
            columns = [name for name in batch.schema.names if name in wanted]
            yield from (batch.select(columns) if columns else batch).to_pylist()


def _pyarrow(part: str) -> Any:
    try:
        return importlib.import_module(f"pyarrow.{part}")
    except ImportError as error:
        raise InputError("Parquet and Arrow files need pyarrow: pip install pyarrow, or write JSON lines") from error


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
