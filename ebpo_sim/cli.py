"""The command line that all programs share: typed arguments, one way to refuse, one way to end."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import field, fields, replace
from types import NoneType
from typing import Any, Literal, NoReturn, TypeVar, get_args, get_origin, get_type_hints

from ebpo_sim import plugins, report
from ebpo_sim.errors import InputError
from ebpo_sim.folders import own_folder

GROUP_SIZES = 1024  # rollouts a prompt; 2 to 32 are usual
COUNTS = 10**12  # of prompts, steps, replicates: beyond it nothing could be simulated, and sums leave 64 bits
SEEDS = 2**62
PER_CORE = 16  # threads or processes: more only cost memory
T = TypeVar("T")
DAMAGE = "; files already written are whole"


class Parser(argparse.ArgumentParser):
    """Refuses in one line, as everything else does, and takes no abbreviations: a new option would change them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})
        self.add_argument(
            "--load", action="append", default=[], metavar="FILE.py", help="run a file that registers parts of your own"
        )
        self.add_argument("--wide", action="store_true", help="tables of all columns, however narrow the terminal")

    def parse_args(self, *args: Any, **kwargs: Any) -> argparse.Namespace:  # type: ignore[override]
        """The arguments, after the files of --load have been run. Raises InputError for what cannot be read or run."""
        given: argparse.Namespace = super().parse_args(*args, **kwargs)
        plugins.enter()
        plugins.load(given.load)
        report.WIDE.set(given.wide)
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


def option(
    default: Any, help: str, low: int | None = None, check: Callable[[Any], None] | None = None, **how: Any
) -> Any:
    """A field of a frozen dataclass of options: its default, or a function that makes it, and what --help says.

    low: the least whole number, COUNTS being the largest. check: raises InputError for a value it refuses. how: what
    else argparse is told (metavar, choices, action); with nargs the field is positional.
    """
    metadata = {"help": help, "low": low, "check": check, "how": how}
    if callable(default):
        return field(default_factory=default, metadata={"made": default, **metadata})
    return field(default=default, metadata={"made": lambda: default, **metadata})


def out_option(
    help: str = "where files go (default %(default)s; with other options a folder of its own in it)", default: str = ""
) -> Any:
    """--out DIR."""
    return option(default, help, metavar="DIR")


def seed_option(help: str = "same seed, same bytes, for any number of threads (default 0)", default: int = 0) -> Any:
    """--seed."""
    return option(default, help, check=check_seed)


def threads_option() -> Any:
    """--threads."""
    return option(available_cores, "default: all cores", check=check_threads)


def json_option(what: str = "JSON summary") -> Any:
    """--json."""
    return option(False, f"print only the {what}")


def yes_option() -> Any:
    """The option that lets a run begin which is estimated to take longer than `budget.LONGEST`."""
    return option(False, "begin even where more than 24 hours are estimated")


def spelling(name: str) -> str:
    """The command-line spelling of a field."""
    return "--" + name.replace("_", "-")


def add_options(
    parser: Parser,
    options: type[Any],
    defaults: Mapping[str, Any] | None = None,
    note: Callable[[Any], str] = lambda x: "",
) -> None:
    """Every field of `options`, or those of `defaults` alone with the defaults there; note(default) ends each help.

    bool is a switch, tuple[...] repeatable (or, with nargs, many words), Literal its choices, `X | None` an X.
    """
    hints = get_type_hints(options)
    for f in fields(options):
        how, kind = dict(f.metadata["how"]), hints[f.name]
        if defaults is not None and f.name not in defaults:
            continue
        default = defaults[f.name] if defaults is not None else f.metadata["made"]()
        if NoneType in get_args(kind):
            (kind,) = set(get_args(kind)) - {NoneType}
        if get_origin(kind) is Literal:
            how["choices"], kind = get_args(kind), str
        elif get_origin(kind) is tuple:
            kind = get_args(kind)[0]
            how |= {} if "nargs" in how else {"action": "append"}
            default = list(default)
        if kind is bool:
            how = {"action": "store_true", **how}
        else:
            how["type"] = kind
        name = f.name if "nargs" in how else spelling(f.name)
        parser.add_argument(name, default=default, help=f.metadata["help"] + note(default), **how)


def options_of(options: type[T], given: argparse.Namespace) -> T:
    """What was given, repeated values once each. Raises InputError for what a field refuses."""
    found = {}
    for f in fields(options):  # type: ignore[arg-type]
        value = getattr(given, f.name)
        if isinstance(value, list):
            value = tuple(value if "nargs" in f.metadata["how"] else dict.fromkeys(value))
        found[f.name] = value
        for one in value if isinstance(value, tuple) else () if value is None else (value,):
            if f.metadata["low"] is not None:
                between(spelling(f.name), one, f.metadata["low"], COUNTS)
            if f.metadata["check"] is not None:
                f.metadata["check"](one)
    return options(**found)


def parse(
    options: type[T], prog: str, about: str, argv: Sequence[str], epilog: str | None = None, **defaults: Any
) -> T:
    """The options of a program from its command line. Raises InputError for impossible values."""
    parser = Parser(prog=prog, description=about, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, options)
    parser.set_defaults(**defaults)
    given = parser.parse_args(argv)
    found = options_of(options, given)
    return replace(found, out=own_folder(parser, given, argv)) if getattr(given, "out", "") else found  # type: ignore


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
