"""The runs of a plan, done: worker processes, and a file for each run that is finished.

A run's file is named by `Runner.key`, a hash of all that decides its numbers, so a comparison that was stopped goes on
where it was, and files of other settings are never taken for it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from ebpo_sim import cache, report
from ebpo_sim.compare.plan import Done, Job, Plan, Record, Runner, wanted
from ebpo_sim.errors import InputError
from ebpo_sim.pool import workers


class _Here(Executor):
    """Runs what is submitted at once, in this process."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def work(runner: Runner, job: Job, folder: Path) -> Record:
    """Run and keep: the record as its file gives it."""
    kept: Record = cache.store(folder / f"{runner.key(job)}.json", runner.run(job))
    return kept


def expected(job: Job, done: Done) -> float:
    """Seconds a run will take: a tenth more than the slowest of its kind so far, or of all; 0 before the first."""
    pace = {other: record["wall_seconds"] / other.steps for other, record in done.items()}
    alike = [p for other, p in pace.items() if (other.arm, other.cell) == (job.arm, job.cell)]
    return 1.1 * job.steps * max(alike or pace.values(), default=0.0)


def finish(
    plan: Plan, runner: Runner, folder: Path, processes: int = 1, minutes: float | None = None
) -> tuple[dict[Job, Record], list[str]]:
    """All runs of the plan, or as many as fit into `minutes`: (those finished, a line for each that failed).

    Runs whose files are in `folder` are read; results do not depend on the number of processes (above one, a calling
    script needs the usual `if __name__ == "__main__"`). The caller holds the lock of the folder. Raises InputError for
    settings that a run refuses.
    """
    began = time.monotonic()
    done, listed, queue = dict[Job, Record](), dict[Job, None](), deque[Job]()
    failed, flying, prepared = list[str](), dict[Future[Record], Job](), False

    def in_time(job: Job) -> bool:
        return minutes is None or time.monotonic() - began + expected(job, done) <= 60 * minutes

    with workers(processes) as pool, report.progress(0, "runs") as bar:
        executor = pool or _Here()
        while True:
            while not queue:  # the list grows with what is done
                new = [job for _, job in wanted(plan, runner, done) if job not in listed]
                listed |= dict.fromkeys(new)
                found = {job: cache.load(folder / f"{runner.key(job)}.json") for job in new}
                done |= {job: record for job, record in found.items() if record is not None}
                queue += [job for job in found if found[job] is None]
                if not any(found.values()):
                    break
            bar.total, bar.n = len(listed), len(done)
            bar.refresh()
            while queue and len(flying) < processes and in_time(queue[0]):
                job = queue.popleft()
                if not prepared:
                    executor.submit(runner.prepare, job).result()
                    prepared = True
                flying[executor.submit(work, runner, job, folder)] = job
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
                    failed.append(f"{job.arm}, {job.cell}, rate {job.rate:g}, seed {job.seed}: {error!r}")
    return done, failed


def refuse_failed(failed: list[str]) -> None:
    """Raises InputError where runs failed."""
    if failed:
        raise InputError(f"{len(failed)} runs failed, the first {failed[0]}: finished ones are kept")
