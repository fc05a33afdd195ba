"""The language model as a host of the comparison engine: which runs there are, one run, and tables of them all.

A run is one call of `llm.train.train` in a process of its own with the threads of its settings.
"""

from __future__ import annotations

import contextlib
import io
import json
import platform
import secrets
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
import transformers

from ebpo_sim import cache as files
from ebpo_sim import cli, plugins, rungs
from ebpo_sim.compare.jobs import finish
from ebpo_sim.compare.plan import Job, Plan, Record, Runner, middle, wanted
from ebpo_sim.errors import InputError
from ebpo_sim.labels import REFERENCE, SUBJECT
from ebpo_sim.methods.checkpoint import fingerprint
from ebpo_sim.methods.method import Method, parse_method
from llm.settings import Settings
from llm.train import train

TUNING_SEED = 1000  # tuning runs take their seeds from here on, evaluation runs from 0
RUNS, UNFINISHED = "runs", "unfinished"  # folders: of finished runs, and of what running ones write
AT_END = ("entropy", "grad_norm", "length", "missing_eos")  # told by the last record; others over all of training
UNTIMED = ("seconds_validate", "seconds_measure")  # looking at a run is no part of training it
TRACED = (
    "reward", "entropy", "grad_norm", "zero_signal", "rows_trained", "shrinkage", "kl_step", "length", "missing_eos",
)  # fmt: skip

NAME_COLUMNS = ("run", "stage", "arm", "group_size", "order", "learning_rate", "seed", "steps")
RUN_COLUMNS = (
    *NAME_COLUMNS, "start", "final", "mean", "seconds", "seconds_per_step", *TRACED, "wall_seconds", "invocation",
    "machine",
)  # fmt: skip
CURVE_COLUMNS = (*NAME_COLUMNS, "record", "step", "seconds", "validation_pass1", "validation_se", *TRACED)
MAY_LACK = {"start", "validation_se", *TRACED}  # quantities that do not always exist


class Cell(NamedTuple):
    """Runs of one cell are compared with each other."""

    group_size: int
    order: str


def clock_arm(arms: Sequence[str]) -> str:
    """The arm whose time the others are given: EBPO, or without it the first beside GRPO."""
    return SUBJECT if SUBJECT in arms else next((arm for arm in arms if arm != REFERENCE), arms[0])


def method_of(arm: str) -> Method:
    """The method that an arm names. Raises InputError for what cannot stand on the language model."""
    return parse_method(arm, None, rungs.LANGUAGE_MODEL)


