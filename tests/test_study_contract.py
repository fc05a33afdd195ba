"""What every study owes its user, whichever it is: found in ebpo_sim/studies, run small, one test for all."""

from __future__ import annotations

import csv
import importlib
import io
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

from ebpo_sim import cli, studies

NAMES = sorted(path.parent.name for path in Path(studies.__file__).parent.glob("*/study.py"))
OWN = {  # small arguments of a study with a command line of its own
    "allocation": [
        "--quick", "--estimator", "grpo + mopps", "--group-size", "4", "--regime", "plateau",
    ],
    "hidden_bias": ["--quick"],
    "methods": [
        "--quick", "--world", "chain", "--estimator", "ebpo", "--regime", "plateau", "--seeds", "2",
        "--group-size", "4",
    ],
    "prediction": [
        "--quick", "--world", "observed:Qwen2.5-7B", "--estimator", "ebpo", "--group-size", "4", "--regime", "plateau",
    ],
    "training": [
        "--quick", "--world", "chain", "--estimator", "ebpo", "--group-size", "2", "--optimiser", "sgd", "--steps", "4",
        "--seeds", "2", "--order", "shuffled", "--regime", "plateau",
    ],
}  # fmt: skip
REFUSED = (
    ("--seed", "-1", "seed must be at least 0"),
    ("--threads", "0", "--threads must be at least 1"),
    ("--group-size", "0", "--group-size must be at least 1, got 0"),
    ("--world", "gamma:1,2", "'gamma"),
    ("--estimator", "epbo", "unknown estimator 'epbo': did you mean 'ebpo'"),
    ("--replicates", "1", "replicates must be at least 2, got 1"),
    ("--prompts", "0", "prompts must be at least 1, got 0"),
    ("--burn-in", "1000", "burn_in must be below steps"),
    ("--steps", "x", "invalid int value: 'x'"),
)


class Ran(NamedTuple):
    """A study's exit code (None: it returned), what it printed, and its files' bytes by name."""

    code: object
    out: str
    err: str
    files: dict[str, bytes]


def module(name: str) -> ModuleType:
    return importlib.import_module(f"ebpo_sim.studies.{name}.study")


def small(name: str) -> list[str]:
    """Arguments that make a study small: those of its own, else one world, G = 2 and a handful of prompts."""
    if not hasattr(module(name), "STUDY"):
        return OWN[name]
    quick = module(name).STUDY.quick
    return ["--quick", "--world", quick.worlds[0], "--estimator", "ebpo", "--group-size", "2", "--prompts", "20",
            "--steps", "4", "--replicates", "4"]  # fmt: skip


def files(out: Path) -> dict[str, bytes]:
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def run(name: str, arguments: Sequence[str], out: Path) -> Ran:
    """The study as its command runs it, in this process."""
    said, errors, code = io.StringIO(), io.StringIO(), None
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said), redirect_stderr(errors):
        patch.setattr(sys, "argv", [name, *arguments, "--out", str(out)])
        try:
            cli.run(module(name).main)
        except SystemExit as leaving:
            code = leaving.code
    return Ran(code, said.getvalue(), errors.getvalue(), files(out))


def options(name: str) -> str:
    """The help text, which names every option that the study offers."""
    return run(name, ["--help"], Path("unused")).out


@pytest.fixture(scope="module", params=NAMES)
def study(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def from_command_line(study: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    """One run of `python -m ebpo_sim.NAME_study --json`, in a process of its own."""
    out = tmp_path_factory.mktemp(study) / "made" / "out"
    program = module(study).STUDY.name if hasattr(module(study), "STUDY") else f"{study}_study"
    command = [sys.executable, "-m", f"ebpo_sim.{program}", *small(study), "--json", "--out", str(out)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    yield Ran(ran.returncode, ran.stdout, ran.stderr, files(out))


def test_studies_are_found() -> None:
    """Guards discovery: those that are there, and no list of own arguments for one that is not."""
    assert (
        {"allocation", "clustering", "entropy", "failure", "hidden_bias", "methods", "mse", "prediction", "training"}
        <= set(NAMES)
        >= set(OWN)
    )


def test_json_is_all_that_is_printed(from_command_line: Ran) -> None:
    """Guards `--json`: exit 0, one JSON document, nothing on stderr, the same as on disk."""
    assert (from_command_line.code, from_command_line.err) == (0, "")
    found = json.loads(from_command_line.out)
    assert "settings" in found and len(found) > 1
    assert from_command_line.files["summary.json"].decode() == from_command_line.out.removesuffix("\n")
    assert {"table.csv", "summary.json"} < from_command_line.files.keys()
    pictures = [content for name, content in from_command_line.files.items() if name.endswith(".png")]
    assert pictures and all(content.startswith(b"\x89PNG") for content in pictures)


def test_the_table_reads_back(from_command_line: Ran) -> None:
    """Guards table.csv: every number of the JSON's rows to the last bit, an empty cell is a null; NaN nowhere."""
    table = [*csv.DictReader(io.StringIO(from_command_line.files["table.csv"].decode(), newline=""))]
    rows = json.loads(from_command_line.out).get("rows")
    assert table and "nan" not in {value for line in table for value in line.values()}
    for line, row in zip(table, rows or [], strict=rows is not None):
        assert list(line) == list(row)
        for column, value in row.items():
            told = line[column]
            assert told == "" if value is None else told == str(value) or type(value)(told) == value, column


def test_same_seed_same_bytes(study: str, from_command_line: Ran, tmp_path: Path) -> None:
    """Guards --seed: in another process and for another number of threads the same bytes, for another seed others;
    without --json a text that names the table, and nothing else changes."""
    more = ["--threads", "2"] if "--threads" in options(study) else []
    again = run(study, [*small(study), *more], tmp_path / "again")
    assert (again.code, again.err) == (None, "")
    assert again.files == from_command_line.files
    assert str(tmp_path / "again" / "table.csv") in again.out and "{" not in again.out[:1]
    other = run(study, [*small(study), "--seed", "1", "--json"], tmp_path / "other")
    assert other.files.keys() >= {"table.csv"} and other.files["table.csv"] != again.files["table.csv"]


@pytest.mark.parametrize(("option", "value", "says"), REFUSED, ids=lambda x: x)
def test_refusals_are_one_line_and_write_nothing(
    study: str, option: str, value: str, says: str, tmp_path: Path
) -> None:
    """Guards refusals: code 2, one line that names value and remedy, no output and no folder. An option that a study
    does not offer is refused as such."""
    ran = run(study, [*small(study), option, value], tmp_path / "out")
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert ran.err.startswith("error: ")
    offered = f"{option} " in options(study)
    assert says in ran.err if offered else "unrecognized arguments" in ran.err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written(study: str, tmp_path: Path) -> None:
    """Guards --out: what stands in the way is said before any work, and left as it is."""
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    ran = run(study, small(study), tmp_path / "file" / "below")
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert "cannot be written" in ran.err and (tmp_path / "file").read_text(encoding="utf-8") == "in the way"
