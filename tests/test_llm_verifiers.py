"""The verifiers of llm/: what counts as right, and that no text, however evil, stops or crashes the caller."""

from __future__ import annotations

import gc
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # llm runs from the checkout; it is not installed

from ebpo_sim import InputError
from llm.tasks import Cell, Problem, Verifier, make_verifier, score, workers
from llm.tasks.final_answer import last_box
from llm.tasks.verifiers import LONGEST

CLEAN = {"raised": 0, "timed_out": 0, "memory": 0, "not_a_number": 0}
JUDGE = '''
import os, subprocess, sys, time
import numpy as np

def judge(answer, gold):
    """Does what the answer says."""
    if answer == "loop":
        while True:
            pass
    if answer == "hang in C":
        return 9 ** 9 ** 9 > 0
    if answer == "raise":
        raise ZeroDivisionError("on purpose")
    if answer == "exit":
        sys.exit(3)
    if answer == "die":
        os._exit(0)
    if answer == "print":
        print('{"score": 7}', flush=True)
        os.write(1, b'{"score": 7}')
        return 1
    if answer == "read":
        return len(sys.stdin.read()) == 0
    if answer.startswith("sleep "):
        time.sleep(float(answer[6:]))
    if answer == "pid":
        time.sleep(0.05)
        return os.getpid()
    if answer.startswith("child "):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        open(answer[6:], "w").write(f"{os.getpid()} {child.pid} ")
        while True:
            pass
    values = {"none": None, "nan": float("nan"), "infinite": -np.inf, "text": "1", "bytes": b"1", "complex": 1j,
              "array": np.ones(2), "huge": 10**400, "half": 0.5, "minus": -2, "true": True, "numpy": np.float32(0.25)}
    return values.get(answer, answer == gold)

def one(answer, gold):
    return 1.0

def needs_three(answer, gold, third):
    return 1.0

number = 3
'''


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("judge") / "judge_file.py"
    path.write_text(JUDGE)
    return str(path)


@pytest.fixture(scope="module")
def by_math() -> Iterator[Verifier]:
    """One worker for all texts: starting math-verify takes half a second."""
    pytest.importorskip("math_verify")
    with make_verifier("math", seconds=60.0) as made:
        yield made
        assert made.failures == CLEAN


def problem(gold: str) -> Problem:
    return Problem("?", gold, Cell("t", 1))


