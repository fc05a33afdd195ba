"""What a terminal shows: tables that fit its width, and a conclusion in the last line of every study."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from ebpo_sim import cli, report

TABLE = (("name", "wide", "simulated", "last"), [("a", "b" * 40, "c" * 30, "d" * 30)])


def test_tables_fit_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards widths: no limit in a pipe; within COLUMNS, at least 80, columns go in the order given, then the last, and
    a line names them; --wide shows all; the first two stay whatever their width."""
    whole = report.text_table(*TABLE)
    assert max(map(len, whole.splitlines())) == 112 and "Not shown" not in whole
    monkeypatch.setenv("COLUMNS", "100")
    marked, last = report.text_table(*TABLE, drop=("simulated",)), report.text_table(*TABLE)
    assert marked.splitlines()[0].split() == ["name", "wide", "last"]
    assert marked.endswith("\nNot shown: simulated (--wide shows all).")
    assert last.splitlines()[0].split() == ["name", "wide", "simulated"]
    monkeypatch.setenv("COLUMNS", "20")
    assert report.width() == 80 and report.text_table(*TABLE, drop=("simulated",)) == marked
    longest = report.text_table(("a", "b", "c"), [("x" * 60, "y" * 60, "z")])
    assert longest.splitlines()[0].split() == ["a", "b"]
    monkeypatch.setenv("COLUMNS", "112")
    assert report.text_table(*TABLE) == whole
    monkeypatch.setenv("COLUMNS", "80")
    cli.Parser().parse_args(["--wide"])
    assert report.width() is None and report.text_table(*TABLE) == whole
    cli.Parser().parse_args([])
    assert report.width() == 80


def step(**values: Any) -> dict[str, Any]:
    return {"estimator": "ebpo", "optimiser": "natural", **values}


ENDS: dict[str, tuple[list[dict[str, Any]], str]] = {  # study: rows, and what is concluded from them
    "mse.text": (
        [step(ratio_exact=0.5, verdict="wins"), step(ratio_exact=1.5, verdict="loses"),
         {"estimator": "ebpo_debiased", "ratio_exact": 0.5, "verdict": "wins"},
         {"estimator": "rloo", "ratio_exact": None}],
        "ebpo in 1 of 2 cells, ebpo_debiased in 1 of 1 cells",
    ),
    "failure.study": (
        [step(part="signal", raw_exact=x, reference_batch=2 * x) for x in (-0.5, 0.25)],
        "raw -0.500 to 0.250, normalised by 1.500",
    ),
    "entropy.study": (
        [step(part="step", loss_ratio_exact=1.5, per_reward_exact=0.5),
         step(part="run", difference=-0.3, difference_se=0.1)],
        "ebpo 1 of 1, 0 of 1, 0 more and 1 less of 1",
    ),
    "clustering.study": (
        [{"order": "blocked", "gain": g, "gain_se": 0.1} for g in (0.5, -0.5, 0.1)], "blocked 1 and 1 of 3"
    ),
    "noise.study": (
        [{"estimator": n, "nu_ratio": x} for n, x in (("ebpo", 0.5), ("grpo", 1.0), ("ebpo", 2.0), ("rloo", 0.25))],
        "fewest first: rloo 0.25, ebpo 1.",
    ),
    "leaderboard.text": (
        [{"estimator": n, "noise MATH": x} for n, x in (("rloo", 0.5), ("grpo", 1.0), ("ebpo", 2.0), ("spo", None))],
        "every board: rloo, grpo, ebpo; grpo is 2 of 3.",
    ),
    "hidden_bias.study": (
        [{"part": "prediction", "id": name, "holds": name == "P1"} for name in ("P1", "R9")],
        "1 of 2 predictions hold; not R9.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDS)
def test_a_study_ends_with_its_conclusion(name: str) -> None:
    """Guards the last line: computed from the rows, so other rows conclude otherwise; one line, defined for few."""
    conclude, (rows, says) = importlib.import_module(f"ebpo_sim.studies.{name}").conclusion, ENDS[name]
    found = conclude(rows)
    assert found.startswith("Conclusion") and says in found
    assert "\n" not in found and conclude(rows[:1]) != found
    assert conclude([]).startswith("Conclusion")
