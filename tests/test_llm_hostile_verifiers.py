"""Verifier workers under hostile functions and answers: limits hold, the count is right, nothing is left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # llm runs from the checkout; it is not installed

from llm.tasks import Cell, Problem, Verifier, make_verifier, workers
from llm.tasks.workers import OUTPUT_BYTES, Worker

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what Linux alone contains")
HOSTILE = f"{Path(__file__).with_name('hostile_verifier.py')}:f"


@pytest.fixture
def one() -> Iterator[Verifier]:
    """A worker with a limit of half a second and 256 megabytes."""
    with make_verifier(HOSTILE, seconds=0.5, memory_mb=256) as made:
        yield made


def judged(verifier: Verifier, texts: list[str]) -> tuple[list[float], dict[str, int]]:
    """Scores, and failures since the call began that are not none."""
    before = dict(verifier.failures)
    found = verifier.scores(texts, [Problem("?", "g", Cell("t", 1))] * len(texts))
    return found, {kind: n - before[kind] for kind, n in verifier.failures.items() if n > before[kind]}


def running(pids: list[int]) -> list[int]:
    """Those that run, zombies left out."""

    def runs(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
        except OSError:
            return False

    return [pid for pid in pids if runs(pid)]


def noted(path: Path, count: int = 1) -> list[int]:
    """The process ids in a file, once there are so many."""
    until = time.monotonic() + 10
    while not path.exists() or len(path.read_text().split()) < count:
        assert time.monotonic() < until
        time.sleep(0.02)
    return [int(pid) for pid in path.read_text().split()]


def all_end(pids: list[int], within: float) -> bool:
    until = time.monotonic() + within
    while running(pids) and time.monotonic() < until:
        time.sleep(0.02)
    return not running(pids)


@linux
@pytest.mark.parametrize("what", ["bytes 300", "shared 300"])
def test_an_answer_that_exceeds_the_memory_scores_0(one: Verifier, what: str) -> None:
    """Guards the machine: private and shared memory beyond the limit fail at once under a kind of their own."""
    assert judged(one, [what, "bytes 20", "good"]) == ([0.0, 1.0, 1.0], {"memory": 1})
    assert "memory" in one.examples["memory"]


@linux
def test_a_childs_memory_is_limited_too(one: Verifier) -> None:
    """Guards the way around: a process the function starts has the same bound."""
    with make_verifier(HOSTILE, seconds=10.0, memory_mb=256) as verifier:
        assert judged(verifier, ["child 1", "child 600"]) == ([1.0, 0.0], {"raised": 1})


@linux
def test_memory_that_earlier_answers_keep_changes_no_verdict() -> None:
    """Guards the order: with what others leave behind, little or much, an answer has the memory of the first."""
    with make_verifier(HOSTILE, seconds=10.0, memory_mb=64) as verifier:
        assert judged(verifier, ["keep 15"] * 8 + ["keep 7", "bytes 59"]) == ([1.0] * 10, {})
        # math-verify takes an exception, this one too, for "not equal"
        assert judged(verifier, ["keep 15"] * 3 + ["swallow 40"]) == ([1.0] * 4, {})


def test_without_a_limit_of_memory_there_is_none() -> None:
    with make_verifier(HOSTILE, seconds=10.0, memory_mb=0) as verifier:
        assert judged(verifier, ["bytes 300"]) == ([1.0], {})


def test_a_file_has_a_largest_size(one: Verifier, tmp_path: Path) -> None:
    """Guards the disk; the limit raises inside the function, whose other verdicts stand."""
    assert judged(one, [f"file {tmp_path / 'large'}", "good"]) == ([0.0, 1.0], {"raised": 1})
    assert (tmp_path / "large").stat().st_size <= 1 << 30


def test_what_is_printed_is_cut(one: Verifier, capfd: pytest.CaptureFixture[str]) -> None:
    """Guards the terminal and the log: the first bytes are shown, the rest is dropped, and no verdict changes."""
    with one:
        assert judged(one, ["surrogate", "print 3", "good"]) == ([1.0] * 3, {})
        assert judged(one, ["print_ever", "print 1", "good"]) == ([0.0, 1.0, 1.0], {"timed_out": 1})
    said = capfd.readouterr()
    assert said.out == ""
    assert OUTPUT_BYTES <= len(said.err.encode()) <= OUTPUT_BYTES + 100
    assert said.err.startswith(r"\ud800") and said.err.rstrip().endswith("is dropped]")


@linux
@pytest.mark.parametrize("what", ["session", "daemon_hang"])
def test_a_time_limit_ends_what_left_the_session(one: Verifier, tmp_path: Path, what: str) -> None:
    """Guards the machine: children in a session of their own, and those without a parent, are gone at the verdict."""
    assert judged(one, [f"{what} {tmp_path / 'pids'}"]) == ([0.0], {"timed_out": 1})
    assert running(noted(tmp_path / "pids")) == []


@linux
def test_what_an_answer_leaves_without_a_parent_ends_soon(tmp_path: Path) -> None:
    """Guards against a process a sample: a daemon goes within seconds, or with the verifier; a forked verdict at once.

    Nothing is counted: the function itself gave its verdict.
    """
    with make_verifier(HOSTILE, seconds=10.0) as verifier:
        assert judged(verifier, [f"daemon {tmp_path / 'pids'}"] * 3) == ([1.0] * 3, {})
        assert all_end(noted(tmp_path / "pids", 3), within=8.0)
        texts = [f"fork_and_exit {tmp_path / 'forks'}", f"fork_and_return {tmp_path / 'forks'}"]
        assert judged(verifier, texts) == ([1.0] * 2, {})
        assert all_end(noted(tmp_path / "forks", 2), within=5.0)
        judged(verifier, [f"daemon {tmp_path / 'last'}"])
        pids = noted(tmp_path / "last")
    assert running(pids) == []


@linux
def test_nothing_outlives_a_killed_program(tmp_path: Path) -> None:
    """Guards kill -9: the worker sees the end of the program and takes its processes along, hung and detached ones."""
    program = (
        f"import sys\nsys.path.insert(0, {str(Path(workers.__file__).parent)!r})\n"  # the one module, without torch
        f"import workers\nw = workers.Worker('w', {HOSTILE!r}, 60.0)\nprint(w.ask('pid', '')['score'], flush=True)\n"
        f"w.ask({'session ' + str(tmp_path / 'pids')!r}, '')\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    pids = [int(float(parent.stdout.readline()))]
    pids += noted(tmp_path / "pids")
    parent.kill()
    parent.wait()
    parent.stdout.close()
    gone = all_end(pids, within=10.0)
    for pid in running(pids):
        os.kill(pid, signal.SIGKILL)
    assert gone


CHANNEL = ["garbage", "partial", "list", "number", "deep", "lie", "null", "newline", "other", "flood", "close", "patch"]


@pytest.mark.parametrize("what", CHANNEL)
def test_anything_but_a_verdict_is_a_failure(one: Verifier, what: str) -> None:
    """Guards the training: whatever is on the channel of the verdicts scores 0, is counted, and harms no other."""
    assert judged(one, [what, "good", what + " again", "good"]) == ([0.0, 1.0, 0.0, 1.0], {"raised": 2})


@linux
def test_deaths_and_stops_cost_one_sample() -> None:
    """Guards the batch: whoever of the worker's processes is lost, the sample scores 0 and the next is judged."""
    with make_verifier(HOSTILE, seconds=1.0) as verifier:
        for what in ("segv", "swap", "kill_loader", "kill_keeper"):
            assert judged(verifier, [what, "good"]) == ([0.0, 1.0], {"raised": 1}), what
        assert judged(verifier, ["stop", "good"]) == ([0.0, 1.0], {"timed_out": 1})


