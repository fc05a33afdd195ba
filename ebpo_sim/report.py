"""Everything that leaves a study: text on the terminal, tables, JSON, figures, progress. The only place that prints."""

from __future__ import annotations

import csv
import errno
import io
import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tabulate import tabulate
from tqdm import tqdm

from ebpo_sim.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = Mapping[str, Any]
Columns = Sequence[str | tuple[str, str | Callable[[Row], str]]]  # header and what stands below it, where it differs
PARTIAL = ".ebpo-partial"  # ends the names of files that are being written
LONGEST_LINE = 2000  # characters of a refusal
NARROWEST = 80  # characters a table may always take
WIDE: ContextVar[bool] = ContextVar("wide", default=False)  # --wide: tables show all columns


class ReaderGone(BrokenPipeError):
    """Nobody reads standard output any more."""


def say(text: str = "") -> None:
    """A line for the reader, on standard output, above any progress bar. Raises ReaderGone."""
    try:
        tqdm.write(text)
    except BrokenPipeError as error:
        raise ReaderGone from error


def note(text: str) -> None:
    """Something the reader should know, on standard error: standard output may be read by a program."""
    _one_line(text)


def fail(text: str) -> None:
    """A refusal, on standard error."""
    _one_line(f"error: {text}")


def _one_line(text: str) -> None:
    """One line whatever is in it, as text that no terminal obeys."""
    line = printable(" ".join(part.strip() for part in text.splitlines()))
    if len(line) > LONGEST_LINE:
        line = f"{line[: LONGEST_LINE // 2]} ... {line[-LONGEST_LINE // 2 :]}"
    with suppress(OSError, ValueError):  # where standard error is closed, the exit code has to do
        print(line, file=sys.stderr)


def printable(text: str) -> str:
    """The text with what is not printable (line breaks, escape sequences, lone surrogates) as backslash escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def take_any_text() -> None:
    """Standard output and error that never refuse a character: one the terminal lacks is written as its escape."""
    if sys.stdout is None:  # closed by the caller
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for the rest of the process
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def flush() -> None:
    """Deliver what was said. Raises ReaderGone, or an OSError that names standard output."""
    try:
        sys.stdout.flush()
    except BrokenPipeError as error:
        raise ReaderGone from error
    except OSError as error:
        raise OSError(error.errno, error.strerror, "standard output") from error


def discard_output() -> None:
    """Drop what standard output could not take, now and at the end of the process."""
    with suppress(OSError, ValueError):  # not a file: nothing is kept back
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def progress(total: int, title: str) -> tqdm[Any]:
    """A progress bar on standard error: shown on a terminal, silent in a pipe."""
    return tqdm(total=total, desc=title, unit="", leave=False, disable=not sys.stderr.isatty())


def width() -> int | None:
    """Characters a line may have: COLUMNS or the terminal's, at least 80; None, no limit, in a pipe and with --wide."""
    given = os.environ.get("COLUMNS", "")
    if WIDE.get() or not ((given.isdecimal() and int(given)) or sys.stdout.isatty()):
        return None
    return max(NARROWEST, shutil.get_terminal_size().columns)


def text_table(
    headers: Sequence[str], rows: Iterable[Sequence[str]], align: Sequence[str] | None = None, drop: Sequence[str] = ()
) -> str:
    """A plain table, columns aligned as given ("left", "right"). Where it is wider than `width`, the columns of the
    headers `drop` go one after the other, then the last ones, but for the first two, and a line below names them."""
    lines, kept, gone, limit = list(rows), list(range(len(headers))), list[str](), width()
    while True:
        shown, body = [headers[i] for i in kept], [[line[i] for i in kept] for line in lines]
        sides = align and [align[i] for i in kept]
        table = tabulate(body, headers=shown, tablefmt="simple", colalign=sides, disable_numparse=True)
        if limit is None or len(kept) < 3 or max(map(len, table.splitlines())) <= limit:
            break
        name = next((h for h in drop if h in shown[2:]), shown[-1])
        kept, gone = [i for i in kept if i < 2 or headers[i] != name], [*gone, name]
    return f"{table}\nNot shown: {'; '.join(dict.fromkeys(gone))} (--wide shows all)." if gone else table


