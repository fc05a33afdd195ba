"""Bounded work: what would not fit into the machine's memory, or would take days, is refused before it starts.

Memory is compared with a share of what this process may use (physical memory, the limits of its control groups,
RLIMIT_AS), time with a fixed limit. `--yes` lets time pass, never memory: a slow run ends, a full machine takes other
programs with it. Estimates are rough, so the limits are not sharp.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ebpo_sim.errors import InputError

SHARE = 0.6  # of the memory that may be used: the rest is for the interpreter, the libraries and other programs
LONGEST = 24 * 3600.0  # seconds
LARGEST = 1e300  # beyond any float's use: estimates of absurd sizes may be integers that no float holds


def require(
    *, memory: float, seconds: float | None = None, what: str, remedy: str, yes: bool = False, share: float = SHARE
) -> None:
    """Nothing, where `memory` bytes and `seconds` are affordable on this machine.

    `what` names the work with its sizes ("10 steps of 4096 prompts"), `remedy` the option to change ("lower --steps").
    Raises InputError beyond `share` of the machine's memory, or, unless `yes`, beyond 24 hours.
    """
    found = refusal(memory, seconds, memory_limit=share * machine_memory(), what=what, remedy=remedy, yes=yes)
    if found is not None:
        raise InputError(found)


def refusal(
    memory: float, seconds: float | None, *, memory_limit: float, what: str, remedy: str, yes: bool = False
) -> str | None:
    """The line that refuses the work, or None. An estimate that is not a number is refused as well."""
    if not memory <= memory_limit:
        return (
            f"{what} would take about {readable_bytes(memory)} of memory, limit {readable_bytes(memory_limit)} "
            f"on this machine: {remedy}"
        )
    if seconds is not None and not yes and not seconds <= LONGEST:
        limit = readable_seconds(LONGEST)
        return f"{what} would take about {readable_seconds(seconds)}, limit {limit}: {remedy}, or add --yes"
    return None


def readable_bytes(count: float) -> str:
    """2560 as "2.5 KiB"."""
    return _in_units(count, (("bytes", 1.0), ("KiB", 2.0**10), ("MiB", 2.0**20), ("GiB", 2.0**30), ("TiB", 2.0**40)))


def readable_seconds(count: float) -> str:
    """9000 as "2.5 hours"."""
    units = (("seconds", 1.0), ("minutes", 60.0), ("hours", 3600.0), ("days", 86400.0), ("years", 365.25 * 86400))
    return _in_units(count, units)


def _in_units(count: float, units: tuple[tuple[str, float], ...]) -> str:
    value = float(min(count, LARGEST))
    name, size = next((unit for unit in reversed(units) if value >= 2 * unit[1]), units[0])
    return f"{value / size:.4g} {name}"


def machine_memory(root: Path = Path("/")) -> float:
    """Bytes that this process may use: the least of physical memory, its control groups' limits and RLIMIT_AS.

    `root` is where /proc and /sys lie. Infinite where the system tells nothing.
    """
    return min(_physical(), _control_groups(root), _address_space())


def _physical() -> float:
    try:
        return float(os.sysconf("SC_PAGE_SIZE")) * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return float("inf")


def _address_space() -> float:
    if sys.platform == "win32":
        return float("inf")
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return float("inf") if soft == resource.RLIM_INFINITY else float(soft)


def _control_groups(root: Path) -> float:
    """The least limit of the process's control groups and of all above them, version 1 and 2."""
    limits = [float("inf")]
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers not in ("", "memory") and "memory" not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / ("memory" if controllers else "")
        name = "memory.limit_in_bytes" if controllers else "memory.max"
        group = top / path.strip("/")
        # Inside a container the path may be the host's, of which only the top is to be seen.
        for folder in (group, *group.parents):
            text = _text(folder / name).strip()
            if text.isdigit():
                limits.append(float(text))
            if folder == top:
                break
    return min(limits)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
