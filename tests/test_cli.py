"""The shared command line: exit codes, refusals of argparse, numbers as text."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ebpo_sim import cli, folders, report
from ebpo_sim.errors import InputError, unknown_name
from ebpo_sim.studies.base import parse
from ebpo_sim.studies.mse.study import main

ROOT = Path(__file__).resolve().parents[1]


def test_run_turns_refusals_into_exit_codes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards `cli.run`: 2 for an InputError, 130 for Ctrl-C, other exceptions stay visible, arguments are passed on."""
    monkeypatch.setattr(sys, "argv", ["prog", "--seed", "3"])
    seen = []
    cli.run(seen.append)
    assert seen == [["--seed", "3"]]

    def raising(error: BaseException):
        def run(argv: object) -> None:
            raise error

        return run

    for error, code, text in (
        (InputError("no such\nthing \x1b[31m \ud800"), 2, r"no such thing \x1b[31m \ud800"),
        (KeyboardInterrupt(), 130, "interrupted; files already written are whole"),
        (cli.Terminated(143), 143, "terminated; files already written are whole"),
        (OSError(28, "No space left on device", "out/table.csv"), 2, "out/table.csv: No space left on device"),
        (OSError(18, "Invalid cross-device link", "a", None, "b"), 2, "b: Invalid cross-device link"),
        (OSError(9, "Bad file descriptor", 7), 2, "Bad file descriptor"),
        (OSError("no weights\nthere"), 2, "no weights there"),
        (TimeoutError(), 2, "TimeoutError"),
        (MemoryError(), 2, "out of memory (no more to be had): lower the sizes or --threads"),
        (RecursionError("maximum"), 2, "the input is nested too deeply: make it simpler"),
        (OverflowError("too large for a C long"), 2, "a number in the input is too large (too large for a C long)"),
    ):
        with pytest.raises(SystemExit) as leaving:
            cli.run(raising(error))
        assert leaving.value.code == code
        said = capsys.readouterr().err
        assert said.startswith(f"error: {text}") and said.count("\n") == 1
    with pytest.raises(ZeroDivisionError):
        cli.run(raising(ZeroDivisionError()))


def test_an_option_that_is_not_a_number_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards argparse's own refusals: one line like all others, no usage, and no abbreviation of an option."""
    for arguments, says in (
        (["--group-size", "four"], "invalid int value: 'four'; see --help"),
        (["--group", "4"], "unrecognized arguments: --group 4; see --help"),
        (["--seed"], "expected one argument"),
        (["--see=3"], "unrecognized arguments"),
    ):
        with pytest.raises(InputError, match=says):
            main([*arguments, "--out", str(tmp_path / "out")])
    assert capsys.readouterr() == ("", "")
    assert not (tmp_path / "out").exists()


