"""One worker process that runs a verifier function: asked a sample at a time, killed when it is late.

The other end is `verifier_worker.py`. Requests go one by one over a socket whose every send and receive has a deadline:
the limit concerns one sample, and a hung process cannot hold its parent up. For POSIX systems.
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
GUARD_SECONDS = 5.0  # this much over the limit, a worker whose parent is gone ends itself
CLOSE_SECONDS = 2.0  # for a worker to end by itself
REMEDY = "give package.module:function or path/to/file.py:function, called as function(answer, gold)"


class Worker:
    """A process that is started at first use and again after every time-out or death.

    name: the verifier's, for messages. function: what `verifier_worker.load` takes. seconds: time limit of a sample.
    """

    def __init__(self, name: str, function: str, seconds: float) -> None:
        self._name, self._function, self._seconds = name, function, seconds
        self._running: tuple[subprocess.Popen[bytes], socket.socket] | None = None

    def ask(self, answer: str, gold: str) -> dict[str, Any]:
        """{"score": number}, or {"failure": kind, "why": text}. Raises InputError where the function cannot be used."""
        self.start()
        try:
            return self._exchange({"answer": answer, "gold": gold}, self._seconds)
        except TimeoutError:
            return {"failure": "timed_out", "why": f"no verdict within {self._seconds:g} s"}
        except ConnectionError:
            return {"failure": "raised", "why": "the worker process died"}

    def start(self) -> None:
        """Start the process unless it runs. Raises InputError where the function cannot be imported."""
        if self._running is not None:
            return
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-P", str(Path(__file__).with_name("verifier_worker.py")), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=2,  # what the function prints is no output of this program
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # it is killed together with its children, and Ctrl-C is not its business
            )
        self._running = process, ours
        path = [*map(str, filter(None, sys.path)), os.getcwd()]  # a script's own does not hold the working folder
        first = {"function": self._function, "path": path, "guard": self._seconds + GUARD_SECONDS}
        try:
            why = self._exchange(first, START_SECONDS).get("refused")
        except TimeoutError:
            why = f"its import takes over {START_SECONDS:g} s"
        except ConnectionError:
            why = "its import ended the process"
        if why is not None:
            self.stop()
            raise InputError(f"verifier {self._name!r} cannot be used ({why}): {REMEDY}")

    def _exchange(self, message: dict[str, Any], seconds: float) -> dict[str, Any]:
        """The reply to a message. Raises TimeoutError or ConnectionError where none comes; the process is gone then."""
        assert self._running is not None
        process, link = self._running
        deadline, line = time.monotonic() + seconds, b""
        try:
            link.settimeout(seconds)
            link.sendall(json.dumps(message).encode() + b"\n")
            while not line.endswith(b"\n"):
                link.settimeout(max(deadline - time.monotonic(), 1e-6))
                part = link.recv(1 << 16)
                if not part:
                    raise ConnectionError
                line += part
        except BaseException:  # an interrupt too: the reply to come would be taken for the next one's
            _kill(process)
            self.stop()
            raise
        said: dict[str, Any] = json.loads(line)
        return said

    def stop(self) -> None:
        """End the process; it starts again when it is asked."""
        if self._running is None:
            return
        (process, link), self._running = self._running, None
        link.close()
        try:
            process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            _kill(process)
            process.wait()


def stop_all(workers: Sequence[Worker]) -> None:
    """End them all."""
    for worker in workers:
        worker.stop()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that was not waited for yet, with the children it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # it ended by itself
        os.killpg(process.pid, signal.SIGKILL)
