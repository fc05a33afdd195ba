"""The command line that all studies share: typed arguments, one way to refuse, exit code 2 for bad input."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ebpo_sim import report
from ebpo_sim.errors import InputError
from ebpo_sim.worlds import grammar


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


def parse_study(study: str, about: str, argv: Sequence[str]) -> StudyArguments:
    """The shared options of `python -m ebpo_sim.<study>`. Raises InputError for impossible values."""
    parser = argparse.ArgumentParser(
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
    given = parser.parse_args(argv)
    if given.threads < 1:
        raise InputError(f"--threads must be at least 1, got {given.threads}")
    for size in given.group_size:
        if size < 1:
            raise InputError(f"--group-size must be at least 1, got {size}: 2 to 32 are usual")
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
    )


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(main: Callable[[Sequence[str]], None]) -> None:
    """Run `main` on the command line's arguments: one line and exit code 2 for an InputError, 130 for Ctrl-C."""
    try:
        main(sys.argv[1:])
    except InputError as error:
        report.fail(str(error))
        sys.exit(2)
    except KeyboardInterrupt:
        report.fail("interrupted; files already written are whole")
        sys.exit(130)
