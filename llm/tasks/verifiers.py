"""Verifiers: a text and a problem in, a finite score out, whatever the text does to the verifier.

A wrong verdict costs a gradient; a hang costs the run. math-verify's own limit is an alarm signal, which works only in
a main thread and cannot interrupt C code, so all but the exact match run in worker processes with a hard time limit.
"""

from __future__ import annotations

import importlib.util
import math
import queue
import re
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

from ebpo_sim.errors import InputError, unknown_name
from llm.tasks.base import Problem
from llm.tasks.verify import score
from llm.tasks.workers import REMEDY, Worker, stop_all

LONGEST = 100_000  # characters of a text that is verified at all
KINDS = ("raised", "timed_out", "not_a_number")
_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


class Verifier:
    """Scores of texts, and a count of what went wrong. This one is "exact"; see `make_verifier`.

    failures: how many samples "raised" (the death of a worker counts here), "timed_out" or were "not_a_number"; each
    scored 0. examples: the first message of each kind. Use it as a context manager, or call `close`.
    """

    def __init__(self) -> None:
        self.failures = dict.fromkeys(KINDS, 0)
        self.examples: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Get ready now rather than at the first sample: what cannot be used is refused before other work."""

    def close(self) -> None:
        """End the workers; they start again when they are needed."""

    def scores(self, texts: Sequence[str | None], problems: Sequence[Problem]) -> list[float]:
        """The score of each text as an answer to the problem of the same index; N texts, N problems.

        None (never ended), texts of white space alone and those longer than LONGEST score 0 and are not verified.
        Raises InputError where the lengths differ, and where the verifier cannot be used.
        """
        if len(texts) != len(problems):
            raise InputError(
                f"texts and problems must be equally many, got {len(texts)} and {len(problems)}: "
                "repeat a problem for each of its answers"
            )
        samples = [
            (i, text, problem.answer)
            for i, (text, problem) in enumerate(zip(texts, problems, strict=True))
            if text is not None and text.strip() and len(text) <= LONGEST
        ]
        found = [0.0] * len(texts)
        for (i, _, _), said in zip(samples, self._judge([sample[1:] for sample in samples]), strict=True):
            if "failure" in said:
                self.failures[said["failure"]] += 1
                self.examples.setdefault(said["failure"], said["why"])
            else:
                found[i] = said["score"]
        return found

    def _judge(self, samples: list[tuple[str, str]]) -> list[dict[str, Any]]:
        """{"score": number} or {"failure": kind, "why": text} of each (text, gold)."""
        return [{"score": score(text, gold)} for text, gold in samples]


class ProcessVerifier(Verifier):
    """A function in worker processes; see `make_verifier`."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        super().__init__()
        self._workers = workers
        weakref.finalize(self, stop_all, workers)  # whoever forgets `close`: at the latest when the program ends

    def start(self) -> None:
        for worker in self._workers:
            worker.start()

    def close(self) -> None:
        stop_all(self._workers)

    def _judge(self, samples: list[tuple[str, str]]) -> list[dict[str, Any]]:
        if len(self._workers) == 1:
            return [self._workers[0].ask(*sample) for sample in samples]
        idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        for worker in self._workers:
            idle.put(worker)

        def ask(sample: tuple[str, str]) -> dict[str, Any]:
            worker = idle.get()
            try:
                return worker.ask(*sample)
            finally:
                idle.put(worker)

        with ThreadPoolExecutor(len(self._workers)) as threads:
            try:
                return list(threads.map(ask, samples))
            except BaseException:
                threads.shutdown(cancel_futures=True)
                raise


def make_verifier(name: str, seconds: float = 5.0, workers: int = 1) -> Verifier:
    """The verifier of that name.

    "exact": the text is the gold answer, character by character (`llm.tasks.score`): for the generated tasks.
    "math": mathematically equal by math-verify; what is compared stands in `llm/tasks/math_answers.py`.
    "package.module:function" or "path/to/file.py:function": your own. It is called as function(answer, gold), with the
    whole text and Problem.answer, and returns a bool or a number: any finite one, in [0, 1] if the estimator says so.

    seconds: limit of one sample, its worker's start not included; at the limit the worker is killed and a fresh one
    started. workers: processes that share the samples; scores do not depend on how many as long as the function has
    no memory. They start at the first use (or `start`).
    Raises InputError for an unknown name, a missing file or library, and at the first use for a function that cannot be
    imported or does not take two arguments.
    """
    if not (math.isfinite(seconds) and seconds > 0):
        raise InputError(f"seconds must be positive, got {seconds}: give the time limit of one sample")
    if workers < 1:
        raise InputError(f"workers must be at least 1, got {workers}: give the number of processes")
    if name == "exact":
        return Verifier()
    if name == "math":
        if importlib.util.find_spec("math_verify") is None:
            raise InputError('verifier "math" needs math-verify: pip install "math-verify[antlr4_13_2]"')
        function = f"{Path(__file__).with_name('math_answers.py')}:check"
    else:
        source, colon, attribute = name.rpartition(":")
        if not colon:
            raise unknown_name(
                "verifier", name, ["exact", "math", "package.module:function", "path/to/file.py:function"]
            )
        function = name
        if source.endswith(".py"):
            if not Path(source).is_file():
                raise InputError(f"verifier {name!r} must name a file, got {source!r}, which does not exist: {REMEDY}")
            function = f"{Path(source).resolve()}:{attribute}"
        elif not _DOTTED.fullmatch(source):
            raise InputError(f"verifier {name!r} must name a module or a .py file, got {source!r}: {REMEDY}")
        if not _DOTTED.fullmatch(attribute):
            raise InputError(f"verifier {name!r} must name a function after the colon, got {attribute!r}: {REMEDY}")
    return ProcessVerifier([Worker(name, function, seconds) for _ in range(workers)])
