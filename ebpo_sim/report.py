"""Everything that leaves a study: text on the terminal, tables, JSON, figures, progress. The only place that prints."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tabulate import tabulate
from tqdm import tqdm

from ebpo_sim.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = Mapping[str, Any]


def say(text: str = "") -> None:
    """A line for the reader, on standard output, above any progress bar."""
    tqdm.write(text)


def fail(text: str) -> None:
    """A refusal, on standard error."""
    print(f"error: {printable(text)}", file=sys.stderr)


def printable(text: str) -> str:
    """The text with what is not printable (line breaks, escape sequences, lone surrogates) as backslash escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def progress(total: int, title: str) -> tqdm[Any]:
    """A progress bar on standard error: shown on a terminal, silent in a pipe."""
    return tqdm(total=total, desc=title, unit="", leave=False, disable=not sys.stderr.isatty())


def text_table(headers: Sequence[str], rows: Iterable[Sequence[str]], align: Sequence[str] | None = None) -> str:
    """A plain table, columns aligned as given ("left", "right")."""
    return tabulate(list(rows), headers=headers, tablefmt="simple", colalign=align, disable_numparse=True)


def number(x: float | None, digits: int = 3) -> str:
    """A number for a table; a dash where there is none."""
    return "-" if x is None or math.isnan(x) else f"{x:.{digits}f}"


def exists(x: float) -> float | None:
    """NaN as None: a quantity that does not exist is null in JSON and an empty cell in CSV."""
    return None if math.isnan(x) else x


def with_error(value: float | None, se: float | None) -> str:
    """value ± standard error, to the error's leading digit."""
    if value is None or se is None or math.isnan(value):
        return "-"
    digits = 3 if se <= 0 else min(6, max(1, -math.floor(math.log10(se))))
    return f"{value:.{digits}f} ± {se:.{digits}f}"


def writable_folder(out: str) -> Path:
    """The output folder: refused before any work when it could not be written, created with its first file."""
    folder = Path(out)
    nearest = next((p for p in (folder, *folder.absolute().parents) if p.exists()), Path("."))
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise InputError(
            f"--out {out!r} cannot be written ({error.strerror or error}): name a folder you own"
        ) from error
    return folder


def write_bytes(path: Path, content: bytes) -> None:
    """Write to a temporary file beside `path`, then rename: a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """One long table; the columns are the first row's keys, an empty cell is a quantity that does not exist."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(path, text.getvalue().encode())


def to_json(content: Any) -> str:
    """JSON text; a NaN anywhere is an error, quantities that do not exist are None."""
    return json.dumps(content, indent=1, allow_nan=False)


def save_figure(path: Path, figure: Figure) -> None:
    """The figure as a PNG without a date in it: same data, same bytes."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=130, metadata={"Software": None})
    write_bytes(path, content.getvalue())