@dataclass(frozen=True)
class Comparison:
    """What is compared. Every arm sees the same prompts, sampling seeds and warm start at a seed: runs are paired.

    arms: estimators, GRPO first; where EBPO is among them, so are S = 0 and S = 1. orders beside the first are run at
    the group size nearest to 4. rates: one grid for all arms. budget: rollouts a step, the same at every group size.
    base: all other settings. equal_time: run faster arms again with more steps; see `compare.plan`.
    Raises InputError for what could not be run or compared.
    """

    arms: tuple[str, ...]
    group_sizes: tuple[int, ...] = (2, 4, 8)
    orders: tuple[str, ...] = ("shuffled",)
    rates: tuple[float, ...] = (3e-4, 6e-4, 1.2e-3)
    seeds: int = 6
    tuning_seeds: int = 2
    budget: int = 256
    base: Settings = field(default_factory=Settings)
    equal_time: bool = True

    def __post_init__(self) -> None:
        for name in ("arms", "group_sizes", "orders", "rates"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise InputError(f"{name} must be different and at least one, got {values}")
        if self.seeds < 1 or self.tuning_seeds < 1:
            raise InputError(f"seeds must be at least 1, got {self.seeds} and {self.tuning_seeds} for tuning")
        if self.seeds > TUNING_SEED:
            raise InputError(f"--seeds must be at most {TUNING_SEED}, got {self.seeds}: the next are for tuning")
        for arm in self.arms:
            method_of(arm)
        for size in self.group_sizes:
            if size < 1 or self.budget % size:
                raise InputError(
                    f"--group-size must divide the {self.budget} rollouts of a step, got {size}: change --budget"
                )
        for rate in self.rates:
            self.settings(Job(self.arms[0], Cell(self.group_sizes[0], self.orders[0]), rate, 0, self.base.steps))

    @property
    def cells(self) -> list[Cell]:
        """Those that are compared."""
        central = middle(self.group_sizes)
        return [Cell(g, o) for g in self.group_sizes for o in (self.orders if g == central else self.orders[:1])]

    @property
    def plan(self) -> Plan:
        """The runs of the comparison."""
        return Plan(
            dict.fromkeys(self.cells, self.arms), dict.fromkeys(self.cells, self.rates), self.base.steps, self.seeds,
            self.tuning_seeds, clock=clock_arm(self.arms) if self.equal_time else "",
        )  # fmt: skip

    def settings(self, job: Job) -> Settings:
        """The settings of a run. Tuning validates at the end only, a run of other length as often as the plain one."""
        every = job.steps if job.tuning else max(1, round(self.base.eval_every * job.steps / self.base.steps))
        return replace(
            self.base, estimator=job.arm, group_size=job.cell.group_size, order=job.cell.order, lr=job.rate,
            prompts=self.budget // job.cell.group_size, seed=job.seed + (TUNING_SEED if job.tuning else 0),
            steps=job.steps, eval_every=every, checkpoint_every=job.steps,
        )  # fmt: skip


@dataclass(frozen=True)
class LanguageModel(Runner):
    """The runs of a comparison. out: where they write; cache: of warm starts; keep: the logs of single rollouts too.
    jobs: how many run side by side, and invocation: by which call, which their seconds depend on."""

    comparison: Comparison
    out: Path
    cache: Path
    keep: bool = False
    jobs: int = 1
    invocation: str = field(default_factory=lambda: secrets.token_hex(4))

    def key(self, job: Job) -> str:
        settings = self.comparison.settings(job)
        mark = fingerprint(method_of(settings.estimator))
        versions = [torch.__version__, transformers.__version__, mark, plugins.mark()]
        return files.key(__name__, versions, settings.as_dict())

    def prepare(self, job: Job) -> None:
        """One step that is not kept: the warm start is in the cache before several runs want it at once."""
        settings = replace(self.comparison.settings(job), steps=1, eval_every=1)
        with contextlib.redirect_stdout(io.StringIO()):
            train(settings, self.out / UNFINISHED / "warm_up", self.cache)

    def run(self, job: Job) -> Record:
        settings, name = self.comparison.settings(job), self.key(job)
        folder = self.out / ("logs" if self.keep else UNFINISHED) / name
        # What a run says, and its progress bar, belong to no reader here.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            started = time.perf_counter()
            summary = train(settings, folder, self.cache)
            wall = time.perf_counter() - started
            rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        if not self.keep:
            shutil.rmtree(folder)
        validation = summary["validation_pass1"]
        return {
            "settings": settings.as_dict(),
            "invocation": self.invocation,
            "machine": machine() | {"jobs": self.jobs},
            "wall_seconds": wall,
            "topics": {topic: row["end"] for topic, row in validation.items()},
            "curve": curve(rows, validation["all"]["start"]),
        }

    def score(self, record: Record) -> float:
        """Validation pass@1 after the last step."""
        return float(record["curve"][-1]["validation_pass1"])

    def seconds(self, record: Record) -> float:
        """Seconds of training, without validating and measuring."""
        return float(record["curve"][-1]["seconds"])


def curve(rows: list[Record], start: list[float | None]) -> list[Record]:
    """A row for the warm start and one for each validation; TRACED quantities are means over the steps in between.

    rows: those of metrics.jsonl. seconds: of training so far.
    """
    first = {"step": 0, "seconds": 0.0, "validation_pass1": start[0], "validation_se": start[1]}
    found, since, spent = [first | dict.fromkeys(TRACED)], [], 0.0
    for row in rows:
        since.append(row)
        spent += sum(value for name, value in row.items() if name.startswith("seconds_") and name not in UNTIMED)
        if row["validation_pass1"] is None:
            continue
        told = {name: row[name] for name in ("step", "validation_pass1", "validation_se")} | {"seconds": spent}
        for name in TRACED:
            there = [r[name] for r in since if r[name] is not None]
            told[name] = sum(there) / len(there) if there else None
        found.append(told)
        since = []
    return found


@lru_cache(maxsize=1)
def machine() -> Record:
    """What the seconds of a run depend on, beside its settings."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), model)
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    return {"processor": model, "cores": cli.available_cores(), **versions, "transformers": transformers.__version__}


def simulate(runner: LanguageModel, minutes: float | None = None) -> tuple[dict[Job, Record], list[str]]:
    """The runs of the comparison, as many as fit into `minutes`; see `compare.jobs.finish`. What a run that was stopped
    or killed left is removed."""
    shutil.rmtree(runner.out / UNFINISHED, ignore_errors=True)
    try:
        return finish(runner.comparison.plan, runner, runner.out / RUNS, runner.jobs, minutes)
    finally:
        shutil.rmtree(runner.out / UNFINISHED, ignore_errors=True)


def tables_of(runner: LanguageModel, done: Mapping[Job, Record]) -> tuple[list[Record], list[Record]]:
    """(one row a run, one row a run and validation); `run` names a run's file."""
    runs, curves = [], []
    for stage, job in wanted(runner.comparison.plan, runner, done):
        if job not in done:
            continue
        record, spent = done[job], runner.seconds(done[job])
        name = {
            "run": runner.key(job), "stage": stage, "arm": job.arm, **job.cell._asdict(), "learning_rate": job.rate,
            "seed": runner.comparison.settings(job).seed, "steps": job.steps,
        }  # fmt: skip
        first, *line = record["curve"]
        told = {"start": first["validation_pass1"], "final": runner.score(record)}
        told["mean"] = sum(row["validation_pass1"] for row in line) / len(line)
        told |= {"seconds": spent, "seconds_per_step": spent / job.steps}
        told |= {quantity: _over_training(line, quantity) for quantity in TRACED}
        told |= {quantity: line[-1][quantity] for quantity in AT_END}
        machine = ", ".join(f"{k} {v}" for k, v in record["machine"].items())
        runs.append({**name, **told, "wall_seconds": record["wall_seconds"], "invocation": record["invocation"],
                     "machine": machine})  # fmt: skip
        curves += [{**name, "record": i, **row} for i, row in enumerate(record["curve"])]
    return runs, curves


def _over_training(line: list[Record], quantity: str) -> float | None:
    """Mean over the steps: records are means over the steps since the one before."""
    steps = [row["step"] - before["step"] for before, row in pairwise([{"step": 0}, *line])]
    there = [(row[quantity], n) for row, n in zip(line, steps, strict=True) if row[quantity] is not None]
    return sum(value * n for value, n in there) / sum(n for _, n in there) if there else None
