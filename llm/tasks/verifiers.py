"""Verifiers: a text and a problem in, a finite score out, whatever the text does to the verifier.

A wrong verdict costs a gradient; a hang costs the run. math-verify's own limit is an alarm signal, which works only in
a main thread and cannot interrupt C code, so all but the exact match run in worker processes with hard limits.

Contained: time (at the limit the function's process is killed with everything it started, on Linux also what left its
session or lost its parent), memory and file size of each process, core dumps, what is printed (a stated number of bytes
is shown, the rest is dropped), and anything but a verdict on the channel of the verdicts. Processes that a sample
leaves without a parent are killed within seconds after it, all others when the verifier closes or the program
ends, however it ends. Not contained: what the function may do as the user who runs it - read and write files, use the
network, kill processes, the worker's own included, start many processes within the time limit - and, as root, lift its
limits. It is a guard against accidents in answers, no sandbox for code that means harm.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
import re
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

from ebpo_sim import cli
from ebpo_sim.errors import InputError, unknown_name
from llm.tasks import gym
from llm.tasks.base import Problem
from llm.tasks.family import family
from llm.tasks.final_answer import compared
from llm.tasks.workers import REMEDY, Worker, stop_all

LONGEST = 100_000  # characters of a text that is verified at all
KINDS = ("raised", "timed_out", "memory", "not_a_number")
COSTLY = ("timed_out", "memory")  # failures that are remembered
REMEMBERED = 4096  # samples with a costly failure
RETRIED = 20  # calls of `scores` after which such a sample is judged again: the machine may have been the reason
MOST_WORKERS = 4  # unless asked for more
MEMORY_MB = 4096  # beyond what the import takes; math-verify was seen to take 0.7 GB on the worst polynomial
_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


def score(answer: str | None, gold: str) -> float:
    """1.0 if `answer` is exactly `gold`, else 0.0; None stands for an answer that never ended.

    Missing, empty and over-long answers score 0 whatever the gold is. Raises InputError for an empty gold answer,
    which nothing could match.
    """
    if not gold:
        raise InputError("gold answer must have at least 1 character, got '': leave the problem out")
    return float(answer == gold)


class Verifier:
    """Scores of texts, and a count of what went wrong. This one is "exact"; see `make_verifier`.

    failures: how many samples "raised" (the death of a worker counts here), "timed_out", exceeded their "memory" or
    were "not_a_number"; each scored 0. examples: the first message of each kind. Use it as a context manager, or call
    `close`.
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
            (i, text, problem)
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

    def _judge(self, samples: list[tuple[str, Problem]]) -> list[dict[str, Any]]:
        """{"score": number} or {"failure": kind, "why": text} of each text."""
        return [{"score": score(text, problem.answer)} for text, problem in samples]


class GeneratedVerifier(Verifier):
    """Generated problems by their own tasks: those without a file by the exact text."""

    def _judge(self, samples: list[tuple[str, Problem]]) -> list[dict[str, Any]]:
        return [
            {"score": (score if (own := family(p.cell.topic)) is None else own.score)(text, p.answer)}
            for text, p in samples
        ]


