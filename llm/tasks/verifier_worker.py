"""The keeper of a verifier worker: the process between the program and the processes that run its verifier function.

It runs no code of the function's, so that no sample can stop it from keeping time. It starts the function side
(`verifier_function.py`), passes it one sample at a time, checks what comes back, and answers the program with exactly
one verdict. What the function side leaves behind comes to this process: it adopts orphans (Linux), and kills them
after a sample, all of them at a time limit and at the end; it ends when the program does, however that ends.

Started by file name. Standard input is the socket to the program, one JSON object a line: first what to run, then
samples. Of what the function prints a stated number of bytes goes to standard error, and the rest is dropped.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import verifier_function
from process_limits import adopt_orphans, children, die_with_parent

del sys.path[0], sys.modules["verifier_function"], sys.modules["process_limits"]  # a user's module may have the name

FAILURES = ("raised", "timed_out", "memory", "not_a_number")
LONGEST_REPLY = 1 << 16  # bytes of a verdict
LEAVE_SECONDS = 1.0  # for a runner without a sample to end by itself when the worker is closed
KILL_SECONDS = 5.0  # for processes that were killed to be gone


class Gone(Exception):
    """The program at the other end is gone, or the function side is: nothing is left to do."""


class Keeper:
    """The processes of one function; see the module. Raises Gone where the program ended before it said what to run."""

    def __init__(self, link: socket.socket, program: int) -> None:
        self._link, self._program = link, program
        self._watched = [link]  # the program says nothing while it waits: then this is its end
        self._control: socket.socket | None = None  # to the loader
        self._channel: socket.socket | None = None  # to the runner, while there is one
        self._printed, self._runner, self._swept, self._next_sweep = -1, 0, True, 0.0
        self._kept: set[int] = set()  # children that are no orphans
        adopt_orphans()
        first = json.loads(self._request())
        self._seconds, self._memory_mb, self._bytes_left = first["seconds"], first["memory_mb"], first["output"]
        self._control, theirs = socket.socketpair()
        self._printed, printing = os.pipe()
        keeper, self._loader = os.getpid(), os.fork()
        if self._loader == 0:
            die_with_parent(keeper)
            link.close()
            self._control.close()
            os.close(self._printed)
            printed: Any = sys.stdout
            printed.reconfigure(
                encoding="utf-8", errors="backslashreplace", line_buffering=True
            )  # printing must not raise
            nothing = os.open(os.devnull, os.O_RDONLY)
            for source, number in ((nothing, 0), (printing, 1), (printing, 2)):
                os.dup2(source, number)
            os.close(nothing)
            os.close(printing)
            sys.path[:] = first["path"]
            verifier_function.run(theirs, first["function"], self._memory_mb)
            sys.exit()
        theirs.close()
        os.close(printing)

    def run(self) -> None:
        """Say that the function is imported, or why it cannot be; then answer sample after sample. Raises Gone."""
        said = self._from_loader(math.inf) or {"refused": "its import ended the process"}
        self._kept = children() | {self._loader}
        self._say(said)
        while "refused" not in said:
            self._say(self._judged(self._request()))
            self._swept = False

    def end(self) -> None:
        """End every process of the function's."""
        self._watched = []
        if self._channel is not None:
            self._stop(LEAVE_SECONDS)
        self._kept = set()
        if self._control is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._loader, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._loader, 0)
        self._sweep()
        if self._printed >= 0:
            while select.select([self._printed], [], [], 0)[0] and self._pass_on():
                pass

    def _judged(self, request: bytes) -> dict[str, Any]:
        """The verdict of a sample. Raises Gone."""
        ends: list[Any] = [self._channel, self._control]
        if self._channel is not None and select.select(ends, [], [], 0)[0]:
            self._replace()  # it says something unasked, or ended
        fresh, deadline = self._channel is None, math.inf
        while True:
            if self._channel is None:
                self._begin()
            deadline, replace = min(deadline, time.monotonic() + self._seconds), True
            try:
                verdict = self._exchange(request, deadline)
                replace = verdict.pop("spent") or verdict.get("failure") == "memory"
            except TimeoutError:
                verdict = {"failure": "timed_out", "why": f"no verdict within {self._seconds:g} s"}
            except ConnectionError:
                verdict = {"failure": "raised", "why": self._stop()}
            except ValueError as error:
                verdict = {"failure": "raised", "why": str(error)}
            except Gone:
                self._stop()  # there is no sample to finish
                raise
            if replace:
                self._replace()
            if verdict.get("failure") != "memory" or fresh:
                return verdict
            fresh = True  # what earlier samples left behind may have taken the memory: judged again without it

    def _exchange(self, request: bytes, deadline: float) -> dict[str, Any]:
        """What the runner says to a request.

        Raises TimeoutError, ConnectionError where it ended, ValueError where it says something else, and Gone.
        """
        assert self._channel is not None and self._control is not None
        nonce = secrets.token_hex(8)
        unsent, reply = memoryview(nonce.encode() + b" " + request), b""
        self._channel.setblocking(False)
        while b"\n" not in reply:
            ready = self._wait(deadline, [self._channel, self._control], [self._channel] if unsent else [])
            if not ready:
                raise TimeoutError
            if ready == [self._control]:
                raise ConnectionError
            with contextlib.suppress(BlockingIOError):
                if unsent:
                    unsent = unsent[self._channel.send(unsent) :]
                    continue
                part = self._channel.recv(LONGEST_REPLY)
                if not part:
                    raise ConnectionError
                reply += part
                if len(reply) > LONGEST_REPLY:
                    break
        return verdict_of(reply, nonce)

    def _begin(self) -> None:
        """Start a runner. Raises Gone where the loader is."""
        assert self._control is not None
        channel, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self._control, [b"c"], [theirs.fileno()])
            except OSError as error:
                raise Gone from error
        said = self._from_loader(time.monotonic() + KILL_SECONDS)
        if said is None or "pid" not in said:
            raise Gone
        self._channel, self._runner = channel, said["pid"]

    def _stop(self, patience: float = 0.0) -> str:
        """End the runner, by itself within `patience` seconds or not; says how it ended."""
        if self._channel is None:
            return ""
        self._channel.close()
        self._channel = None
        said = self._from_loader(time.monotonic() + patience) if patience else None
        for kill in (os.killpg, os.kill):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                kill(self._runner, signal.SIGKILL)
        said = said or self._from_loader(time.monotonic() + KILL_SECONDS) or {}
        return str(said.get("ended", "its process ended"))

    def _replace(self) -> None:
        """End the runner with all that it has started: the next sample finds a fresh one."""
        self._stop()
        self._sweep()

    def _sweep(self) -> None:
        """Kill the orphans, with all below them: the children that were not there when the function was imported."""
        started = time.monotonic()
        while (found := children(self._kept)) and time.monotonic() < started + KILL_SECONDS:
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
        now = time.monotonic()
        self._swept, self._next_sweep = True, now + min(max(1.0, 50 * (now - started)), 5.0)  # looking takes ms

    def _wait(self, deadline: float, reads: list[Any], writes: list[Any]) -> list[Any]:
        """Those that can be read or written; none at the deadline. Raises Gone where the program is."""
        while True:
            left = deadline - time.monotonic()
            printed = [self._printed] if self._printed >= 0 else []
            can_read, can_write, _ = select.select(
                [*reads, *printed, *self._watched], writes, [], max(0.0, min(left, 1.0))
            )
            if self._printed in can_read:
                self._pass_on()
            ready = [source for source in (*reads, *writes) if source in can_read or source in can_write]
            if ready:
                return ready
            if self._watched and (self._link in can_read or os.getppid() != self._program):
                raise Gone
            if left <= 0:
                return []

    def _pass_on(self) -> bool:
        """Take some of what was printed: the first bytes go on, as far as that does not block; False at its end."""
        said = os.read(self._printed, select.PIPE_BUF)
        if self._bytes_left > 0 and said and select.select([], [2], [], 0)[1]:
            part = said[: self._bytes_left]
            self._bytes_left -= len(part)
            with contextlib.suppress(OSError):
                os.write(
                    2, part if self._bytes_left else part + b"\n[what the verifier prints from here on is dropped]\n"
                )
        if not said:
            os.close(self._printed)
            self._printed = -1
        return bool(said)

    def _say(self, message: dict[str, Any]) -> None:
        try:
            self._link.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise Gone from error

    def _request(self) -> bytes:
        """The program's next line. Raises Gone."""
        parts: list[bytes] = []
        self._watched = []
        while not parts or not parts[-1].endswith(b"\n"):
            if not self._swept and time.monotonic() > self._next_sweep:
                self._sweep()
            if os.getppid() != self._program:
                raise Gone
            if not self._wait(time.monotonic() + 1.0, [self._link], []):
                continue
            parts.append(self._link.recv(1 << 16))
            if not parts[-1]:
                raise Gone
        self._watched = [self._link]
        return b"".join(parts)

    def _from_loader(self, deadline: float) -> dict[str, Any] | None:
        """The loader's next line; None at the deadline and where it has ended. Raises Gone."""
        assert self._control is not None
        line = b""
        while not line.endswith(b"\n"):
            if not self._wait(deadline, [self._control], []):
                return None
            part = self._control.recv(1)  # a line at a time: what follows stays in the socket, where _wait sees it
            if not part:
                return None
            line += part
        said: dict[str, Any] = json.loads(line)
        return said


def verdict_of(reply: bytes, nonce: str) -> dict[str, Any]:
    """The verdict with "spent" in a reply. Raises ValueError for all but one verdict on the request of that nonce."""
    try:
        said = json.loads(reply)
        if reply.count(b"\n") == 1 and said["nonce"] == nonce and type(said["spent"]) is bool:
            if type(said.get("score")) is float and math.isfinite(said["score"]):
                return {"score": said["score"], "spent": said["spent"]}
            if said.get("failure") in FAILURES and isinstance(said["why"], str):
                return {"failure": said["failure"], "why": said["why"], "spent": said["spent"]}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        pass
    raise ValueError("something else than a verdict came from its process")


def main() -> None:
    """Keep one function until the program hangs up or ends."""
    link = socket.socket(fileno=os.dup(0))
    with contextlib.suppress(Gone):
        keeper = Keeper(link, int(sys.argv[1]))
        try:
            keeper.run()
        finally:
            keeper.end()


if __name__ == "__main__":
    main()
