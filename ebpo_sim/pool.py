"""Worker processes that never outlive the study that started them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection

from ebpo_sim import plugins
from ebpo_sim.errors import InputError


@contextmanager
def workers(count: int) -> Iterator[ProcessPoolExecutor | None]:
    """`count` spawned processes, or None for one: the caller then works itself.

    However the parent ends, kill -9 included, its workers end with it; Ctrl-C is left to the parent, also while they
    start. A calling script needs the usual `if __name__ == "__main__"`. Raises InputError where a worker was killed.
    """
    if count <= 1:
        yield None
        return
    pool = ProcessPoolExecutor(
        count, mp_context=multiprocessing.get_context("spawn"), initializer=follow_parent, initargs=(plugins.loaded(),)
    )
    try:
        with _without_interrupts():
            for _ in range(count):  # each starts a process, which inherits what is blocked here
                pool.submit(os.getpid)
        yield pool
    except BaseException as error:
        for process in list((pool._processes or {}).values()):  # a job may take minutes: its result is wanted no more
            process.terminate()
        pool.shutdown(wait=True, cancel_futures=True)
        if isinstance(error, BrokenProcessPool):
            raise InputError(
                f"one of {count} worker processes was killed, perhaps for its memory: ask for fewer; what is finished "
                "is kept, the same command goes on from there"
            ) from error
        raise
    pool.shutdown()


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Processes started here never get SIGINT; one that arrives meanwhile reaches this process afterwards."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def follow_parent(files: tuple[str, ...] = ()) -> None:
    """In a worker: leave SIGINT to the parent, end when the parent is gone, load the parts that it loaded."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    plugins.enter()
    plugins.load(files)


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)
