"""The command line that all programs share: typed arguments, one way to refuse, one way to end."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

from ebpo_sim import plugins, report
from ebpo_sim.errors import InputError
from ebpo_sim.worlds import grammar

GROUP_SIZES = 1024  # rollouts a prompt; 2 to 32 are usual
COUNTS = 10**12  # of prompts, steps, replicates: beyond it nothing could be simulated, and sums leave 64 bits
SEEDS = 2**62
PER_CORE = 16  # threads or processes: more only cost memory
DAMAGE = "; files already written are whole"


class Parser(argparse.ArgumentParser):
    """Refuses in one line, as everything else does, and takes no abbreviations: a new option would change them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})
        self.add_argument(
            "--load", action="append", default=[], metavar="FILE.py", help="run a file that registers parts of your own"
        )

    def parse_args(self, *args: Any, **kwargs: Any) -> argparse.Namespace:  # type: ignore[override]
        """The arguments, after the files of --load have been run. Raises InputError for what cannot be read or run."""
        given: argparse.Namespace = super().parse_args(*args, **kwargs)
        plugins.enter()
        plugins.load(given.load)
        return given

    def error(self, message: str) -> NoReturn:
        """Raises InputError instead of printing the usage."""
        raise InputError(f"{message}; see --help")

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        """Argparse takes "--" behind an option for no value at all, and would hand on an empty list."""
        if action.option_strings and "--" in arg_strings:
            self.error(f"argument {'/'.join(action.option_strings)}: expected a value, got '--'")
        return super()._get_values(action, arg_strings)


def between(option: str, value: int, low: int, high: int, remedy: str = "") -> None:
    """Raises InputError unless low <= value <= high."""
    if not low <= value <= high:
        bound = f"at least {low}" if value < low else f"at most {high}"
        raise InputError(f"{option} must be {bound}, got {value}{': ' if remedy else ''}{remedy}")


def check_group_size(value: int) -> None:
    """Raises InputError for a --group-size that no study takes."""
    between("--group-size", value, 1, GROUP_SIZES, "2 to 32 are usual")


def check_seed(value: int) -> None:
    """Raises InputError for a --seed below 0 or from 2^62."""
    between("--seed", value, 0, SEEDS - 1)


def check_threads(value: int, option: str = "--threads") -> None:
    """Raises InputError unless there are between 1 and 16 threads (or processes) a core."""
    between(option, value, 1, PER_CORE * available_cores(), f"this machine has {available_cores()} cores")


@dataclass(frozen=True)
class StudyArguments:
    """What a study is asked for; empty tuples and None mean the study's own default."""

    quick: bool
    seed: int
    out: str
    json: bool
    threads: int
    group_sizes: tuple[int, ...]
    worlds: tuple[str, ...]
    estimators: tuple[str, ...]
    prompts: int | None
    steps: int | None
    burn_in: int | None
    replicates: int | None
    yes: bool = False