def test_every_program_has_the_one_parser() -> None:
    """Guards "one line": nothing in the sources makes a parser of argparse's own class."""
    made = []
    for folder in ("ebpo_sim", "llm", "paper_figures"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("ArgumentParser"):
                    made.append(path.name)
    assert made == []


PROGRAMS = [
    "ebpo_sim.__main__", "ebpo_sim.mse_study", "ebpo_sim.failure_study", "ebpo_sim.entropy_study",
    "ebpo_sim.clustering_study",
    "ebpo_sim.hidden_bias_study", "ebpo_sim.training_study", "ebpo_sim.prediction_study", "ebpo_sim.bench",
    "ebpo_sim.allocation_study",
    "ebpo_sim.claims", "ebpo_sim.diagnose", "ebpo_sim.noise_study", "ebpo_sim.recorded_study", "ebpo_sim.leaderboard",
    "ebpo_sim.sample_log", "ebpo_sim.methods_study",
    "ebpo_sim.conventions", "ebpo_sim.diagnose.coverage", "ebpo_sim.check",
    "ebpo_sim.dossier", "paper_figures",
]  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_runs_nothing_and_refusals_are_one_line(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards every program's front door: --help explains and ends with 0, an unknown option is one line and 2."""
    module = importlib.import_module(program)
    if not hasattr(module, "main"):
        module = importlib.import_module(f"{program}.__main__")
    monkeypatch.chdir(tmp_path)
    for arguments, code in ((["--help"], 0), (["--no-such\noption"], 2), (["--seed", "x"], 2), (["--seed", "-1"], 2)):
        monkeypatch.setattr(sys, "argv", [program, *(["none.csv"] if "diagnose" in program else []), *arguments])
        with pytest.raises(SystemExit) as leaving:
            cli.run(module.main)
        out, err = capsys.readouterr()
        assert leaving.value.code == code
        assert (out.startswith("usage"), err.count("\n"), err[:7]) == (
            (True, 0, "") if code == 0 else (False, 1, "error: ")
        )
    assert list(tmp_path.iterdir()) == []


def test_numbers_are_printed_to_their_error() -> None:
    """Guards the text table: dashes for what does not exist, digits by the standard error."""
    assert [report.number(x) for x in (None, float("nan"), 0.12345)] == ["-", "-", "0.123"]
    assert report.with_error(0.123456, 0.0021) == "0.123 ± 0.002"
    assert report.with_error(1.23456, 0.2) == "1.2 ± 0.2"
    assert report.with_error(None, 0.1) == "-"


def test_files_are_replaced_whole(tmp_path: Path) -> None:
    """Guards atomic writing: the new content, readable by others, and no temporary file left, even on failure."""
    path = tmp_path / "table.csv"
    path.write_bytes(b"old")
    report.write_csv(path, [{"a": 1, "b": None}, {"a": 0.1, "b": "x,y"}])
    assert path.read_bytes() == b'a,b\n1,\n0.1,"x,y"\n'
    (tmp_path / "plain").write_bytes(b"")
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        report.write_bytes(tmp_path / "folder", b"cannot replace a folder")
    assert {p.name for p in tmp_path.iterdir()} == {"table.csv", "plain", "folder"}


def test_json_refuses_nan() -> None:
    """Guards machine-readable output: a NaN never reaches a file."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        report.to_json({"x": float("nan")})


def test_near_names_are_suggested() -> None:
    """Guards the remedy: near names whatever the case, the whole list when nothing is near."""
    known = ["grpo", "ebpo", "Qwen"]
    assert str(unknown_name("estimator", "EPBO", known)).startswith("unknown estimator 'EPBO': did you mean 'ebpo'")
    assert "did you mean 'Qwen'" in str(unknown_name("world", "qwem", known))
    assert str(unknown_name("estimator", "zzz", known)) == "unknown estimator 'zzz': known: Qwen, ebpo, grpo"


@pytest.mark.parametrize("arguments", [["--quick", "--world", "a", "--world", "b", "--world", "a"], []])
def test_repeatable_options(arguments: list[str]) -> None:
    """Guards parsing: repeated names once each in order, empty where the study's default stands."""
    given = parse("study", "about", arguments)
    assert given.world == (("a", "b") if arguments else ())
    assert given.quick == bool(arguments)
    assert given.group_size == given.estimator == ()
    out = "results/study/quick,world=a+b" if arguments else "results/study"
    assert (given.seed, given.prompts, given.out) == (0, None, out)
    assert given.threads == cli.available_cores() >= 1


def folder(*arguments: str) -> str:
    """Where a study of these arguments writes."""
    return str(Path(parse("study", "about", arguments).out).relative_to("results/study"))


def test_a_partial_run_has_a_folder_of_its_own() -> None:
    """Guards full results: every option that changes numbers names a folder below the default's, the others none;
    different options never share one; --out is taken as it is."""
    assert folder() == folder("--threads", "1", "--json", "--yes") == "."
    assert parse("study", "about", ["--quick", "--out", "there"]).out == "there"
    assert parse("study", "about", ["--out=results/study", "--quick"]).out == "results/study"
    assert folder("--quick") == "quick" and folder("--world", "beta:2,3") == "world=beta-2-3"
    assert folder("--group-size", "4", "--group-size", "8", "--seed", "3") == "group-size=4+8,seed=3"
    odd = ["counts:a/b.csv", "counts:a-b.csv", "counts:../../x", "w" * 300, "w" * 299]
    found = [folder("--world", world) for world in odd]
    assert len(set(found)) == len(odd) and all("/" not in name and ".." not in name[:3] for name in found)
    assert max(map(len, found)) < 80 and not any(name.startswith(".") for name in found)


def test_claims_and_shared_cells_keep_to_their_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the ledger: ids name a folder; and finished runs: full and partial runs find the same."""
    from ebpo_sim.claims.__main__ import Options

    ids = [cli.parse(Options, "claims", "", words).out for words in ([], ["T2", "R2"], ["T2", "--quick", "--html"])]
    assert ids == ["results/claims", "results/claims/T2+R2", "results/claims/T2,quick"]
    homes = [folders.shared_folder(out, "results/x") for out in ("results/x", "results/x/quick", "mine")]
    assert homes == ["results/x", "results/x", "mine"]
    training = importlib.import_module("ebpo_sim.studies.training.study")
    assert training.parse(["--quick"]).out == "results/training_study/quick"
    locked: list[str] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "_study", lambda s, out, home, *rest: locked.append((str(out), str(home))))
    training.main(["--quick"])
    training.main(["--out", "own"])
    assert locked == [("results/training_study/quick", "results/training_study"), ("own", "own")]


LIGHT = """
import io, runpy, sys
from contextlib import redirect_stdout
for program in sys.argv[1:]:
    sys.argv = ["x", *(["none.csv"] if "diagnose" in program else []), "--help"]
    try:
        with redirect_stdout(io.StringIO()) as shown:
            runpy.run_module(program, run_name="__main__", alter_sys=True)
    except SystemExit as left:
        assert not left.code
    assert shown.getvalue().startswith("usage"), program
    heavy = {"numba", "torch", "matplotlib"} & set(sys.modules)
    assert not heavy, (program, heavy)
"""


def test_help_is_light(tmp_path: Path) -> None:
    """Guards --help of every program: it loads neither numba nor torch nor matplotlib, and runs and writes nothing."""
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LIGHT, *PROGRAMS], capture_output=True, text=True,
        timeout=120, cwd=tmp_path, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []
