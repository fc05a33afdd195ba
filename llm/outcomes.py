"""Sampled and verified answers to problems, and the file that a stopped evaluation goes on from."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ebpo_sim import report
from ebpo_sim.errors import InputError
from llm.engines import Engine, answer
from llm.folders import read_json, write_json
from llm.tasks import Problem, Verifier


class Outcome(NamedTuple):
    """All answers to one problem: their texts (None: never ended), verdicts, lengths in tokens, and score norms."""

    problem: Problem
    texts: tuple[str | None, ...]
    rewards: tuple[float, ...]
    lengths: tuple[int, ...]
    norms: tuple[float, ...]


def sampled_outcomes(
    engine: Engine, verifier: Verifier, problems: Sequence[Problem], samples: int, seed: int, temperature: float = 1.0,
    done: Callable[[list[Outcome]], object] = lambda some: None, first: int = 0,
) -> list[Outcome]:  # fmt: skip
    """`samples` answers to each problem from the `first` on; the same seed, the same draws.

    done: told the outcomes of each call; an evaluation that goes on where a call ended draws what the whole one does.
    """
    if samples < 1:
        raise InputError(f"samples must be at least 1, got {samples}")
    found = []
    per_call = max(1, engine.chunk // samples)
    for start in range(first, len(problems), per_call):
        some = list(problems[start : start + per_call])
        # a seed for each call, so that a problem's answers depend on nothing sampled before its own call; apart by
        # the answers of the calls before, as an engine may count seeds up by answers
        rolled, texts, rewards = answer(engine, verifier, some, samples, seed + start * samples, temperature)
        lengths, norms = rolled.mask_NT.sum(dim=1).tolist(), rolled.score_norm_N.tolist()
        fresh = []
        for i, problem in enumerate(some):
            part = slice(i * samples, (i + 1) * samples)
            columns = (texts[part], rewards[part], lengths[part], norms[part])
            fresh.append(Outcome(problem, *(tuple(column) for column in columns)))
        found += fresh
        done(fresh)
    return found


def pass_rates(outcomes: Sequence[Outcome]) -> list[float]:
    """Share of right answers of each prompt: its pass@1."""
    return [sum(o.rewards) / len(o.rewards) for o in outcomes]


def rows(outcomes: Sequence[Outcome], dataset: str) -> list[dict[str, Any]]:
    """One row a rollout, in the columns that `ebpo_sim.diagnose` knows, with its data set and text."""
    return [
        {
            "dataset": dataset,
            "prompt_id": o.problem.id,
            "cluster": o.problem.cell.topic,
            "reward": reward,
            "level": o.problem.cell.level,
            "length": length,
            "score_norm": None if math.isnan(norm) else norm,
            "text": text,
        }
        for o in outcomes
        for reward, length, norm, text in zip(o.rewards, o.lengths, o.norms, o.texts, strict=True)
    ]


class Unfinished:
    """The calls of an evaluation that are done, a line each, behind the line that says which evaluation it is.

    identity: what decides the answers, in plain values. Raises InputError, where the evaluation is to be resumed, for a
    missing file, one of another evaluation and one that is damaged; where it is not, for one that it could go on from.
    A last line that was cut is sampled again.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], resume: bool) -> None:
        self._head, self._path = folder / "unfinished.json", folder / "unfinished.jsonl"
        self.done: list[tuple[str, list[Any]]] = []
        identity = json.loads(report.to_json(identity))
        if not resume:
            if self._path.is_file() and self._path.stat().st_size and read_json(self._head) == identity:
                raise InputError(
                    f"{str(folder)!r} holds this evaluation unfinished: add --resume, or delete {self._path.name}"
                )
            self._path.write_bytes(b"")
            write_json(self._head, identity)
            return
        if not (self._head.is_file() and self._path.is_file()):
            raise InputError(f"{str(folder)!r} holds no unfinished evaluation: name its --out, or leave --resume out")
        before = read_json(self._head)
        if before != identity:
            other = [name for name in identity if not isinstance(before, dict) or before.get(name) != identity[name]]
            raise InputError(f"the evaluation in {str(folder)!r} had another {', '.join(other)}: leave --resume out")
        whole, _, _ = self._path.read_bytes().rpartition(b"\n")
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                dataset, outcomes = json.loads(line)
                self.done.append((dataset, [(str(name), *map(tuple, parts)) for name, *parts in outcomes]))
            except (ValueError, TypeError, RecursionError) as error:
                raise InputError(
                    f"{str(self._path)!r}, line {number} is damaged ({type(error).__name__}): leave --resume out"
                ) from error
        with self._path.open("r+b") as file:
            file.truncate(len(whole) + bool(whole))

    def known(self, dataset: str, problems: Sequence[Problem]) -> list[Outcome]:
        """Outcomes of the first problems of a data set. Raises InputError where they are of other problems."""
        kept = [row for name, some in self.done if name == dataset for row in some]
        if [row[0] for row in kept] != [p.id for p in problems[: len(kept)]] or any(len(row) != 5 for row in kept):
            raise InputError(f"{str(self._path)!r} is of other problems than {dataset!r} holds: leave --resume out")
        nan = [tuple(math.nan if x is None else x for x in row[4]) for row in kept]
        return [Outcome(p, r[1], r[2], r[3], norms) for p, r, norms in zip(problems, kept, nan, strict=False)]

    def add(self, dataset: str, outcomes: Sequence[Outcome]) -> None:
        """One more call, on the disk before this returns."""
        some = [
            (o.problem.id, o.texts, o.rewards, o.lengths, [None if math.isnan(x) else x for x in o.norms])
            for o in outcomes
        ]
        with self._path.open("ab") as file:
            file.write((json.dumps((dataset, some), allow_nan=False) + "\n").encode())

    def end(self) -> None:
        """All is written elsewhere."""
        self._path.unlink(missing_ok=True)
        self._head.unlink(missing_ok=True)