def parse_study(study: str, about: str, argv: Sequence[str]) -> StudyArguments:
    """The shared options of `python -m ebpo_sim.<study>`. Raises InputError for impossible values."""
    parser = Parser(
        prog=f"python -m ebpo_sim.{study}",
        description=about,
        epilog=grammar.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="a small version of everything, for a first look")
    add(
        "--world",
        action="append",
        default=[],
        metavar="WORLD",
        help="population of prompts (repeatable; grammar below)",
    )
    add(
        "--group-size",
        action="append",
        default=[],
        type=int,
        metavar="G",
        help="rollouts per prompt (repeatable)",
    )
    add(
        "--estimator",
        action="append",
        default=[],
        metavar="NAME",
        help="registered estimator, or NAME:setting=value,... (repeatable); a wrong name lists the right ones",
    )
    add("--prompts", type=int, metavar="M", help="prompts per batch of the simulation")
    add("--steps", type=int, metavar="T", help="batches per replicate")
    add(
        "--burn-in",
        type=int,
        metavar="B",
        help="batches learnt from but not scored; default half of the steps",
    )
    add("--replicates", type=int, metavar="R", help="independent streams, for the standard errors")
    add("--seed", type=int, default=0, help="same seed, same bytes, for any number of threads (default 0)")
    add("--threads", type=int, default=available_cores(), help="default: all cores")
    add("--out", default=f"results/{study}", metavar="DIR", help=f"where files go (default results/{study})")
    add("--json", action="store_true", help="print only the JSON summary")
    add_yes(parser)
    given = parser.parse_args(argv)
    check_threads(given.threads)
    check_seed(given.seed)
    for size in given.group_size:
        check_group_size(size)
    for name, low in (("prompts", 1), ("steps", 1), ("burn_in", 0), ("replicates", 2)):
        value = getattr(given, name)
        if value is not None:
            between(f"--{name.replace('_', '-')}", value, low, COUNTS)
    return StudyArguments(
        quick=given.quick,
        seed=given.seed,
        out=given.out,
        json=given.json,
        threads=given.threads,
        group_sizes=tuple(dict.fromkeys(given.group_size)),
        worlds=tuple(dict.fromkeys(given.world)),
        estimators=tuple(dict.fromkeys(given.estimator)),
        prompts=given.prompts,
        steps=given.steps,
        burn_in=given.burn_in,
        replicates=given.replicates,
        yes=given.yes,
    )


def add_yes(parser: argparse.ArgumentParser) -> None:
    """The option that lets a run begin which is estimated to take longer than `budget.LONGEST`."""
    parser.add_argument("--yes", action="store_true", help="begin even where more than 24 hours are estimated")


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Terminated(SystemExit):
    """SIGTERM, as an exception: what is open is cleaned up on the way out."""


def run(main: Callable[[Sequence[str]], None]) -> None:
    """Run `main` on the command line's arguments, and end the process with one line and a code unless all went well.

    2: refused input (InputError, argparse included), a path that cannot be read or written, sizes beyond the machine.
    130: Ctrl-C. 143: SIGTERM. 141, without a line: whoever read the output has gone, as with `| head`.
    Any other exception is a fault of the program and stays visible.
    """
    report.take_any_text()
    try:
        with _signals():
            main(sys.argv[1:])
            report.flush()
    except InputError as error:
        _leave(2, str(error))
    except KeyboardInterrupt:
        _leave(130, f"interrupted{DAMAGE}")
    except Terminated:
        _leave(143, f"terminated{DAMAGE}")
    except SystemExit:  # --help
        _deliver()
        raise
    except report.ReaderGone:
        report.discard_output()
        sys.exit(141)
    except OSError as error:
        _leave(2, _reason(error))
    except MemoryError as error:
        _leave(2, f"out of memory ({str(error) or 'no more to be had'}): lower the sizes or --threads")
    except RecursionError:
        _leave(2, "the input is nested too deeply: make it simpler")
    except OverflowError as error:
        _leave(2, f"a number in the input is too large ({error}): lower it")


def _leave(code: int, line: str) -> NoReturn:
    _deliver()
    report.fail(line)
    sys.exit(code)


def _deliver() -> None:
    """What was said before the end, where somebody still takes it."""
    try:
        report.flush()
    except OSError:
        report.discard_output()


def _reason(error: OSError) -> str:
    place = error.filename2 if error.filename2 is not None else error.filename
    if error.strerror and isinstance(place, str | bytes):
        return f"{os.fsdecode(place)}: {error.strerror}"
    return error.strerror or str(error) or type(error).__name__


@contextmanager
def _signals() -> Iterator[None]:
    """SIGTERM ends as Ctrl-C does, by an exception; both only where signals can be handled, and not where ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    mine = os.getpid()

    def terminate(number: int, frame: object) -> None:
        if os.getpid() == mine:
            raise Terminated(143)
        signal.signal(number, signal.SIG_DFL)  # a forked child: what it cleaned up would be ours
        os.kill(os.getpid(), number)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handlers: dict[int, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: terminate}
    for number, old in before.items():
        if old is not signal.SIG_IGN:
            signal.signal(number, handlers[number])
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old if old is not None else signal.SIG_DFL)
