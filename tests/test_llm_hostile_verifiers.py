"""Verifier workers under hostile functions and answers: limits hold, the count is right, nothing is left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # llm runs from the checkout; it is not installed

from ebpo_sim import InputError
from llm.run import verifier_of
from llm.settings import Settings
from llm.tasks import Cell, Problem, Verifier, make_verifier, verifiers, workers
from llm.tasks.final_answer import TAIL, compared, last_box
from llm.tasks.verifiers import KINDS, ProcessVerifier
from llm.tasks.workers import OUTPUT_BYTES, Worker

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what Linux alone contains")
HOSTILE = '''
import ctypes, json, mmap, os, signal, stat, subprocess, sys, threading, time

kept = []

def say(data):
    """Write to every socket this process has."""
    for fd in range(3, 100):
        try:
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                os.write(fd, data)
        except OSError:
            pass

def note(path):
    with open(path, "a") as file:
        file.write(f"{os.getpid()} ")

def keeper():
    stat = open(f"/proc/{os.getppid()}/stat").read()
    return int(stat.rpartition(")")[2].split()[1])

def f(answer, gold):
    """Does what the answer says."""
    what, _, rest = answer.partition(" ")
    if what == "loop" or (what == "once" and not os.path.exists(rest)):
        open(rest, "a").close() if rest else None
        while True:
            pass
    if what == "sleep":
        time.sleep(float(rest))
    if what == "bytes":
        bytearray(int(rest) << 20)
    if what == "shared":
        mmap.mmap(-1, int(rest) << 20)
    if what == "keep":
        kept.append(bytearray(int(rest) << 20))
    if what == "child":
        subprocess.run([sys.executable, "-c", f"bytearray({rest} << 20)"], check=True)
    if what == "file":
        with open(rest, "wb") as file:
            file.seek(1 << 31)
            file.write(b"x")
    if what == "print":
        for _ in range(int(rest)):
            print("y" * 999_999)
            sys.stderr.write("z" * 1_000_000)
    if what == "print_ever":
        while True:
            os.write(1, b"y" * 65536)
    if what == "surrogate":
        print(chr(0xd800))
    if what == "session":
        code = f"import os, time; open({rest!r}, 'a').write(f'{os.getpid()} '); time.sleep(600)"
        subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
        while True:
            time.sleep(1)
    if what in ("daemon", "daemon_hang"):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                note(rest)
                os.closerange(0, 100)
                while True:
                    time.sleep(1)
            os._exit(0)
        os.wait()
        while what == "daemon_hang":
            pass
    if what == "fork_and_exit" and os.fork() == 0:
        note(rest)
        sys.exit(0)
    if what == "fork_and_return" and os.fork() == 0:
        note(rest)
        return 7
    if what == "swap" and os.fork():
        os._exit(0)
    replies = {"garbage": bytes([255, 0]) + b" garbage", "partial": b'{"score":', "list": b"[1, 2]", "number": b"7",
               "deep": b"[" * 60_000, "lie": b'{"score": 7.0, "spent": false}', "null": b"null", "newline": b"",
               "other": b'{"score": 7.0, "spent": false, "nonce": "0123456789abcdef"}'}
    if what in replies:
        say(replies[what] + b"\\n")
    while what == "flood":
        say(b"x" * 60_000)
    if what == "later":
        threading.Timer(0.05, say, [replies["other"] + b"\\n"]).start()
    if what == "close":
        os.closerange(0, 1000)
    if what == "patch":
        json.dumps = None
    if what == "kill_loader":
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(5)
    if what == "kill_keeper":
        os.kill(keeper(), signal.SIGKILL)
        time.sleep(5)
    if what == "kill_keeper_later":
        threading.Timer(0.05, os.kill, [keeper(), signal.SIGKILL]).start()
    if what == "segv":
        ctypes.string_at(0)
    if what == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(5)
    if what == "pid":
        return os.getpid()
    return 1.0
'''


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("hostile") / "hostile_file.py"
    path.write_text(HOSTILE)
    return f"{path}:f"


@pytest.fixture
def one(hostile: str) -> Iterator[Verifier]:
    """A worker with a limit of half a second and 256 megabytes."""
    with make_verifier(hostile, seconds=0.5, memory_mb=256) as made:
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
    assert judged(one, [what, "bytes 60", "good"]) == ([0.0, 1.0, 1.0], {"memory": 1})
    assert "memory" in one.examples["memory"]


@linux
def test_a_childs_memory_is_limited_too(one: Verifier, hostile: str) -> None:
    """Guards the way around: a process the function starts has the same bound."""
    with make_verifier(hostile, seconds=10.0, memory_mb=256) as verifier:
        assert judged(verifier, ["child 1", "child 600"]) == ([1.0, 0.0], {"raised": 1})


@linux
def test_memory_that_earlier_answers_keep_changes_no_verdict(hostile: str) -> None:
    """Guards the order: what each answer leaves behind would end the fourth, which has the memory of the first."""
    with make_verifier(hostile, seconds=10.0, memory_mb=256) as verifier:
        assert judged(verifier, ["keep 60"] * 8 + ["keep 20"] * 10 + ["bytes 230"]) == ([1.0] * 19, {})


def test_without_a_limit_of_memory_there_is_none(hostile: str) -> None:
    with make_verifier(hostile, seconds=10.0, memory_mb=0) as verifier:
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
def test_what_an_answer_leaves_without_a_parent_ends_soon(hostile: str, tmp_path: Path) -> None:
    """Guards against a process a sample: a daemon goes within seconds, or with the verifier; a forked verdict at once.

    Nothing is counted: the function itself gave its verdict.
    """
    with make_verifier(hostile, seconds=10.0) as verifier:
        assert judged(verifier, [f"daemon {tmp_path / 'pids'}"] * 3) == ([1.0] * 3, {})
        assert all_end(noted(tmp_path / "pids", 3), within=8.0)
        texts = [f"fork_and_exit {tmp_path / 'forks'}", f"fork_and_return {tmp_path / 'forks'}"]
        assert judged(verifier, texts) == ([1.0] * 2, {})
        assert all_end(noted(tmp_path / "forks", 2), within=5.0)
        judged(verifier, [f"daemon {tmp_path / 'last'}"])
        pids = noted(tmp_path / "last")
    assert running(pids) == []


@linux
def test_nothing_outlives_a_killed_program(hostile: str, tmp_path: Path) -> None:
    """Guards kill -9: the worker sees the end of the program and takes its processes along, hung and detached ones."""
    program = (
        f"import sys\nsys.path.insert(0, {str(Path(workers.__file__).parent)!r})\n"  # the one module, without torch
        f"import workers\nw = workers.Worker('w', {hostile!r}, 60.0)\nprint(w.ask('pid', '')['score'], flush=True)\n"
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
def test_deaths_and_stops_cost_one_sample(hostile: str) -> None:
    """Guards the batch: whoever of the worker's processes is lost, the sample scores 0 and the next is judged."""
    with make_verifier(hostile, seconds=1.0) as verifier:
        for what in ("segv", "swap", "kill_loader", "kill_keeper"):
            assert judged(verifier, [what, "good"]) == ([0.0, 1.0], {"raised": 1}), what
        assert judged(verifier, ["stop", "good"]) == ([0.0, 1.0], {"timed_out": 1})


