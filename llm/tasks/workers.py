"""One worker that runs a verifier function: asked a sample at a time, restarted when it is lost.

The other end is `verifier_worker.py`, a process that keeps the limits and starts others that run the function.
Requests go one by one over a socket whose every send and receive has a deadline: the limit concerns one sample, and no
process can hold its parent up. For POSIX systems.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ebpo_sim.errors import InputError

START_SECONDS = 300.0  # for the function's imports, which no sample's limit includes
GRACE_SECONDS = 2.0  # the worker keeps the limit itself; so much over it, it is taken to be stopped
CLOSE_SECONDS = 10.0  # for a worker to end by itself with all it has started
OUTPUT_BYTES = 1 << 16  # of what the function prints that are shown, over the whole life of a worker
REMEDY = "give package.module:function or path/to/file.py:function, called as function(answer, gold)"


class Worker:
    """A process that is started at first use and again whenever it is lost.

    name: the verifier's, for messages. function: what `verifier_function.load` takes. seconds: time limit of a sample.
    memory_mb: what a process may take beyond what it has after the function's import; 0: no limit.
    """

    def __init__(self, name: str, function: str, seconds: float, memory_mb: int = 0) -> None:
        self._name, self._function, self._seconds, self._memory_mb = name, function, seconds, memory_mb
        self._output = OUTPUT_BYTES
        self._running: tuple[subprocess.Popen[bytes], socket.socket] | None = None

    def ask(self, answer: str, gold: str) -> dict[str, Any]:
        """{"score": number}, or {"failure": kind, "why": text}. Raises InputError where the function cannot be used."""
        used = self._running is not None
        self.start()
        deadline = time.monotonic() + self._seconds + GRACE_SECONDS
        try:
            return self._exchange({"answer": answer, "gold": gold}, deadline)
        except TimeoutError:
            return {"failure": "timed_out", "why": f"no verdict within {self._seconds:g} s"}
        except ConnectionError:
            self._output = 0  # else what is printed would have a bound a process, and no bound
        if used:  # it may have been lost to what an earlier sample left behind: a fresh one is asked
            return self.ask(answer, gold)
        return {"failure": "raised", "why": "the worker process died"}

    def start(self) -> None:
        """Start the process unless it runs. Raises InputError where the function cannot be imported."""
        if self._running is not None:
            return
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-P", str(Path(__file__).with_name("verifier_worker.py")), str(os.getpid())],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,  # what the function prints is no output of this program
                start_new_session=True,  # it is killed together with its children, and Ctrl-C is not its business
            )
        self._running = process, ours
        path = [*map(str, filter(None, sys.path)), os.getcwd()]  # a script's own does not hold the working folder
        first = {"function": self._function, "path": path, "seconds": self._seconds}
        first |= {"memory_mb": self._memory_mb, "output": self._output}
        try:
            why = self._exchange(first, time.monotonic() + START_SECONDS).get("refused")
        except TimeoutError:
            why = f"its import takes over {START_SECONDS:g} s"
        except ConnectionError:
            why = "its import ended the process"
        if why is not None:
            self.stop()
            raise InputError(f"verifier {self._name!r} cannot be used ({why}): {REMEDY}")

    def _exchange(self, message: dict[str, Any], deadline: float) -> dict[str, Any]:
        """The reply to a message. Raises TimeoutError or ConnectionError where none comes; the process is gone then."""
        assert self._running is not None
        process, link = self._running
        line = b""
        try:
            link.settimeout(max(deadline - time.monotonic(), 1e-6))
            link.sendall(json.dumps(message).encode() + b"\n")
            while not line.endswith(b"\n"):
                link.settimeout(max(deadline - time.monotonic(), 1e-6))
                part = link.recv(1 << 16)
                if not part:
                    raise ConnectionError
                line += part
            said: dict[str, Any] = json.loads(line)
            if not isinstance(said, dict) or not said.keys() & {"score", "failure", "ready", "refused"}:
                raise ConnectionError
        except ValueError as error:
            self.stop()
            raise ConnectionError from error
        except TimeoutError:
            _kill(process)  # it is stopped itself: nothing is to be waited for
            self.stop()
            raise
        except BaseException:  # an interrupt too: the reply to come would be taken for the next one's
            self.stop()
            raise
        return said

    def hang_up(self) -> None:
        """Tell the process to end, without waiting for it."""
        if self._running is not None:
            self._running[1].close()

    def stop(self) -> None:
        """End the process and all it has started; it starts again when it is asked."""
        if self._running is None:
            return
        self.hang_up()
        (process, _), self._running = self._running, None
        try:
            process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            _kill(process)
            process.wait()
        if process.returncode:  # it was killed: its group is left
            _kill(process)


def stop_all(workers: Sequence[Worker]) -> None:
    """End them all."""
    for worker in workers:
        worker.hang_up()
    for worker in workers:
        worker.stop()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process with those of its session."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # it ended by itself
        os.killpg(process.pid, signal.SIGKILL)