def verdicts(verifier: Verifier, pairs: list[tuple[str, str]]) -> list[float]:
    """Scores of (text, gold) pairs."""
    return verifier.scores([text for text, _ in pairs], [problem(gold) for _, gold in pairs])


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and waits to be collected does not."""
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        try:
            return stat.read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:  # gone, before it was opened or while it was read
            return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def ends(pid: int, within: float = 30.0) -> bool:
    """Whether a process ends in time."""
    until = time.monotonic() + within
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.02)
    return not alive(pid)


EQUAL = [  # (answer, gold)
    ("1/2", "0.5"), ("0.5", "1/2"), (r"\frac12", "0.5"), (r"\dfrac{3}{4}", "3/4"), ("3.0", "3"), ("27", "27.0"),
    ("1,234", "1234"), ("1{,}234", "1,234"), ("003", "3"), ("-3", "−3"), (r"\sqrt{12}", r"2\sqrt{3}"),
    ("3/2", r"1\frac{1}{2}"), ("0.333333", "1/3"), ("50%", "0.5"), (r"50\%", "50"), ("0.5", r"50\%"),
    ("90", r"90^\circ"), ("12", r"\$12"), (r"12\text{ cm}", "12"), ("x = 3", "3"), ("3", "x = 3"), ("1+x^2", "x^2+1"),
    (r"\text{East}", "east"), ("B", r"\text{(B)}"), ("(1, 2)", "(1,2)"), (r"\{2, 1\}", "1, 2"),
    (r"1 \text{ and } 2", "1, 2"), ("[0,1)", "[0, 1)"),
    (r"(2,\infty) \cup (-\infty,1)", r"(-\infty,1)\cup(2,\infty)"), (r"(-\infty, 3]", r"x \le 3"), ("3.", "3"),
    ("3", "3."), (r"\boxed{3}", "3"), ("3", r"\boxed{3}"), ("$3$", "3"), ("3", "$3$"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}",) * 2, (r"\text{no solution}", "no solution"), ("2+5", "7"),
]  # fmt: skip
DIFFERENT = [
    ("0.33", "1/3"), ("1/3", "1/2"), ("50", "0.5"), ("3 or 4", "3"), (r"3\text{ or }4", "4"), ("3, 4", "3"),
    ("3, 4", "4"), ("(2, 1)", "(1, 2)"), ("[0, 1]", "[0, 1)"), ("(0, 1)", "[0, 1]"), ("y^2+1", "x^2+1"),
    (r"\text{west}", "east"), (r"\text{five}", "5"), ("٣", "3"), ("３", "3"), ("³", "3"), ("1e3", "1000"),
    (r"\frac{0}{0}", "3"), (r"\infty - \infty", "0"), (r"\text{nan}", "0"), ("x", "3"), ("5 vs 6", "6"),
    ("5 < 6", "6"), ("1" * 5_000, "1"), ("(" * 60 + "3" + ")" * 59, "3"), ("A", "B"),
]  # fmt: skip


def test_what_counts_as_equal(by_math: Verifier) -> None:
    """Guards the policy in the docstring of math_answers: forms of the same answer score, in a box, whole batch."""
    pairs = [(rf"So we get \boxed{{{answer}}}.", gold) for answer, gold in EQUAL]
    assert [pair for pair, said in zip(pairs, verdicts(by_math, pairs), strict=True) if said != 1.0] == []


def test_what_does_not_count_as_equal(by_math: Verifier) -> None:
    """Guards against free points: other values, lists of candidates, digits of other scripts, what is no number."""
    pairs = [(rf"So we get \boxed{{{answer}}}.", gold) for answer, gold in DIFFERENT]
    assert [pair for pair, said in zip(pairs, verdicts(by_math, pairs), strict=True) if said != 0.0] == []


@pytest.mark.parametrize(
    ("text", "gold", "expected"),
    [
        (r"the answer is \boxed{3} or \boxed{4}", "3", 0.0),
        (r"the answer is \boxed{3} or \boxed{4}", "4", 1.0),
        (r"First \boxed{4}. No, wait: \boxed{3}", "3", 1.0),
        (r"$\boxed{3}$ and $\boxed{4}$", "3, 4", 0.0),
        (r"\boxed{\boxed{3}}", "3", 1.0),
        (r"\boxed{4 \boxed{3}}", "4", 0.0),
        (r"\boxed {3}", "3", 1.0),
        (r"\boxed{\{1, 2\}}", "1, 2", 1.0),
        (r"the answer is 3 \boxed{}", "3", 0.0),
        (r"the answer is 3 \boxed{ }", "3", 0.0),
        (r"\boxed{3} \boxed{}", "3", 0.0),
        (r"\boxed{3} and then \boxed{4", "3", 0.0),
        (r"\boxed{3", "3", 0.0),
        (r"3 \boxed{\text{see above}}", "3", 0.0),
        ("The answer is 3.", "3", 1.0),
        ("Answer: 3", "3", 1.0),
        ("Answer: $\\frac{3}{4}$", "0.75", 1.0),
        ("the final answer is $(1, 2)$", "(1,2)", 1.0),
        ("it is 3 or 4", "3", 0.0),
        ("2 + 1 = 3", "3", 1.0),
        ("I do not know", "3", 0.0),
        ("٣", "3", 0.0),
        ("3 " + "is it so? " * 300, "3", 0.0),
        ("is it so? " * 300 + "The answer is 3", "3", 1.0),
        ("\ud800 \x00 \\boxed{3}", "3", 1.0),
    ],
)
def test_which_part_of_a_text_is_the_answer(by_math: Verifier, text: str, gold: str, expected: float) -> None:
    """Guards the policy: the last box alone, empty and unclosed ones are no answer; without a box the text's end."""
    assert verdicts(by_math, [(text, gold)]) == [expected]


@pytest.mark.parametrize(
    ("text", "contents"),
    [
        ("3", None),
        (r"\boxed{}", ""),
        (r"\boxed{3", ""),
        (r"\boxed{3} \boxed{4", ""),
        (r"\boxed{\frac{1}{2}} }", r"\frac{1}{2}"),
        (r"\boxed{\left\{ 1, 2 \right.} }", r"\left\{ 1, 2 \right"),
        (r"\boxed{a \} b}", r"a \} b"),
        (r"\boxed{a \\} b}", r"a \\"),
        (r"\boxed {{3}}", "{3}"),
    ],
)
def test_last_box(text: str, contents: str | None) -> None:
    """Guards the search for the closing brace: nested ones count, escaped ones do not."""
    pytest.importorskip("math_verify")
    assert last_box(text) == contents


