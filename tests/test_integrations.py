"""`ebpo_sim.integrations`: what importing it costs, and what it says to a missing trainer or another version."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest


def run(program: str) -> tuple[int, str]:
    """Exit code and the last line of what a fresh interpreter says."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, (done.stdout + done.stderr).strip().splitlines()[-1]


def test_the_package_imports_no_trainer() -> None:
    """Guards installs without trainers: importing the package loads neither torch nor a trainer."""
    program = (
        "import sys, ebpo_sim.integrations\n"
        "print(sorted({'torch', 'transformers', 'trl', 'verl', 'ray', 'numba'} & set(sys.modules)))"
    )
    assert run(program) == (0, "[]")


@pytest.mark.parametrize(
    ("found", "fits"),
    [
        ("none", False),
        ("1.13.0", False),
        ("1.14.1", False),
        ("1.17.0.dev0", False),
        ("1.14.2", True),
        ("1.16rc1", True),
    ],
)
def test_trl_of_another_version_is_refused(found: str, fits: bool) -> None:
    """Guards the adapter's range: the error names the version found, the range and the command; nothing is loaded."""
    program = (
        "import importlib.metadata as metadata, sys\n"
        "known = metadata.version\n"
        "def version(name):\n"
        "    if name != 'trl':\n"
        "        return known(name)\n"
        f"    if {found!r} == 'none':\n"
        "        raise metadata.PackageNotFoundError(name)\n"
        f"    return {found!r}\n"
        "metadata.version = version\n"
        "sys.modules['torch'] = None  # the next thing the adapter imports\n"
        "import ebpo_sim.integrations.trl"
    )
    code, said = run(program)
    assert code == 1
    if fits:
        assert said == "ModuleNotFoundError: import of torch halted; None in sys.modules"
    else:
        expected = (
            r"ImportError: ebpo_sim\.integrations\.trl needs (trl>=[\d.]+,<[\d.]+), "
            rf"found {re.escape(found)}: python -m pip install '\1'"
        )
        assert re.fullmatch(expected, said)