@linux
def test_what_comes_late_hits_no_other_sample() -> None:
    """Guards the next sample: a reply, and a death, after a verdict change none."""
    with make_verifier(HOSTILE, seconds=10.0) as verifier:
        for what in ("later", "kill_keeper_later"):
            assert judged(verifier, [what]) == ([1.0], {})
            time.sleep(0.3)
            assert judged(verifier, ["good", "sleep 0.1", "pid"])[1] == {}
        assert judged(verifier, ["later", "sleep 0.2", "good"])[0][2] == 1.0


def test_a_reply_of_the_worker_that_is_none_ends_nothing() -> None:
    """Guards the program's own end of the line: no JSON, and JSON that is no verdict, are a lost worker."""
    worker = Worker("w", HOSTILE, 5.0)
    for line in (b"nonsense\n", b"[1]\n", b'{"x": 1}\n', b"\xff\n"):
        worker.start()
        assert worker._running is not None
        process, link = worker._running
        ours, theirs = socket.socketpair()
        theirs.sendall(line)
        link.close()
        worker._running = process, ours
        assert worker.ask("good", "g") == {"score": 1.0}
        theirs.close()
    worker.stop()


def test_verdicts_do_not_depend_on_workers_or_order() -> None:
    """Guards reproducibility: every class of answer, forwards and backwards, by one worker and by three."""
    texts = [
        "good",
        "loop",
        "bytes 100",
        "garbage",
        "segv",
        "keep 15",
        "bytes 45",
        "good",
        "keep 15",
        "loop",
        "sleep 0",
    ]
    found = []
    for count in (1, 3):
        with make_verifier(HOSTILE, seconds=1.0, workers=count, memory_mb=64) as verifier:
            found.append(judged(verifier, texts))
            scores, failed = judged(verifier, texts[::-1])
            found.append((scores[::-1], failed))
    assert found == [found[0]] * 4
    assert found[0][1] == {"timed_out": 2, "memory": 1, "raised": 2} or not sys.platform.startswith("linux")
