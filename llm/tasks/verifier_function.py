"""The function side of a verifier worker: the processes that import a verifier function and run it.

The loader imports the function once and forks the runner, which judges one sample after another under resource limits
until it is killed; the next runner is another fork, so a time-out costs milliseconds and no import. A module that
starts threads or CUDA when it is imported cannot be forked: there the loader is the runner, and a restart imports
again. `verifier_worker.py` forks the loader and keeps watch. POSIX; the limit of memory and the end with the parent
hold on Linux.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import importlib.util
import inspect
import json
import math
import operator
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from process_limits import address_space, die_with_parent, limit_resources

SPENT = 8  # a runner that keeps an eighth of its memory after a sample is replaced: the next has what the first had


def run(control: socket.socket, name: str, memory_mb: int) -> None:
    """Import the function, then serve every channel that comes over `control`, until it closes.

    Says {"ready": true} or {"refused": why} once, and for each channel {"pid": runner} and {"ended": how}.
    """

    def say(message: dict[str, Any]) -> None:
        control.sendall(json.dumps(message).encode() + b"\n")

    try:
        function = load(name)
    except BaseException as error:
        say({"refused": _text(error)})
        return None
    torch = sys.modules.get("torch")
    forks = threading.active_count() == 1 and not (torch is not None and torch.cuda.is_initialized())
    say({"ready": True})
    while True:
        _, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not descriptors:
            os._exit(0)  # what runs at the end of a program is the runner's business
        channel = socket.socket(fileno=descriptors[0])
        if not forks:
            say({"pid": os.getpid()})
            return serve(function, channel, memory_mb)
        sys.stdout.flush()
        loader, runner = os.getpid(), os.fork()
        if runner == 0:
            control.close()
            with contextlib.suppress(OSError):
                os.setsid()
            die_with_parent(loader)
            return serve(function, channel, memory_mb)
        channel.close()
        say({"pid": runner})
        say({"ended": _how(os.waitpid(runner, 0)[1])})


def serve(function: Callable[[str, str], Any], channel: socket.socket, memory_mb: int) -> None:
    """Judge the samples that come over the channel until it closes. A request is a line: a nonce and a JSON object."""
    me, most = os.getpid(), limit_resources(memory_mb)
    with channel, channel.makefile("rb") as requests:
        for line in requests:
            nonce, _, sample = line.partition(b" ")
            asked = json.loads(sample)
            said = judge(function, asked["answer"], asked["gold"])
            if os.getpid() != me:
                os._exit(0)  # a fork of the function's came back from it: its verdict is the original's to give
            said["nonce"] = nonce.decode()
            said["spent"] = most > 0 and address_space() > most - (memory_mb << 20) * (SPENT - 1) // SPENT
            channel.sendall(json.dumps(said).encode() + b"\n")


def load(name: str) -> Callable[[str, str], Any]:
    """The function named "package.module:function" or "path/to/file.py:function"; raises whatever goes wrong."""
    source, _, attribute = name.rpartition(":")
    if source.endswith(".py"):
        path = Path(source).resolve()
        sys.path.insert(0, str(path.parent))
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(source)
    function: Callable[[str, str], Any] = operator.attrgetter(attribute)(module)
    if not callable(function):
        raise TypeError(f"{attribute} is {type(function).__name__}, not a function")
    try:
        signature = inspect.signature(function)
    except ValueError:  # some built-in functions have none
        return function
    signature.bind("answer", "gold")
    return function


def judge(function: Callable[[str, str], Any], answer: str, gold: str) -> dict[str, Any]:
    """{"score": finite number}, or {"failure": kind, "why": text}."""
    try:
        said = function(answer, gold)
    except BaseException as error:  # SystemExit too: one sample must not end the run
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
            return {"failure": "memory", "why": "more memory than the limit leaves it beyond what its import takes"}
        return {"failure": "raised", "why": _text(error)}
    try:
        score = math.nan if isinstance(said, str | bytes) else float(said)
    except BaseException:
        score = math.nan
    if not math.isfinite(score):
        return {"failure": "not_a_number", "why": f"returned {type(said).__name__}, not a finite number"[:500]}
    return {"score": score}


def _text(error: BaseException) -> str:
    return traceback.format_exception_only(error)[-1].strip()[:500]


def _how(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"its process ended with exit code {code}"
    return f"its process was ended by {signal.Signals(-code).name if -code in set(signal.Signals) else -code}"
