"""The other end of `llm.tasks.verifiers`: a process that runs one verifier function on one sample after another.

Started by file name, so that it imports only this file and what the function needs. One JSON object a line over the
socket whose file descriptor is the argument; standard input is empty, and what the function prints goes to standard
error.
"""

from __future__ import annotations

import faulthandler
import importlib
import importlib.util
import inspect
import json
import math
import operator
import os
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main() -> None:
    """Read the first request (what to run), say that it is ready, then answer until the connection ends."""
    link = socket.socket(fileno=int(sys.argv[1]))
    link.set_inheritable(False)
    with link, link.makefile("rb") as requests, open(os.devnull, "w") as nothing:

        def reply(message: dict[str, Any]) -> None:
            link.sendall(json.dumps(message).encode() + b"\n")

        asked = json.loads(requests.readline())
        sys.path[:] = asked["path"]
        try:
            function = load(asked["function"])
        except BaseException as error:
            reply({"refused": _text(error)})
            return
        reply({"ready": True})
        for line in requests:
            sample = json.loads(line)
            # Should the parent be gone when the function hangs, nobody else ends this process.
            faulthandler.dump_traceback_later(asked["guard"], exit=True, file=nothing)
            said = judge(function, sample["answer"], sample["gold"])
            faulthandler.cancel_dump_traceback_later()
            reply(said)


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
        return {"failure": "raised", "why": _text(error)}
    try:
        score = math.nan if isinstance(said, str | bytes) else float(said)
    except BaseException:
        score = math.nan
    if not math.isfinite(score):
        return {"failure": "not_a_number", "why": f"returned {type(said).__name__}, not a finite number"}
    return {"score": score}


def _text(error: BaseException) -> str:
    return traceback.format_exception_only(error)[-1].strip()[:500]


if __name__ == "__main__":
    main()
