"""Tables on disk: CSV, TSV, JSON lines (all also .gz), a JSON list, Parquet and Arrow streams, row by row or in chunks
of columns.

Text is UTF-8 with or without a byte order mark; a CSV may begin with lines of # comments. Only a JSON list is ever in
memory as a whole. A column of a chunk is a sequence of Python values, or `Coded`: codes into its distinct values.
"""

from __future__ import annotations

import csv
import gzip
import importlib
import json
import os
import re
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from operator import itemgetter
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ebpo_sim import budget
from ebpo_sim.errors import InputError

ROWS = 1 << 13  # rows of a chunk: large enough for NumPy, small enough to stay in the cache
FORMATS = {
    ".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".ndjson": "json", ".json": "json", ".parquet": "parquet",
    ".arrow": "arrow",
}  # fmt: skip
KNOWN = f"{', '.join(FORMATS)}, text formats also with .gz"
OBJECTS = 10  # bytes of Python objects for a byte of JSON
Row = dict[str, Any]
Rows = Iterator[tuple[str, Row]]


class Coded(NamedTuple):
    """A column as codes into its distinct values."""

    codes: NDArray[np.int64]
    values: list[Any]


Column = Sequence[Any] | NDArray[Any] | Coded


class Chunk(NamedTuple):
    """Some consecutive rows. row: number of the first one, from 1, for messages."""

    path: str
    row: int
    columns: Mapping[str, Column]
    size: int


