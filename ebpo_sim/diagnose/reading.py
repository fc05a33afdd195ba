"""Tables on disk as chunks of columns: CSV, JSONL (both also .gz) and Parquet, never a whole file in memory.

A column of a chunk is a sequence of Python values, or `Coded`: codes into a short list of distinct values.
"""

from __future__ import annotations

import csv
import gzip
import importlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ebpo_sim.errors import InputError
from ebpo_sim.worlds.files import regular_file, sound

ROWS = 1 << 13  # rows of a chunk: large enough for NumPy, small enough to stay in the cache
FORMATS = {".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".ndjson": "json", ".json": "json", ".parquet": "parquet"}


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


def expand(paths: Sequence[str]) -> list[Path]:
    """The files named, folders replaced by the tables in them (verl and TRL write a file a step) in natural order."""
    found: list[Path] = []
    for text in paths:
        path = Path(text)
        if os.path.isdir(text):
            with sound(text):
                inside = [p for p in path.iterdir() if p.is_file() and _format(p)]
            if not inside:
                raise InputError(f"folder {text!r} holds no table: {', '.join(FORMATS)}, text formats also with .gz")
            found += sorted(inside, key=lambda p: [int(x) if x.isdecimal() else x for x in re.split(r"(\d+)", p.name)])
        elif not _format(path):
            raise InputError(
                f"file {text!r} has no known format: name it {', '.join(FORMATS)}, text formats also with .gz"
            )
        else:
            found.append(regular_file(text, "log"))
    return found


def peek(path: Path) -> tuple[list[str], dict[str, Any]]:
    """Names of the columns and the first row. Raises InputError for an empty or unreadable file."""
    with _sound(path):
        if _format(path) == "parquet":
            file = _parquet().ParquetFile(path)
            names = list(file.schema_arrow.names)
            rows = next(file.iter_batches(batch_size=1), None)
            first = rows.to_pylist()[0] if rows is not None and rows.num_rows else None
        else:
            with _text(path) as stream:
                if _format(path) == "csv":
                    reader = _csv(path, stream)
                    names = next(reader, [])
                    row = next((r for r in reader if r), None)
                    first = None if row is None else dict(zip(names, row, strict=False))
                else:
                    line = next((x for x in stream if x.strip()), "")
                    first = _object(path, 1, line) if line else None
                    names = list(first or {})
    if first is None:
        raise InputError(f"{path} holds no row: give a rollout or a prompt a row")
    if len(set(names)) != len(names):
        raise InputError(f"{path} names a column twice: {', '.join(names)}")
    return names, first


def chunks(path: Path, wanted: Sequence[str], rows: int = ROWS) -> Iterator[Chunk]:
    """The columns `wanted`, `rows` rows at a time. Raises InputError where the file is damaged, naming the row."""
    read = {"csv": _csv_chunks, "json": _json_chunks, "parquet": _parquet_chunks}[_format(path)]
    with _sound(path):
        yield from read(path, list(wanted), rows)


def _format(path: Path) -> str:
    kind = FORMATS.get(Path(path.name.removesuffix(".gz")).suffix.lower(), "")
    return "" if kind == "parquet" and path.suffix == ".gz" else kind


@contextmanager
def _sound(path: Path) -> Iterator[None]:
    """Turns what a damaged file raises into a refusal."""
    try:
        with sound(str(path)):
            yield
    except (ValueError, TypeError, LookupError, NotImplementedError) as error:  # what pyarrow's own errors derive from
        if type(error).__module__.startswith("pyarrow"):
            raise InputError(f"{path} is not a whole Parquet file ({error}): write it again") from error
        raise


def _text(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return open(path, encoding="utf-8-sig", newline="")


def _csv(path: Path, stream: IO[str]) -> Any:
    csv.field_size_limit(1 << 30)  # whole completions stand in one field
    return csv.reader(stream, delimiter="\t" if ".tsv" in path.suffixes else ",")


def _csv_chunks(path: Path, wanted: list[str], rows: int) -> Iterator[Chunk]:
    with _text(path) as stream:
        reader = _csv(path, stream)
        names = next(reader)
        _present(path, wanted, names)
        index = [names.index(name) for name in wanted]
        pick = itemgetter(*index, index[0])  # one index more, so that a single column is a tuple too
        row = 1
        while block := list(islice(reader, rows)):
            block = [cells for cells in block if cells]
            if set(map(len, block)) - {len(names)}:
                bad = next(i for i, cells in enumerate(block) if len(cells) != len(names))
                raise InputError(
                    f"{path}, row {row + bad} has {len(block[bad])} of {len(names)} columns: truncated or badly quoted"
                )
            if block:
                picked = list(zip(*map(pick, block), strict=True))
                yield Chunk(str(path), row, dict(zip(wanted, picked, strict=False)), len(block))
            row += len(block)


def _json_chunks(path: Path, wanted: list[str], rows: int) -> Iterator[Chunk]:
    with _text(path) as stream:
        row = 1
        while lines := list(islice(stream, rows)):
            lines = [line for line in lines if not line.isspace()]
            if not lines:
                continue
            try:
                found = json.loads(f"[{','.join(lines)}]")  # one call for all: a third faster than line by line
            except (ValueError, RecursionError):
                found = []
            if len(found) != len(lines) or not all(type(x) is dict for x in found):
                found = [_object(path, row + i, line) for i, line in enumerate(lines)]
            try:
                columns = {name: [x[name] for x in found] for name in wanted}
            except KeyError as error:
                bad = next(i for i, x in enumerate(found) if error.args[0] not in x)
                raise InputError(f"{path}, row {row + bad} has no {error.args[0]!r}: every row needs it") from None
            yield Chunk(str(path), row, columns, len(lines))
            row += len(lines)


def _object(path: Path, row: int, line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}, row {row} is not JSON ({error}): truncated? Give one JSON object a line") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}, row {row} is not a JSON object: give one JSON object a line")
    return found


def _parquet_chunks(path: Path, wanted: list[str], rows: int) -> Iterator[Chunk]:
    file = _parquet().ParquetFile(path)
    _present(path, wanted, file.schema_arrow.names)
    row = 1
    for batch in file.iter_batches(batch_size=8 * rows, columns=wanted):
        columns = {name: _from_arrow(batch.column(name)) for name in wanted}
        yield Chunk(str(path), row, columns, batch.num_rows)
        row += batch.num_rows


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


def _present(path: Path, wanted: Sequence[str], names: Sequence[str]) -> None:
    for name in wanted:
        if name not in names:
            raise InputError(f"{path} has no column {name!r} as the first file has: diagnose such files apart")


def _parquet() -> Any:
    try:
        return importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise InputError('Parquet needs pyarrow: pip install "ebpo-sim[diagnose]", or write CSV or JSONL') from error
