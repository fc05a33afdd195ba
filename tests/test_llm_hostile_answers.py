"""Answers that are hard to verify: what they cost a batch, and which part of a text is judged."""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # llm runs from the checkout; it is not installed

from ebpo_sim import InputError
from llm.run import verifier_of
from llm.settings import Settings
from llm.tasks import Cell, Problem, Verifier, make_verifier, verifiers
from llm.tasks.final_answer import TAIL, compared, last_box
from llm.tasks.verifiers import KINDS, ProcessVerifier
from llm.tasks.workers import Worker

HARD_TO_JUDGE = '''
import os

def f(answer, gold):
    """Hangs on "loop" and, until the file is there, on "once"."""
    what, _, rest = answer.partition(" ")
    if what == "loop" or (what == "once" and not os.path.exists(rest)):
        if what == "once":
            open(rest, "w").close()
        while True:
            pass
    return 1.0
'''


@pytest.fixture(scope="module")
def hard(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("hard") / "hard_file.py"
    path.write_text(HARD_TO_JUDGE)
    return f"{path}:f"


def judged(verifier: Verifier, texts: list[str]) -> tuple[list[float], dict[str, int]]:
    """Scores, and failures since the call began that are not none."""
    before = dict(verifier.failures)
    found = verifier.scores(texts, [Problem("?", "3", Cell("t", 1))] * len(texts))
    return found, {kind: n - before[kind] for kind, n in verifier.failures.items() if n > before[kind]}


def test_identical_hard_answers_cost_one_limit(hard: str) -> None:
    """Guards the step time: within a call, and over the calls that follow, a costly sample is judged once."""
    for count in (1, 2):
        with make_verifier(hard, seconds=0.5, workers=count) as verifier:
            verifier.start()
            started = time.monotonic()
            assert judged(verifier, ["loop", "good"] * 20) == ([0.0, 1.0] * 20, {"timed_out": 20})
            assert judged(verifier, ["loop"] * 20 + ["good"]) == ([0.0] * 20 + [1.0], {"timed_out": 20})
            assert 0.5 <= time.monotonic() - started < 1.5


def test_a_hard_answer_is_tried_again_in_time(hard: str, tmp_path: Path) -> None:
    """Guards an ordinary answer that a stall of the machine has made late: after RETRIED calls it is judged again."""
    once = f"once {tmp_path / 'tried'}"
    with make_verifier(hard, seconds=0.5) as verifier:
        found = [judged(verifier, [once])[0][0] for _ in range(verifiers.RETRIED + 1)]
    assert found == [0.0] * verifiers.RETRIED + [1.0]


def test_the_memory_of_hard_answers_is_bounded(monkeypatch: pytest.MonkeyPatch, hard: str) -> None:
    monkeypatch.setattr(verifiers, "REMEMBERED", 2)
    with make_verifier(hard, seconds=0.3, workers=3) as verifier:
        judged(verifier, ["loop ", "loop  ", "loop   "])
        assert isinstance(verifier, ProcessVerifier) and len(verifier._hard) == 2


def test_distinct_hard_answers_share_the_workers(hard: str) -> None:
    """Guards the step time: n hard answers take n limits over the number of workers, restarts included."""
    texts = [f"loop {i}" for i in range(8)]
    with make_verifier(hard, seconds=0.4, workers=4) as verifier:
        verifier.start()
        started = time.monotonic()
        assert judged(verifier, texts) == ([0.0] * 8, {"timed_out": 8})
        assert time.monotonic() - started < 2 * 0.4 + 0.8


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
    with make_verifier("math", seconds=0.7, workers=2) as verifier:
        verifier.start()
        started = time.monotonic()
        texts = [text for hard in HARD for text in (hard, r"\boxed{\frac{1}{2}}")]
        scores = verifier.scores(texts, [Problem("?", "0.5", Cell("t", 1))] * len(texts))
        assert scores == [0.0, 1.0] * len(HARD)
        assert time.monotonic() - started < 0.8 * len(HARD) / 2 + 3
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


@settings(max_examples=100, deadline=None, derandomize=True)
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
        verifier.start()
        started = time.monotonic()
        assert judged(verifier, [rf"By way {i}: \boxed{{9^{{9^{{9^9}}}}}}" for i in range(30)])[1] == {"timed_out": 30}
        assert time.monotonic() - started < 5.0  # thirty limits are 15 s


def test_the_settings_reach_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards --verifier-workers and --verifier-memory: their defaults, their values, and their bounds."""
    seen: list[tuple[object, ...]] = []

    def recorded(*how: object) -> Worker:
        seen.append(how)
        return Worker("w", "f", 1.0)

    monkeypatch.setattr(verifiers, "Worker", recorded)
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
