"""Bounded work: what is refused, in which words, and how much memory the machine is taken to have."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpo_sim import budget
from ebpo_sim.errors import InputError

GIB = 2.0**30
SIZES = st.floats(min_value=0, max_value=1e300) | st.integers(min_value=0, max_value=10**400)


def refused(memory: float, seconds: float | None, yes: bool = False) -> str | None:
    return budget.refusal(memory, seconds, memory_limit=GIB, what="work", remedy="lower --size", yes=yes)


@given(memory=SIZES, seconds=SIZES | st.none(), yes=st.booleans())
def test_exactly_the_excess_is_refused(memory: float, seconds: float | None, yes: bool) -> None:
    """Guards both limits for any size: --yes lets time pass and never memory; one line, with the remedy."""
    line = refused(memory, seconds, yes)
    too_large, too_long = memory > GIB, seconds is not None and seconds > budget.LONGEST and not yes
    assert (line is not None) == (too_large or too_long)
    if line is not None:
        assert "\n" not in line and "lower --size" in line
        assert ("memory" in line) == too_large
        assert ("--yes" in line) == (not too_large)


def test_an_estimate_that_is_no_number_is_refused() -> None:
    """Guards against inf - inf in an estimate: NaN is not affordable."""
    assert refused(float("nan"), None) is not None
    assert refused(0, float("nan")) is not None
    assert refused(GIB, budget.LONGEST) is None


def test_units_are_readable() -> None:
    """Guards the words of the line."""
    assert [budget.readable_bytes(n) for n in (0, 1536, 2560, 3 * 2**20, 383.2 * GIB, 5e13)] == [
        "0 bytes", "1536 bytes", "2.5 KiB", "3 MiB", "383.2 GiB", "45.47 TiB",
    ]  # fmt: skip
    assert [budget.readable_seconds(n) for n in (59.0, 150, 7200, 86400.0, 3e8)] == [
        "59 seconds", "2.5 minutes", "2 hours", "24 hours", "9.506 years",
    ]  # fmt: skip
    assert (
        refused(2 * GIB, None) == "work would take about 2 GiB of memory, limit 1024 MiB on this machine: lower --size"
    )


def test_the_machine_has_a_limit_and_it_is_used() -> None:
    """Guards the reader against this machine: at least what is free, finite, and enforced by `require`."""
    found = budget.machine_memory()
    assert 2**26 < found <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    budget.require(memory=0.59 * found, what="work", remedy="lower --size")
    for yes in (False, True):
        with pytest.raises(InputError, match=r"work would take about .* of memory"):
            budget.require(memory=0.61 * found, seconds=1, what="work", remedy="lower --size", yes=yes)
    with pytest.raises(InputError, match="or add --yes"):
        budget.require(memory=0, seconds=1e9, what="work", remedy="lower --size")
    budget.require(memory=0, seconds=1e9, what="work", remedy="lower --size", yes=True)


@pytest.mark.parametrize(
    ("membership", "files", "limit"),
    [
        ("0::/a/b\n", {"a/memory.max": "3000", "a/b/memory.max": "max"}, 3000.0),  # a parent's limit binds
        ("0::/host/only\n", {"memory.max": "5000\n"}, 5000.0),  # a container: the path is the host's
        ("4:cpu,memory:/x\n0::/\n", {"memory/x/memory.limit_in_bytes": "7000"}, 7000.0),  # version 1
        ("2:cpuset:/x\n", {"x/memory.max": "1"}, float("inf")),  # another controller's group
        ("garbage\n", {}, float("inf")),
    ],
)
def test_control_groups_limit_memory(membership: str, files: dict[str, str], limit: float, tmp_path: Path) -> None:
    """Guards containers: the least limit of the process's groups, of either version."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(membership, encoding="utf-8")
    for name, text in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert budget.machine_memory(tmp_path) == min(limit, budget.machine_memory(tmp_path / "nowhere"))


@pytest.mark.skipif(sys.platform == "win32", reason="no resource limits there")
def test_an_address_space_limit_is_honoured() -> None:
    """Guards `ulimit -v`: a process under a limit sees it."""
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (10**9, 10**9))\n"
        "from ebpo_sim import budget; print(budget.machine_memory() <= 10**9)"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False)
    assert (run.stdout.strip(), run.returncode) == ("True", 0), run.stderr
