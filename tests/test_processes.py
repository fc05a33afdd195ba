"""How programs end, tried with real processes: signals, workers, locks, closed pipes, full disks, ASCII terminals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ebpo_sim import report
from ebpo_sim.errors import InputError
from ebpo_sim.pool import workers

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and locks of POSIX")
ROOT = Path(__file__).resolve().parents[1]
POOL = """
import os, sys, time
from pathlib import Path
from ebpo_sim import cli, report
from ebpo_sim.pool import workers

def wait(place):
    Path(place, str(os.getpid())).touch()
    time.sleep(60)

def main(argv):
    with report.locked(Path(argv[0])), workers(2) as pool:
        list(pool.map(wait, [argv[0]] * 2))

if __name__ == "__main__":
    cli.run(main)
"""


def start(program: str, *arguments: object, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, program, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}  # type: ignore[dict-item]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    options.setdefault("preexec_fn", _interruptible)
    return subprocess.Popen(command, env=environment, **{**pipes, **options})  # type: ignore[call-overload,no-any-return]


def _interruptible() -> None:
    """A shell's background jobs inherit that Ctrl-C is ignored; a program of these tests does not."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def until(true: Callable[[], bool], seconds: float = 30.0) -> bool:
    """Whether it came true in time."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def alive(pid: int) -> bool:
    """Whether the process runs: one that is a zombie has ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    def write(text: str) -> str:
        path = tmp_path / "program.py"
        path.write_text(text, encoding="utf-8")
        return str(path)

    yield write


@pytest.mark.parametrize(
    ("number", "whole_group", "code", "line"),
    [
        (signal.SIGTERM, False, 143, "error: terminated; files already written are whole\n"),
        (signal.SIGINT, True, 130, "error: interrupted; files already written are whole\n"),
        (signal.SIGKILL, False, -9, None),
    ],
    ids=["TERM", "INT of the group", "KILL"],
)
def test_no_worker_outlives_its_study(
    number: int, whole_group: bool, code: int, line: str | None, script: Callable[[str], str], tmp_path: Path
) -> None:
    """Guards the machine: however a study ends, its two busy workers end, with one line at most; the lock is free."""
    folder = tmp_path / "out"
    with start(script(POOL), folder, start_new_session=True) as process:
        try:
            assert until(lambda: folder.is_dir() and len(list(folder.iterdir())) == 2)
            pids = [int(path.name) for path in folder.iterdir()]
            assert all(map(alive, pids))
            (os.killpg if whole_group else os.kill)(process.pid, number)
            _, said = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == code
    assert line is None or said == line
    assert until(lambda: not any(map(alive, pids)), 10)
    with report.locked(folder):
        pass


def _end(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_one_line() -> None:
    """Guards the machine's own killing, for memory: refused with a remedy, not a traceback of the pool."""
    with pytest.raises(InputError, match="one of 2 worker processes was killed"), workers(2) as pool:
        assert pool is not None
        list(pool.map(_end, range(2)))


def test_one_worker_is_no_process() -> None:
    """Guards --threads 1: the caller works itself."""
    with workers(1) as pool:
        assert pool is None


HOLD = """
import sys, time
from pathlib import Path
from ebpo_sim import cli, report

def main(argv):
    with report.locked(Path(argv[0]), "cells"):
        report.say("held"); report.flush()
        time.sleep(float(argv[1]))

cli.run(main)
"""


def test_one_run_a_folder_and_kills_leave_nothing(script: Callable[[str], str], tmp_path: Path) -> None:
    """Guards the lock: a second process is refused in one line, a kill frees it, and what it was writing is swept."""
    program, folder = script(HOLD), tmp_path / "out"
    with start(program, folder, 60) as first:
        try:
            assert first.stdout is not None and first.stdout.readline() == "held\n"
            with start(program, folder, 0) as second:
                out, said = second.communicate(timeout=30)
            assert (second.returncode, out, said.count("\n")) == (2, "", 1)
            assert said.startswith("error: --out ") and "is in use by another run" in said
            with pytest.raises(InputError, match="in use"), report.locked(folder):
                pass
        finally:
            first.kill()
    (folder / "cells").mkdir()
    for name in (".table.csv.abc", "cells/.x.json.abc"):
        (folder / f"{name}{report.PARTIAL}").write_bytes(b"half")
    (folder / ".mine").write_bytes(b"not ours")
    with report.locked(folder, "cells"):
        assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*")) == [".mine", "cells"]


def test_a_folder_made_for_nothing_is_gone(tmp_path: Path) -> None:
    """Guards refusals after the lock: folders made for it go, what was there or was written stays."""
    with pytest.raises(InputError), report.locked(tmp_path / "a" / "b"):
        raise InputError("refused")
    assert list(tmp_path.iterdir()) == []
    with report.locked(tmp_path / "c" / "d"):
        report.write_bytes(tmp_path / "c" / "d" / "kept", b"")
    with report.locked(tmp_path / "c"):
        pass
    assert (tmp_path / "c" / "d" / "kept").exists()


SAY = """
import sys
from ebpo_sim import cli, report

def main(argv):
    for _ in range(int(argv[0])):
        report.say("0.5 ± 0.1 \\ud800")

cli.run(main)
"""


@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_reader_that_leaves_ends_the_program_silently(lines: int, script: Callable[[str], str]) -> None:
    """Guards `| head`: code 141 as the shell gives for SIGPIPE, and not a word, however much is left to say."""
    reading, writing = os.pipe()
    with start(script(SAY), lines, stdout=writing) as process:
        os.close(writing)
        os.close(reading)
        _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device here")
@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_full_disk_below_standard_output_is_one_line(lines: int, script: Callable[[str], str]) -> None:
    """Guards redirected output: code 2 and the reason."""
    with open("/dev/full", "w") as full, start(script(SAY), lines, stdout=full) as process:
        _, said = process.communicate(timeout=30)
    assert (process.returncode, said.count("\n")) == (2, 1)
    assert said.startswith("error: ") and said.endswith("No space left on device\n")


def test_an_ascii_terminal_shows_escapes(script: Callable[[str], str]) -> None:
    """Guards terminals without the paper's letters: nothing is refused, what they lack is written as its escape."""
    with start(script(SAY), 1, env={"PYTHONIOENCODING": "ascii"}) as process:
        assert process.communicate(timeout=30) == ("0.5 \\xb1 0.1 \\ud800\n", "")
    assert process.returncode == 0


def test_output_paths_of_every_kind(tmp_path: Path) -> None:
    """Guards --out: what cannot be a folder is refused before any work, in one line that names it."""
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    bad = ["file", "file/below", "loop", "loop/below", "dangling", "n" * 300, "a\0b", "\ud800", "d/" * 3000]
    for name in bad:
        with pytest.raises(InputError, match="cannot be written") as refusal:
            report.writable_folder(f"{tmp_path}/{name}")
        assert "\n" not in str(refusal.value)
    for name in ("", "new/one", "n" * 200):
        assert report.writable_folder(str(tmp_path / name)) == tmp_path / name
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dangling", "file", "loop"]


@pytest.mark.parametrize("name", ["folder", "file/below", "n" * 250])
def test_a_file_that_cannot_be_written_is_named(name: str, tmp_path: Path) -> None:
    """Guards what `cli.run` prints: the path that was asked for, not that of a temporary file; nothing is left."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match=name) as refusal:
        report.write_bytes(tmp_path / name, b"content")
    assert refusal.value.filename == str(tmp_path / name) and refusal.value.strerror
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]