def test_no_hedge_scores_for_two_answers(by_math: Verifier) -> None:
    """Guards against hedging: whatever is written around two candidates, at most one of them can be right."""
    bare = [
        "3 or 4", "3, 4", "3 (or 4)", r"3 \text{ or } 4", "3 = 4", "x = 3 = 4", "3; 4", "3 / 4", r"3 \vee 4",
        r"\{3, 4\}", "(3, 4)", "3 < 4", r"3 \neq 4", r"\pm 3, 4", r"3 \\ 4", "3 | 4", "3 [4]", "3 vs 4",
    ]  # fmt: skip
    forms = (r"\boxed{%s}", "The answer is %s", "Answer: $%s$", "%s")
    texts = [form % hedge for hedge in bare for form in forms]
    texts += [r"\boxed{3} \boxed{4}", "The answer is 3. The answer is 4", "$3$ or $4$", r"\boxed{3} or 4"]
    three, four = (verdicts(by_math, [(text, gold) for text in texts]) for gold in ("3", "4"))
    assert [text for text, a, b in zip(texts, three, four, strict=True) if a and b] == []
    assert sum(three) > 0 < sum(four)


def test_whole_numbers_take_a_short_cut_that_changes_nothing() -> None:
    """Guards speed without another verdict: two plain integers are compared as math-verify would compare them."""
    pytest.importorskip("math_verify")
    from llm.tasks import math_answers

    values = ["0", "-0", "7", "-7", "007", "70", "123456789012345678"]
    for answer in values:
        for gold in values:
            long_way = math_answers._equal(rf"\boxed{{{answer}}}", rf"\boxed{{{gold}}}")
            assert math_answers.check(rf"\boxed{{{answer}}}", gold) == long_way == (int(answer) == int(gold))


def test_a_gold_answer_without_content_is_an_error() -> None:
    """Guards against silence: an empty gold answer raises, so that it is counted, rather than never scoring."""
    pytest.importorskip("math_verify")
    from llm.tasks import math_answers

    for gold in ("", " . ", r"\boxed{}"):
        with pytest.raises(ValueError, match="nothing to compare"):
            math_answers.check(r"\boxed{}", gold)


def test_a_power_tower_times_out_and_the_next_sample_is_judged() -> None:
    """Guards the run against sympy: evaluating the tower takes for ever, its worker is killed, the rest is judged."""
    pytest.importorskip("math_verify")
    with make_verifier("math", seconds=1.0) as verifier:
        found = verdicts(verifier, [(r"\boxed{3}", "3"), (r"\boxed{9^{9^{9^{9}}}}", "3"), (r"\boxed{3}", "3")])
        assert (found, verifier.failures) == ([1.0, 0.0, 1.0], {**CLEAN, "timed_out": 1})