def columns_table(rows: Iterable[Row], columns: Columns, drop: Sequence[str] = ()) -> str:
    """A plain table of some columns, words to the left and numbers to the right: the text or whole number of a name,
    `number` of a float, "±name" with the error in name_se, or what a function makes of the row. drop: `text_table`."""
    pairs = [(column, column) if isinstance(column, str) else column for column in columns]
    lines = [[_cell(row, key) for _, key in pairs] for row in rows]
    align = ["left" if any(cell[:1].isalpha() for cell in column) else "right" for column in zip(*lines, strict=True)]
    return text_table([header for header, _ in pairs], lines, align or None, drop)


def _cell(row: Row, key: str | Callable[[Row], str]) -> str:
    if callable(key):
        return key(row)
    if key.startswith("±"):
        return with_error(row[key[1:]], row[f"{key[1:]}_se"])
    return str(row[key]) if isinstance(row[key], str | int) else number(row[key])


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
    try:
        nearest = next((p for p in (folder, *folder.absolute().parents) if _there(p)), Path("."))
        if not nearest.exists():
            raise OSError(errno.ENOENT, "a symbolic link that leads nowhere or in a circle")
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except (OSError, ValueError) as error:  # ValueError: no such name can be, as one with a null character
        raise InputError(
            f"--out {out!r} cannot be written ({getattr(error, 'strerror', None) or error}): name a folder you own"
        ) from error
    return folder


def _there(path: Path) -> bool:
    """Whether anything has this name, be it a dead link. Raises OSError or ValueError where nothing ever could."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


@contextmanager
def locked(folder: Path, *inside: str) -> Iterator[None]:
    """Hold the output folder, made if need be: a second run there is refused instead of mixing its files with ours.

    The lock lies on the folder itself and ends with the process, however it ends; where the system has no such locks
    (Windows, some network disks) nothing is held. Temporary files that a killed run left in the folder, or in those of
    its folders named `inside`, are removed; so is the folder, where it was made here and nothing was written. Do not
    hold a folder twice. Raises InputError where another process holds it.
    """
    made = [p for p in (folder, *folder.parents) if not p.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with _lock(folder) as held:
            if held:
                for place in (folder, *(folder / name for name in inside)):
                    _sweep(place)
            yield
    finally:
        with suppress(OSError):  # the first that is not empty ends it
            for path in made:
                path.rmdir()


@contextmanager
def _lock(folder: Path) -> Iterator[bool]:
    """Whether a lock could be had; see `locked`."""
    if sys.platform == "win32":
        yield False
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        held = True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"--out {str(folder)!r} is in use by another run: wait for it, or name another folder"
            ) from error
        except OSError:  # a file system without locks
            held = False
        yield held
    finally:
        os.close(handle)


def _sweep(folder: Path) -> None:
    """Remove what writes that were killed left behind. Only under the folder's lock: nobody else is writing there."""
    for path in folder.glob(f".*{PARTIAL}"):
        with suppress(OSError):
            path.unlink()


def write_bytes(path: Path, content: bytes) -> None:
    """Write to a temporary file beside `path`, then rename: a reader never sees half a file, even after a power cut.

    Raises OSError with the path in it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())  # else the name could reach the disk before the content
            mask = os.umask(0)
            os.umask(mask)
            os.chmod(temporary, 0o666 & ~mask)
            os.replace(temporary, path)
        except BaseException:
            with suppress(FileNotFoundError):  # interrupted after the renaming
                os.unlink(temporary)
            raise
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """One long table; the columns are the first row's keys, an empty cell is a quantity that does not exist."""
    writer = csv.DictWriter(text := io.StringIO(), fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(path, text.getvalue().encode())


def to_json(content: Any) -> str:
    """JSON text; a NaN anywhere is an error, quantities that do not exist are None."""
    return json.dumps(content, indent=1, allow_nan=False)


def save_figure(path: Path, figure: Figure) -> None:
    """The figure as a PNG without a date in it: same data, same bytes."""
    write_bytes(path, png(figure))


def png(figure: Figure, dpi: int = 130) -> bytes:
    """The figure's bytes."""
    figure.savefig(content := io.BytesIO(), format="png", dpi=dpi, metadata={"Software": None})
    return content.getvalue()


def write_files(folder: Path, files: Mapping[str, Any]) -> None:
    """Every file by its name: the rows of a table as CSV, text as it is, a figure as a PNG."""
    for name, content in files.items():
        if isinstance(content, str):
            write_bytes(folder / name, content.encode())
        elif name.endswith(".csv"):
            write_csv(folder / name, content)
        else:
            save_figure(folder / name, content)
