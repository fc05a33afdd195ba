"""What a process is held to: resource limits, an end with its parent, orphans that stay its children.

Imported by file name (see `verifier_worker.py`), so by nothing but the standard library. POSIX; what asks Linux alone
does nothing elsewhere.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
from collections.abc import Set

FILE_BYTES = 1 << 30  # of one file that is written; more is an OSError
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def limit_resources(memory_mb: int) -> int:
    """Bound this process and what it starts; returns the largest address space in bytes, 0 where it has no limit.

    Each process has the limit of memory for itself. There is no limit of processes: RLIMIT_NPROC counts those of the
    user, the training's own threads among them, and does not bind root.
    """
    most = address_space() + (memory_mb << 20) if memory_mb and address_space() else 0
    wanted = [(resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, FILE_BYTES)]
    wanted += [(resource.RLIMIT_AS, most)] if most else []
    for kind, value in wanted:
        _, hard = resource.getrlimit(kind)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(kind, (value, value))
    return most


def address_space() -> int:
    """Bytes this process has mapped; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", "rb", buffering=0) as file:
            return int(file.read(64).split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def die_with_parent(parent: int) -> None:
    """Be killed when the parent process ends, on Linux; at once where it has ended already."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends, on Linux."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children(but: Set[int] = frozenset()) -> set[int]:
    """The children of this process but for those, with all their descendants; none where the system lists none."""
    parent: dict[int, int] = {}
    with contextlib.suppress(OSError):
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
                parent[int(pid)] = int(file.read(4096).rpartition(b")")[2].split()[1])
    me, found, size = os.getpid(), set[int](), -1
    while len(found) > size:
        size = len(found)
        found |= {pid for pid, above in parent.items() if above in found or (above == me and pid not in but)}
    return found