def test_failures_cost_one_sample_each(judge: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Guards the batch: hangs (in C too), exceptions, deaths and nonsense score 0, are counted, and hurt no other."""
    evil = ["loop", "hang in C", "raise", "exit", "die"]
    evil += ["none", "nan", "infinite", "text", "bytes", "complex", "array", "huge"]
    pairs = [pair for what in evil for pair in (("good", "good"), (what, what))] + [("good", "good")]
    with make_verifier(f"{judge}:judge", seconds=1.0) as verifier:
        assert verdicts(verifier, pairs) == [1.0, 0.0] * len(evil) + [1.0]
        assert verifier.failures == {**CLEAN, "raised": 3, "timed_out": 2, "not_a_number": 8}
        assert "ZeroDivisionError: on purpose" in verifier.examples["raised"]
        assert "1 s" in verifier.examples["timed_out"]
        capfd.readouterr()
        assert verdicts(verifier, [("print", ""), ("good", "bad"), ("read", "")]) == [1.0, 0.0, 1.0]
        assert capfd.readouterr().out == ""


def test_an_exception_costs_no_new_process(judge: str) -> None:
    """Guards speed: what the function raises, sys.exit included, is caught inside the worker, which goes on."""
    with make_verifier(f"{judge}:judge", seconds=30.0) as verifier:
        first, *failed, last = verdicts(verifier, [("pid", ""), ("exit", ""), ("raise", ""), ("none", ""), ("pid", "")])
        assert (failed, first) == ([0.0] * 3, last)


def test_a_process_that_does_not_read_times_out(judge: str) -> None:
    """Guards the sending side: a stopped process and a text larger than the socket's buffer do not block the caller."""
    with make_verifier(f"{judge}:judge", seconds=1.0) as verifier:
        os.kill(int(verdicts(verifier, [("pid", "")])[0]), signal.SIGSTOP)
        assert verdicts(verifier, [("\N{DUCK}" * LONGEST, ""), ("half", "")]) == [0.0, 0.5]
        assert verifier.failures == {**CLEAN, "timed_out": 1}


def test_scores_are_the_numbers_returned(judge: str) -> None:
    """Guards graded rewards: any finite number comes back as it is, in the order of the texts."""
    with make_verifier(f"{judge}:judge", seconds=30.0) as verifier:
        texts = ["half", "minus", "true", "numpy", "x", None, "half"]
        assert verifier.scores(texts, [problem("x")] * 7) == [0.5, -2.0, 1.0, 0.25, 1.0, 0.0, 0.5]
        assert verifier.failures == CLEAN


def test_missing_empty_and_over_long_texts_are_not_verified(judge: str) -> None:
    """Guards against points for nothing: even a function that always says 1 gives none to them."""
    with make_verifier(f"{judge}:one", seconds=30.0) as verifier:
        texts = [None, "", " \n\t", "a" * (LONGEST + 1), "a" * LONGEST, "a"]
        assert verifier.scores(texts, [problem("a")] * 6) == [0.0, 0.0, 0.0, 0.0, 1.0, 1.0]


def test_the_limit_is_a_samples_own(judge: str, tmp_path: Path) -> None:
    """Guards large batches and slow imports: neither the sum over a batch nor the start counts against the limit."""
    slow = tmp_path / "slow_start.py"
    slow.write_text("import time\ntime.sleep(1.2)\n\ndef f(answer, gold):\n    time.sleep(0.2)\n    return 1\n")
    with make_verifier(f"{slow}:f", seconds=1.0) as verifier:
        started = time.monotonic()
        assert verdicts(verifier, [("a", "b")] * 6) == [1.0] * 6
        assert time.monotonic() - started > 1.2 + 6 * 0.2
        assert verifier.failures == CLEAN


def test_several_workers_share_the_samples(judge: str) -> None:
    """Guards `workers`: same scores in the same order, several processes, failures counted once."""
    pairs = [("minus", ""), ("half", "")] * 10 + [("die", ""), ("half", "")]
    with make_verifier(f"{judge}:judge", seconds=30.0, workers=3) as verifier:
        assert len(set(verdicts(verifier, [("pid", "")] * 12))) == 3  # apart: one that dies is replaced by a fourth
        assert verdicts(verifier, pairs) == [-2.0, 0.5] * 10 + [0.0, 0.5]
        assert verifier.failures == {**CLEAN, "raised": 1}


def test_close_ends_the_process_and_it_can_start_again(judge: str) -> None:
    """Guards against left-over processes: after close, and after a verifier that nobody closed is dropped."""
    verifier = make_verifier(f"{judge}:judge", seconds=30.0)
    pids = [int(verdicts(verifier, [("pid", "")])[0])]
    verifier.close()
    assert not alive(pids[0])
    verifier.start()
    pids.append(int(verdicts(verifier, [("pid", "")])[0]))
    assert pids[0] != pids[1] and alive(pids[1])
    del verifier
    gc.collect()
    assert not alive(pids[1])


def test_a_killed_worker_takes_its_children_along(judge: str, tmp_path: Path) -> None:
    """Guards against a leak by time-outs: what a hung function has started is killed with it."""
    with make_verifier(f"{judge}:judge", seconds=1.0) as verifier:
        assert verdicts(verifier, [(f"child {tmp_path / 'pids'}", "")]) == [0.0]
    assert verifier.failures["timed_out"] == 1
    assert all(ends(int(pid)) for pid in (tmp_path / "pids").read_text().split())


def test_a_hung_worker_outlives_its_parent_only_briefly(judge: str, tmp_path: Path) -> None:
    """Guards the machine: when the run is killed while a function hangs, the worker ends by itself."""
    noted = tmp_path / "pids"
    program = (
        f"import sys\nsys.path.insert(0, {str(Path(workers.__file__).parent)!r})\n"  # the one module, without torch
        f"import workers\nworkers.GUARD_SECONDS = 0.5\n"
        f"workers.Worker('w', {judge + ':judge'!r}, 1.5).ask({f'child {noted}'!r}, '')\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program])
    try:
        until = time.monotonic() + 60
        while not noted.exists() or len(noted.read_text().split()) < 2:
            assert time.monotonic() < until and parent.poll() is None
            time.sleep(0.02)
    finally:
        parent.kill()
        parent.wait()
    worker, child = map(int, noted.read_text().split())
    gone = ends(worker)
    for pid in (worker, child):
        if alive(pid):
            os.kill(pid, signal.SIGKILL)
    assert gone


def test_an_interrupted_question_does_not_answer_the_next(judge: str) -> None:
    """Guards Ctrl-C: the reply that comes too late is not taken for that of the next sample."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    worker, before = workers.Worker("w", f"{judge}:judge", 30.0), signal.signal(signal.SIGALRM, interrupt)
    try:
        worker.start()
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(KeyboardInterrupt):
            worker.ask("sleep 3", "sleep 3")
        assert worker.ask("half", "") == {"score": 0.5}
    finally:
        signal.signal(signal.SIGALRM, before)
        worker.stop()


def test_functions_are_found_in_modules_and_beside_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards import paths: a package on sys.path, a module in the working folder, a file that imports its neighbour."""
    package, here, there = tmp_path / "path" / "my_checks", tmp_path / "here", tmp_path / "there"
    for folder in (package, here, there):
        folder.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "rules.py").write_text("class Rules:\n    @staticmethod\n    def f(answer, gold):\n        return 0.5\n")
    for folder in (here, there):
        (folder / "my_rules.py").write_text("import neighbour\n\ndef f(answer, gold):\n    return neighbour.VALUE\n")
        (folder / "neighbour.py").write_text(f"VALUE = {len(folder.name)}\n")
    monkeypatch.syspath_prepend(str(tmp_path / "path"))
    monkeypatch.chdir(here)
    found = []
    for name in ("my_checks.rules:Rules.f", "my_rules:f", "my_rules.py:f", f"{there / 'my_rules.py'}:f"):
        with make_verifier(name, seconds=30.0) as verifier:
            found += verdicts(verifier, [("a", "b")])
    assert found == [0.5, 4.0, 4.0, 5.0]
    with make_verifier("my_rules.py:f", seconds=30.0) as verifier:
        monkeypatch.chdir(there)
        assert verdicts(verifier, [("a", "b")]) == [4.0]


def test_functions_that_cannot_be_used_are_refused_at_the_start(judge: str, tmp_path: Path) -> None:
    """Guards the first minute of a run: each error names the verifier, what is wrong, and the form to give."""
    broken, deadly = tmp_path / "broken.py", tmp_path / "deadly.py"
    broken.write_text("1 / 0\n")
    deadly.write_text("import os\nos._exit(0)\n")
    for name, said in [
        ("no_such_package.module:f", "No module named 'no_such_package'"),
        (f"{judge}:absent", "absent"),
        (f"{judge}:number", "number is int, not a function"),
        (f"{judge}:needs_three", "missing a required argument: 'third'"),
        (f"{broken}:f", "ZeroDivisionError"),
        (f"{deadly}:f", "import ended the process"),
    ]:
        with pytest.raises(InputError) as refused, make_verifier(name) as verifier:
            verifier.start()
        assert said in str(refused.value) and "package.module:function" in str(refused.value), name
    with pytest.raises(InputError, match="not a function"), make_verifier(f"{judge}:number") as verifier:
        verdicts(verifier, [("a", "b")])


@pytest.mark.parametrize(
    ("name", "more", "said"),
    [
        ("maths", {}, "unknown verifier 'maths': did you mean 'math'"),
        ("checker", {}, "package.module:function"),
        ("no/such/file.py:f", {}, "does not exist"),
        ("a-b.c:f", {}, "module or a .py file"),
        ("json:", {}, "name a function after the colon"),
        ("math", {"seconds": 0.0}, "seconds must be positive"),
        ("math", {"seconds": float("nan")}, "seconds must be positive"),
        ("exact", {"seconds": float("inf")}, "seconds must be positive"),
        ("math", {"workers": -1}, "workers must be from 0"),
        ("math", {"memory_mb": -1}, "memory_mb must be 0 or"),
        ("math", {"memory_mb": 63}, "memory_mb must be 0 or"),
    ],
)
def test_bad_names_and_limits_are_refused_when_made(name: str, more: dict[str, float], said: str) -> None:
    with pytest.raises(InputError, match=said):
        make_verifier(name, **more)


def test_missing_math_verify_names_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the first use: without the library one line says what to install, before any work."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'pip install "math-verify\[antlr4_13_2\]"'):
        make_verifier("math")


def test_exact_is_the_score_of_the_generated_tasks() -> None:
    """Guards the old verifier's verdicts behind the new interface; no process is needed."""
    texts = [None, "", "8", " 7", "7", "07", "7" * 500, " "]
    with make_verifier("exact") as verifier:
        verifier.start()
        assert verifier.scores(texts, [problem("7")] * 8) == [score(text, "7") for text in texts]
        assert sum(verifier.scores(texts, [problem("7")] * 8)) == 1.0
        assert verifier.failures == CLEAN
        with pytest.raises(InputError, match="gold answer"):
            verifier.scores(["1"], [problem("")])
        with pytest.raises(InputError, match="equally many, got 2 and 1"):
            verifier.scores(["1", "2"], [problem("1")])
