"""The shared command line: exit codes, refusals of argparse, numbers as text."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ebpo_sim import cli, report
from ebpo_sim.errors import InputError, unknown_name
from ebpo_sim.mse_study import main


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

    refused, stopped = InputError("no such thing"), KeyboardInterrupt()
    for error, code, text in ((refused, 2, "error: no such thing\n"), (stopped, 130, "error: interrupted")):
        with pytest.raises(SystemExit) as leaving:
            cli.run(raising(error))
        assert leaving.value.code == code
        assert capsys.readouterr().err.startswith(text)
    with pytest.raises(ZeroDivisionError):
        cli.run(raising(ZeroDivisionError()))


def test_an_option_that_is_not_a_number_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards argparse's own refusals: usage and exit code 2."""
    with pytest.raises(SystemExit) as refusal:
        main(["--group-size", "four", "--out", str(tmp_path / "out")])
    assert refusal.value.code == 2
    assert "invalid int value: 'four'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


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
    given = cli.parse_study("study", "about", arguments)
    assert given.worlds == (("a", "b") if arguments else ())
    assert given.quick == bool(arguments)
    assert given.group_sizes == given.estimators == ()
    assert (given.seed, given.prompts, given.out) == (0, None, "results/study")
    assert given.threads == cli.available_cores() >= 1
