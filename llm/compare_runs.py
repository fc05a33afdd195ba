"""The runs of a comparison: a pool of processes, and a file for each run that is finished.

A run is one call of `llm.train.train` in a process of its own with the threads of its settings. Its file,
runs/<hash>.json, is named by a hash of all that decides its numbers, so a comparison that was stopped goes on where it
was, and files of other settings are never taken for it.
"""

from __future__ import annotations

import contextlib
import io
import json
import platform
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import transformers

from ebpo_sim import cache as files
from ebpo_sim import cli, make, plugins, report
from ebpo_sim.errors import InputError
from ebpo_sim.estimators import checkpoint
from ebpo_sim.methods.method import estimator_of
from ebpo_sim.pool import workers
from llm.compare_plan import Job, Plan, Record, final, seconds, wanted
from llm.settings import Settings
from llm.train import train

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


def key(settings: Settings) -> str:
    """A hash of all that decides a run's numbers, sources too."""
    versions = [
        torch.__version__,
        transformers.__version__,
        checkpoint.fingerprint(make(estimator_of(settings.estimator))),
    ]
    versions.append(plugins.mark())
    return files.key(__name__, versions, settings.as_dict())


def load(path: Path, settings: Settings) -> Record | None:
    """A finished run; None where there is none, or a file that is damaged or of other settings: it is done again."""
    record: Record | None = files.load(path)
    if record is None:
        return None
    if record["settings"] != settings.as_dict():
        report.note(f"{path} is of other settings: its run is done again")
        return None
    return record


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


def work(settings: Settings, out: Path, cache: Path, keep: bool, marks: Record) -> Record:
    """Train, keep the curve in out/runs, drop the logs of single rollouts unless `keep`."""
    name = key(settings)
    folder = out / ("logs" if keep else UNFINISHED) / name
    # What a run says, and its progress bar, belong to no reader here.
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        started = time.perf_counter()
        summary = train(settings, folder, cache)
        wall = time.perf_counter() - started
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    validation = summary["validation_pass1"]
    record = {
        "settings": settings.as_dict(),
        **marks,
        "wall_seconds": wall,
        "topics": {topic: row["end"] for topic, row in validation.items()},
        "curve": curve(rows, validation["all"]["start"]),
    }
    kept: Record = files.store(out / RUNS / f"{name}.json", record)
    if not keep:
        shutil.rmtree(folder)
    return kept


def warm_up(settings: Settings, out: Path, cache: Path) -> None:
    """One step that is not kept: the warm start is in the cache before several runs want it at once."""
    with contextlib.redirect_stdout(io.StringIO()):
        train(replace(settings, steps=1, eval_every=1), out / UNFINISHED / "warm_up", cache)


@lru_cache(maxsize=1)
def machine() -> Record:
    """What the seconds of a run depend on, beside its settings."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), model)
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    return {"processor": model, "cores": cli.available_cores(), **versions, "transformers": transformers.__version__}


class _Here(Executor):
    """Runs what is submitted at once, in this process."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def expected(job: Job, done: Mapping[Job, Record]) -> float:
    """Seconds a run will take: a tenth more than the slowest of its kind so far, or of all; 0 before the first."""
    pace = {other: record["wall_seconds"] / other.steps for other, record in done.items()}
    alike = [p for other, p in pace.items() if (other.arm, other.group_size) == (job.arm, job.group_size)]
    return 1.1 * job.steps * max(alike or pace.values(), default=0.0)


def simulate(
    plan: Plan, out: Path, cache: Path, jobs: int, minutes: float | None = None, keep: bool = False
) -> tuple[dict[Job, Record], list[str]]:
    """All runs of the plan, or as many as fit into `minutes`: (those finished, a line for each that failed).

    Runs whose files are there are read. The caller holds the lock of `out`. Raises InputError for settings
    that a run refuses.
    """
    marks = {"invocation": secrets.token_hex(4), "machine": machine() | {"jobs": jobs}}
    began = time.monotonic()
    done, looked, started, failed = dict[Job, Record](), set[Job](), set[Job](), list[str]()
    flying: dict[Future[Record], Job] = {}
    warm = False  # is the warm start in the cache

    def in_time(job: Job) -> bool:
        return minutes is None or time.monotonic() - began + expected(job, done) <= 60 * minutes

    with (
        _without_leftovers(out / UNFINISHED),
        workers(jobs) as processes,
        report.progress(0, "compare") as bar,
    ):
        pool = processes or _Here()
        while True:
            listed = [job for _, job in wanted(plan, done)]
            fresh = [job for job in listed if job not in started and job not in done]
            on_disk = {job: _stored(plan, job, out) for job in fresh if job not in looked}
            looked |= on_disk.keys()
            done |= {job: record for job, record in on_disk.items() if record is not None}
            bar.total, bar.n = len(listed), len(done)
            bar.refresh()
            if any(on_disk.values()):
                continue  # the list may have grown
            while fresh and len(flying) < jobs and in_time(fresh[0]):
                job = fresh.pop(0)
                if not warm:
                    pool.submit(warm_up, plan.settings(job), out, cache).result()
                    warm = True
                started.add(job)
                flying[pool.submit(work, plan.settings(job), out, cache, keep, marks)] = job
            if not flying:
                break
            for future in wait(flying, return_when=FIRST_COMPLETED).done:
                job = flying.pop(future)
                error = future.exception()
                if error is None:
                    done[job] = future.result()
                elif isinstance(error, InputError | BrokenProcessPool):
                    raise error
                else:  # one run must not cost the others
                    failed.append(f"{job.arm}, G = {job.group_size}, lr {job.rate:g}, seed {job.seed}: {error!r}")
    return done, failed


@contextlib.contextmanager
def _without_leftovers(folder: Path) -> Iterator[None]:
    """Remove what runs that were stopped wrote: now, of one that was killed, and in the end."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _stored(plan: Plan, job: Job, out: Path) -> Record | None:
    settings = plan.settings(job)
    return load(out / RUNS / f"{key(settings)}.json", settings)


def tables(plan: Plan, done: Mapping[Job, Record]) -> tuple[list[Record], list[Record]]:
    """(one row a run, one row a run and validation); `run` names a run's file."""
    runs, curves = [], []
    for stage, job in wanted(plan, done):
        if job not in done:
            continue
        record = done[job]
        name = {
            "run": key(plan.settings(job)), "stage": stage, "arm": job.arm, "group_size": job.group_size,
            "order": job.order, "learning_rate": job.rate, "seed": job.seed, "steps": job.steps,
        }  # fmt: skip
        first, *line = record["curve"]
        told = {"start": first["validation_pass1"], "final": final(record)}
        told["mean"] = sum(row["validation_pass1"] for row in line) / len(line)
        told |= {"seconds": seconds(record), "seconds_per_step": seconds(record) / job.steps}
        told |= {quantity: _over_training(line, quantity) for quantity in TRACED}
        told |= {quantity: line[-1][quantity] for quantity in AT_END}
        machine = ", ".join(f"{k} {v}" for k, v in record["machine"].items())
        runs.append({**name, **told, "wall_seconds": record["wall_seconds"], "invocation": record["invocation"],
                     "machine": machine})  # fmt: skip
        curves += [{**name, "record": i, **row} for i, row in enumerate(record["curve"])]
    return runs, curves


def _over_training(line: list[Record], quantity: str) -> float | None:
    """Mean over the steps: records are means over the steps since the one before."""
    total, steps, before = 0.0, 0, 0
    for row in line:
        if row[quantity] is not None:
            total += row[quantity] * (row["step"] - before)
            steps += row["step"] - before
        before = row["step"]
    return total / steps if steps else None
