"""Ctrl-C while libraries load, which takes seconds: one line instead of where in them it was. Itself loads nothing."""

import os
import signal


def guard() -> None:
    """Until `ebpo_sim.cli.run` takes over, an interrupt ends the process with one line and code 130."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def _leave(number: int, frame: object) -> None:
    os.write(2, b"error: interrupted before anything began\n")
    os._exit(130)
