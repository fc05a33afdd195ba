"""The ledger of predictions, and the study that prints it."""

from __future__ import annotations

import csv
import json
import subprocess
import sys

import pytest

from ebpo_sim.bias.predictions import IDS, Prediction, check_predictions
from ebpo_sim.bias.record import prediction
from ebpo_sim.errors import InputError
from ebpo_sim.studies.hidden_bias import study as hidden_bias_study

FILES = ("table.csv", "summary.json", "prefix.png", "adamw.png", "overshoot.png")


@pytest.fixture(scope="module")
def found() -> tuple[Prediction, ...]:
    return check_predictions()


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory):
    out = tmp_path_factory.mktemp("study")
    hidden_bias_study.main(["--quick", "--out", str(out)])
    return out


def test_every_id_is_checked_and_holds(found) -> None:
    """P1 to P7, N1 to N3, L1 to L3, Q1 to Q7, R1 to R9."""
    named = [f"{letter}{i}" for letter, last in zip("PNLQR", (7, 3, 3, 7, 9), strict=True) for i in range(1, last + 1)]
    assert list(dict.fromkeys(x.id for x in found)) == named == list(IDS)
    assert [x for x in found if not x.holds] == []


def test_verdicts_follow_from_the_numbers(found) -> None:
    for x in found:
        assert x.holds == (abs(x.computed - x.predicted) <= x.tolerance)
        assert x.statement and x.condition
        assert 0 <= x.tolerance <= 1
    assert not prediction("P1", "wrong", 1.0, 1.1, 0.05, "none").holds
    assert not prediction("P1", "not a number", 1.0, float("nan"), 0.05, "none").holds


def test_what_fails_names_its_smallest_set_up(found) -> None:
    """Predictions that something breaks: CPPO, clipping, sequence ratios, baselines, KL, clip norm, priors, edges."""
    assert {x.id for x in found if x.counterexample} >= {
        "P2",
        "P5",
        "P6",
        "P7",
        "N2",
        "Q4",
        "Q6",
        "Q7",
        "R4",
        "R5",
        "R8",
    }


@pytest.mark.parametrize("seed", [0, 11])
def test_other_seeds_hold_too(seed: int) -> None:
    assert [x for x in check_predictions(seed) if not x.holds] == []


def test_files(quick, capsys: pytest.CaptureFixture[str]) -> None:
    """Every file is there; the table is one long CSV; the summary is strict JSON with the same rows."""
    with (quick / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    summary = json.loads((quick / "summary.json").read_text())
    assert len(rows) == len(summary["rows"])
    assert summary["settings"] == hidden_bias_study.QUICK._asdict()
    assert {r["part"] for r in rows} == {"prediction", "prefix", "adamw", "overshoot"}
    for name in FILES[2:]:
        assert (quick / name).read_bytes().startswith(b"\x89PNG")


def test_curves_agree_with_their_formulas(quick) -> None:
    rows = json.loads((quick / "summary.json").read_text())["rows"]
    curves = [r for r in rows if r["part"] != "prediction" and r["predicted"] is not None]
    assert len(curves) > 100
    for r in curves:
        assert r["computed"] == pytest.approx(r["predicted"], rel=1e-9, abs=1e-15)


def test_same_seed_same_bytes(quick, tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    hidden_bias_study.main(["--quick", "--out", str(tmp_path), "--json"])
    assert json.loads(capsys.readouterr().out)["settings"]["seed"] == 3
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (quick / name).read_bytes()


def test_table_is_readable(found, tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    hidden_bias_study.main(["--quick", "--seed", "5", "--out", str(tmp_path)])
    text = capsys.readouterr().out
    assert f"{len(found)} of {len(found)} predictions hold" in text
    assert all(f"\n{id} " in text for id in IDS)
    assert max(map(len, text.splitlines()[: len(found) + 2])) <= 160


def test_refusals(tmp_path) -> None:
    with pytest.raises(InputError, match="--seed must be at least 0, got -1"):
        hidden_bias_study.main(["--seed", "-1", "--out", str(tmp_path)])
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="--out"):
        hidden_bias_study.main(["--out", str(tmp_path / "file")])


def test_command_line() -> None:
    """--help teaches; a refusal is one line and exit code 2."""
    command = [sys.executable, "-m", "ebpo_sim.hidden_bias_study"]
    shown = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True).stdout
    assert all(word in shown for word in ("2601.05002", "--quick", "--seed", "--out", "--json", "example:"))
    refused = subprocess.run([*command, "--seed", "-1"], capture_output=True, text=True)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