@linux
def test_what_comes_late_hits_no_other_sample(hostile: str) -> None:
    """Guards the next sample: a reply, and a death, after a verdict change none."""
    with make_verifier(hostile, seconds=10.0) as verifier:
        for what in ("later", "kill_keeper_later"):
            assert judged(verifier, [what]) == ([1.0], {})
            time.sleep(0.3)
            assert judged(verifier, ["good", "sleep 0.1", "pid"])[1] == {}
        assert judged(verifier, ["later", "sleep 0.2", "good"])[0][2] == 1.0


def test_a_reply_of_the_worker_that_is_none_ends_nothing(hostile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the program's own end of the line: no JSON, and JSON that is no verdict, are a lost worker."""
    worker = Worker("w", hostile, 5.0)
    for line in (b"nonsense\n", b"[1]\n", b'{"x": 1}\n', b"\xff\n"):
        worker.start()
        assert worker._running is not None
        process, link = worker._running
        ours, theirs = workers.socket.socketpair()
        theirs.sendall(line)
        link.close()
        worker._running = process, ours
        assert worker.ask("good", "g") == {"score": 1.0}
        theirs.close()
    worker.stop()


def test_identical_hard_answers_cost_one_limit(hostile: str) -> None:
    """Guards the step time: within a call, and over the calls that follow, a costly sample is judged once."""
    for count in (1, 2):
        with make_verifier(hostile, seconds=0.5, workers=count) as verifier:
            verifier.start()
            started = time.monotonic()
            assert judged(verifier, ["loop", "good"] * 20) == ([0.0, 1.0] * 20, {"timed_out": 20})
            assert judged(verifier, ["loop"] * 20 + ["good"]) == ([0.0] * 20 + [1.0], {"timed_out": 20})
            assert 0.5 <= time.monotonic() - started < 1.5


def test_a_hard_answer_is_tried_again_in_time(hostile: str, tmp_path: Path) -> None:
    """Guards an ordinary answer that a stall of the machine has made late: after RETRIED calls it is judged again."""
    once = f"once {tmp_path / 'tried'}"
    with make_verifier(hostile, seconds=0.5) as verifier:
        found = [judged(verifier, [once])[0][0] for _ in range(verifiers.RETRIED + 1)]
    assert found == [0.0] * verifiers.RETRIED + [1.0]


def test_the_memory_of_hard_answers_is_bounded(monkeypatch: pytest.MonkeyPatch, hostile: str) -> None:
    monkeypatch.setattr(verifiers, "REMEMBERED", 2)
    with make_verifier(hostile, seconds=0.3, workers=3) as verifier:
        judged(verifier, ["loop ", "loop  ", "loop   "])
        assert isinstance(verifier, ProcessVerifier) and len(verifier._hard) == 2


def test_distinct_hard_answers_share_the_workers(hostile: str) -> None:
    """Guards the step time: n hard answers take n limits over the number of workers, restarts included."""
    texts = [f"sleep {9 + i}" for i in range(8)]
    with make_verifier(hostile, seconds=0.4, workers=4) as verifier:
        verifier.start()
        started = time.monotonic()
        assert judged(verifier, texts) == ([0.0] * 8, {"timed_out": 8})
        assert time.monotonic() - started < 2 * 0.4 + 0.8


def test_verdicts_do_not_depend_on_workers_or_order(hostile: str) -> None:
    """Guards reproducibility: every class of answer, forwards and backwards, by one worker and by three."""
    texts = [
        "good",
        "loop",
        "bytes 300",
        "garbage",
        "segv",
        "keep 60",
        "bytes 200",
        "good",
        "keep 60",
        "loop",
        "sleep 0",
    ]
    found = []
    for count in (1, 3):
        with make_verifier(hostile, seconds=0.5, workers=count, memory_mb=256) as verifier:
            found.append(judged(verifier, texts))
            scores, failed = judged(verifier, texts[::-1])
            found.append((scores[::-1], failed))
    assert found == [found[0]] * 4
    assert found[0][1] == {"timed_out": 2, "memory": 1, "raised": 2} or not sys.platform.startswith("linux")


HARD = [
    r"\boxed{10^{10^{10}}}", r"\boxed{9^{9^{9^{9}}}}", r"\boxed{999999999!}", r"\boxed{(x+1)^{300000}}",
    r"\boxed{" + r"\sqrt{" * 300 + "3" + "}" * 301, r"\boxed{" + "{" * 3000 + "3" + "}" * 3001,
    r"\boxed{" + "(" * 60 + "3" + ")" * 60 + "}", r"\boxed{" + r"\frac{1}{1+" * 40 + "3" + "}" * 41,
    r"\boxed{" + "9" * 99_000 + "}", "9" * 99_000, r"\boxed{" + "1+" * 40_000 + "1}", r"\boxed{3\x00}" + "\x00\ud800",
    r"\boxed{" * 10_000, "{" * 90_000, r"\boxed{__import__('os').system('exit 3')}", "$" * 99_999,
]  # fmt: skip


def test_hostile_mathematics_costs_at_most_the_limit() -> None:
    """Guards the run: towers, factorials, expansions, nesting and length score 0 in time, and the others are judged."""
    pytest.importorskip("math_verify")
    with make_verifier("math", seconds=0.5, workers=2) as verifier:
        verifier.start()
        started = time.monotonic()
        texts = [text for hard in HARD for text in (hard, r"\boxed{\frac{1}{2}}")]
        scores = verifier.scores(texts, [Problem("?", "0.5", Cell("t", 1))] * len(texts))
        assert scores == [0.0, 1.0] * len(HARD)
        assert time.monotonic() - started < 0.6 * len(HARD) / 2 + 3
        assert verifier.failures["timed_out"] >= 3
        assert set(verifier.failures) == set(KINDS)


def test_pre_checks_refuse_no_normal_answer() -> None:
    """Guards right answers: neither length nor nesting is refused where the gold answer has the like."""
    pytest.importorskip("math_verify")
    from llm.tasks import math_answers

    nested = "(" * math_answers.DEEPEST + "3" + ")" * math_answers.DEEPEST
    assert math_answers._depth(nested) == math_answers.DEEPEST
    assert math_answers._depth(r"]]\left[\frac{1}{2}, (3)\right)") == 2
    long = "1" * (TAIL + 1)
    assert math_answers.check(rf"\boxed{{{long}}}", long)
    assert not math_answers.check(rf"\boxed{{{long}}}", "1")


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.lists(st.sampled_from([r"\boxed{", r"\boxed ", "{", "}", "\\", ".", " ", "3", "\n", r"\}", "x"]), max_size=14)
)
def test_the_compared_part_holds_the_same_answer(parts: list[str]) -> None:
    """Guards verdicts: only a part of a text goes to a worker, and its last box, or its end, is the text's."""
    text = "".join(parts)
    assert last_box(compared(text)) == last_box(text)
    if last_box(text) is None:
        assert compared(text) == text[-TAIL:]