class ProcessVerifier(Verifier):
    """A function in worker processes; see `make_verifier`. part: what of a text decides its verdict, and is judged."""

    def __init__(self, workers: Sequence[Worker], part: Callable[[str], str] = str) -> None:
        super().__init__()
        self._workers, self._part = workers, part
        self._hard: OrderedDict[bytes, tuple[int, dict[str, Any]]] = OrderedDict()  # costly: (call, verdict)
        self._calls = 0
        weakref.finalize(self, stop_all, workers)  # whoever forgets `close`: at the latest when the program ends

    def start(self) -> None:
        self._share(range(len(self._workers)), lambda worker, _: worker.start())

    def close(self) -> None:
        stop_all(self._workers)

    def _judge(self, samples: list[tuple[str, Problem]]) -> list[dict[str, Any]]:
        self._calls += 1
        asked = [(self._part(text), problem.answer) for text, problem in samples]
        keys = [hashlib.sha256(repr(sample).encode()).digest() for sample in asked]
        found: list[dict[str, Any]] = [{}] * len(asked)

        def ask(worker: Worker, i: int) -> None:
            found[i] = self._known(keys[i]) or worker.ask(*asked[i])
            if found[i].get("failure") in COSTLY and keys[i] not in self._hard:
                self._hard[keys[i]] = self._calls, found[i]

        first = {key: i for i, key in reversed(list(enumerate(keys)))}  # of each, alone: the others may be spared
        self._share(sorted(first.values()), ask)
        self._share(sorted(set(range(len(keys))) - set(first.values())), ask)
        while len(self._hard) > REMEMBERED:
            self._hard.popitem(last=False)
        return found

    def _known(self, key: bytes) -> dict[str, Any] | None:
        """The verdict on a sample with a costly failure, unless it is time to try again."""
        call, verdict = self._hard.get(key, (-RETRIED, None))
        if self._calls - call >= RETRIED:
            self._hard.pop(key, None)
            return None
        return verdict

    def _share(self, waiting: Sequence[int], job: Callable[[Worker, int], None]) -> None:
        """Do the job for each index, by whichever worker is free; an interrupt lets the others end their samples."""
        free = deque(self._workers)

        def serve(i: int) -> None:
            worker = free.popleft()
            try:
                job(worker, i)
            finally:
                free.append(worker)

        if min(len(waiting), len(free)) < 2:
            for i in waiting:
                serve(i)
            return
        with ThreadPoolExecutor(len(free)) as threads:
            list(threads.map(serve, waiting))  # what is not begun when one raises is cancelled


def make_verifier(name: str, seconds: float = 5.0, workers: int = 1, memory_mb: int = MEMORY_MB) -> Verifier:
    """The verifier of that name.

    "exact": the text is the gold answer, character by character (`llm.tasks.score`).
    "generated": the same, and for generated tasks of a file of their own (`llm.tasks.family`) what that file says.
    "math": mathematically equal by math-verify; what is compared stands in `llm/tasks/math_answers.py`.
    "reasoning_gym": full marks by the library that made the problem (`llm/tasks/gym.py`).
    "package.module:function" or "path/to/file.py:function": your own. It is called as function(answer, gold), with the
    whole text and Problem.answer, and returns a bool or a number: any finite one, in [0, 1] if the estimator says so.

    seconds: limit of one sample, a worker's start not included; at the limit its process is killed with all it started.
    workers: those that share the samples; scores do not depend on how many as long as the function has no memory. 0:
    one a core, at most MOST_WORKERS. They start at the first use (or `start`). memory_mb: megabytes (2^20 bytes) of
    address space that the function's process, and each it starts, may take beyond what its import leaves it with; 0: no
    limit. Samples that timed out or exceeded it are remembered: the same text and gold answer cost their limit once
    in RETRIED calls of `scores`, though each is counted.
    Raises InputError for an unknown name, a missing file or library, and at the first use for a function that cannot be
    imported or does not take two arguments.
    """
    if not (math.isfinite(seconds) and seconds > 0):
        raise InputError(f"seconds must be positive, got {seconds}: give the time limit of one sample")
    if not 0 <= workers <= 1024:
        raise InputError(f"workers must be from 0 to 1024, got {workers}: 0 takes one a core, at most {MOST_WORKERS}")
    if memory_mb != 0 and not 64 <= memory_mb <= 1 << 32:
        raise InputError(f"memory_mb must be 0 or from 64 to 2^32, got {memory_mb}: 0 sets no limit of memory")
    if name in ("exact", "generated"):
        return Verifier() if name == "exact" else GeneratedVerifier()
    part: Callable[[str], str] = str
    if name == "math":
        part = compared
        if importlib.util.find_spec("math_verify") is None:
            raise InputError('verifier "math" needs math-verify: pip install "math-verify[antlr4_13_2]"')
        function = f"{Path(__file__).with_name('math_answers.py')}:check"
    elif name == "reasoning_gym":
        if importlib.util.find_spec("reasoning_gym") is None:
            raise InputError(f'verifier "reasoning_gym" needs the library: {gym.EXTRA}')
        function = f"{Path(__file__).with_name('gym.py')}:check"
    else:
        source, colon, attribute = name.rpartition(":")
        if not colon:
            raise unknown_name(
                "verifier", name, ["exact", "generated", "math", "package.module:function", "path/to/file.py:function"]
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
    count = workers or min(cli.available_cores(), MOST_WORKERS)
    return ProcessVerifier([Worker(name, function, seconds, memory_mb) for _ in range(count)], part)