def format_of(path: Path) -> str:
    """csv, json, parquet or arrow by the file's name; empty where that tells nothing."""
    kind = FORMATS.get(Path(path.name.removesuffix(".gz")).suffix.lower(), "")
    return "" if kind in ("parquet", "arrow") and path.suffix == ".gz" else kind


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
def sound(path: str | Path) -> Iterator[None]:
    """Turns what a damaged or hostile file raises while it is read into an InputError."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:  # damage shows as one of many: each library has its own, and Python's limits theirs
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{str(path)!r} cannot be read ({first[:200]}): it is damaged, truncated, too deeply nested or not what "
            "its name says"
        ) from error


def expand(paths: Sequence[str]) -> list[Path]:
    """The files named, folders replaced by the tables in them (verl and TRL write a file a step) in natural order."""
    found: list[Path] = []
    for text in paths:
        path = Path(text)
        if os.path.isdir(text):
            with sound(text):
                inside = [p for p in path.iterdir() if p.is_file() and format_of(p)]
            if not inside:
                raise InputError(f"folder {text!r} holds no table: {KNOWN}")
            found += sorted(inside, key=lambda p: [int(x) if x.isdecimal() else x for x in re.split(r"(\d+)", p.name)])
        elif not format_of(path):
            raise InputError(f"file {text!r} has no known format: name it {KNOWN}")
        else:
            found.append(regular_file(text, "log"))
    return found


def peek(path: Path) -> tuple[list[str], Row]:
    """Names of the columns and the first row. Raises InputError for an empty or unreadable file."""
    _, first = next(rows(path, size=1), ("", None))
    if first is None:
        raise InputError(f"{path} holds no row: give a rollout or a prompt a row")
    return list(first), first


def rows(path: Path, needed: Sequence[str] = (), wanted: Collection[str] = (), size: int = ROWS) -> Rows:
    """Every row, and where it stands, for messages. A file whose name tells no format is CSV.

    needed: columns that the file must have. wanted: where any of them are there, Parquet and Arrow bring no others,
    `size` rows at a time. Raises InputError, naming file and place, for a missing or repeated column, a CSV row of
    another length than its head, JSON that is no object, and what cannot be read.
    """
    read = {"json": _json_rows, "parquet": _arrow_rows, "arrow": _arrow_rows}.get(format_of(path), _csv_rows)
    with sound(path):
        yield from read(path, needed, wanted, size)


def chunks(path: Path, wanted: Sequence[str], size: int = ROWS) -> Iterator[Chunk]:
    """The columns `wanted`, `size` rows at a time. Raises InputError where the file is damaged, naming the row."""
    read = {"csv": _csv_chunks, "json": _json_chunks}.get(format_of(path), _arrow_chunks)
    with sound(path):
        yield from read(path, list(wanted), size)


def _text(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return open(path, encoding="utf-8-sig", newline="")


def _csv(path: Path, stream: IO[str], needed: Sequence[str]) -> tuple[Any, list[str], int]:
    """(reader behind the head, names of the columns, lines of comments before the head)."""
    csv.field_size_limit(1 << 30)  # whole completions stand in one field
    comments, head = next(((i, x) for i, x in enumerate(stream) if not x.startswith("#")), (0, ""))
    reader = csv.reader(chain([head], stream), delimiter="\t" if ".tsv" in path.suffixes else ",")
    names = next(reader, [])
    _check_names(path, names, needed)
    return reader, names, comments


def _check_names(where: str | Path, names: Sequence[str], needed: Sequence[str]) -> None:
    if len(set(names)) != len(names):
        raise InputError(f"{where} names a column twice: {', '.join(names)}")
    for name in needed:
        if name not in names:
            raise InputError(f"{where} has no column {name!r}: it needs {', '.join(needed)}")


def _check_length(where: str, cells: Sequence[str], names: Sequence[str]) -> None:
    if len(cells) != len(names):
        raise InputError(f"{where} has {len(cells)} of {len(names)} columns: truncated or badly quoted")


def _csv_rows(path: Path, needed: Sequence[str], wanted: Collection[str], size: int) -> Rows:
    with _text(path) as stream:
        reader, names, skipped = _csv(path, stream, needed)
        for cells in filter(None, reader):
            where = f"{path}, line {skipped + reader.line_num}"
            _check_length(where, cells, names)
            yield where, dict(zip(names, cells, strict=True))


def _csv_chunks(path: Path, wanted: list[str], size: int) -> Iterator[Chunk]:
    with _text(path) as stream:
        reader, names, _ = _csv(path, stream, wanted)
        index = [names.index(name) for name in wanted]
        pick = itemgetter(*index, index[0])  # one index more, so that a single column is a tuple too
        row = 1
        while block := list(islice(reader, size)):
            block = [cells for cells in block if cells]
            if set(map(len, block)) - {len(names)}:
                for i, cells in enumerate(block, row):
                    _check_length(f"{path}, row {i}", cells, names)
            if block:
                picked = list(zip(*map(pick, block), strict=True))
                yield Chunk(str(path), row, dict(zip(wanted, picked, strict=False)), len(block))
            row += len(block)


def _json_rows(path: Path, needed: Sequence[str], wanted: Collection[str], size: int) -> Rows:
    for first, block in _json_blocks(path, size):
        for i, row in enumerate(block, first):
            where = f"{path}, row {i}"
            _check_names(where, list(row), needed)
            yield where, row


def _json_chunks(path: Path, wanted: list[str], size: int) -> Iterator[Chunk]:
    for first, block in _json_blocks(path, size):
        try:
            columns = {name: [row[name] for row in block] for name in wanted}
        except KeyError:
            for i, row in enumerate(block, first):
                _check_names(f"{path}, row {i}", list(row), wanted)
            raise
        yield Chunk(str(path), first, columns, len(block))


def _json_blocks(path: Path, size: int) -> Iterator[tuple[int, list[Row]]]:
    """The number of the first row and the objects of `size` lines, or those of one list."""
    with _text(path) as stream:
        lines = (line for line in stream if not line.isspace())
        row, block = 1, list(islice(lines, size))
        if block and block[0].lstrip().startswith("[") and ".json" in path.suffixes:
            memory = float(OBJECTS * path.stat().st_size)
            budget.require(memory=memory, what=f"{path}, a JSON list,", remedy="write one JSON object a line")
            found = json.loads("".join(chain(block, lines)))
            yield 1, [_object(f"{path}, row {i}", x) for i, x in enumerate(found, 1)]
            return
        while block:
            try:
                found = json.loads(f"[{','.join(block)}]")  # one call for all: a third faster than line by line
            except (ValueError, RecursionError):
                found = []
            if len(found) != len(block) or not all(type(x) is dict for x in found):
                found = [_object(f"{path}, row {i}", line) for i, line in enumerate(block, row)]
            yield row, found
            row, block = row + len(block), list(islice(lines, size))


def _object(where: str, found: Any) -> Row:
    """The object that a text spells, or that a list holds."""
    if isinstance(found, str):
        try:
            found = json.loads(found)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where} is not JSON ({error}): truncated? Give one JSON object a line") from None
    if not isinstance(found, dict):
        raise InputError(f"{where} is not a JSON object: give one JSON object a line")
    return found


def _arrow_rows(path: Path, needed: Sequence[str], wanted: Collection[str], size: int) -> Rows:
    number = 0
    for batch in _batches(path, needed, wanted, size):
        for i, row in enumerate(batch.to_pylist(), 1):
            yield f"{path}, row {number + i}", row
        number += batch.num_rows


def _arrow_chunks(path: Path, wanted: list[str], size: int) -> Iterator[Chunk]:
    row = 1
    for batch in _batches(path, wanted, wanted, 8 * size):
        yield Chunk(str(path), row, {name: _from_arrow(batch.column(name)) for name in wanted}, batch.num_rows)
        row += batch.num_rows


def _batches(path: Path, needed: Sequence[str], wanted: Collection[str], size: int) -> Iterator[Any]:
    """Record batches with the columns `wanted`, all where none of them is there."""
    if format_of(path) == "parquet":
        file = _pyarrow("parquet").ParquetFile(path)
        names = file.schema_arrow.names
        _check_names(path, names, needed)
        columns = [name for name in names if name in wanted]
        yield from file.iter_batches(batch_size=size, columns=columns or None)
        return
    with path.open("rb") as stream:
        for batch in _pyarrow("ipc").open_stream(stream):
            _check_names(path, batch.schema.names, needed)
            columns = [name for name in batch.schema.names if name in wanted]
            yield batch.select(columns) if columns else batch


def _from_arrow(array: Any) -> Column:
    kind = str(array.type)
    if kind in ("double", "float", "halffloat", "bool") or kind.startswith(("int", "uint")):
        numbers = array.to_numpy(zero_copy_only=False)
        return numbers if numbers.dtype != object else np.array([np.nan if x is None else x for x in numbers], float)
    if kind.startswith(("string", "large_string", "dictionary<values=string")) and array.null_count == 0:
        coded = array if kind.startswith("dictionary") else array.dictionary_encode()
        return Coded(coded.indices.to_numpy().astype(np.int64), coded.dictionary.to_pylist())
    values: list[Any] = array.to_pylist()
    return values


def _pyarrow(part: str) -> Any:
    try:
        return importlib.import_module(f"pyarrow.{part}")
    except ImportError as error:
        remedy = 'pip install pyarrow, or "ebpo-sim[diagnose]", or write CSV or JSONL'
        raise InputError(f"Parquet and Arrow files need pyarrow: {remedy}") from error