def test_hard_boxes_in_different_texts_are_the_same_answer() -> None:
    """Guards the step time of answers with reasoning: what is remembered is the part that is compared."""
    pytest.importorskip("math_verify")
    with make_verifier("math", seconds=0.5) as verifier:
        started = time.monotonic()
        assert judged(verifier, [rf"By way {i}: \boxed{{9^{{9^{{9^9}}}}}}" for i in range(30)])[1] == {"timed_out": 30}
        assert time.monotonic() - started < 0.5 + 5  # one limit and a start


def test_the_settings_reach_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards --verifier-workers and --verifier-memory: their defaults, their values, and their bounds."""
    seen = []
    monkeypatch.setattr("llm.tasks.verifiers.Worker", lambda *how: seen.append(how))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    verifier_of(Settings(verifier="json:loads"))
    assert (len(seen), seen[0][2:]) == (verifiers.MOST_WORKERS, (5.0, verifiers.MEMORY_MB))
    seen.clear()
    verifier_of(Settings(verifier="json:loads", verifier_workers=7, verifier_memory=128, verifier_seconds=2.0))
    assert (len(seen), seen[0][2:]) == (7, (2.0, 128))
    with pytest.raises(InputError, match=re.escape("verifier-workers must be at least 0")):
        Settings(verifier_workers=-1)
    with pytest.raises(InputError, match="memory_mb must be 0 or from 64"):
        verifier_of(Settings(verifier="json:loads", verifier_memory=1))
