"""The study as its user meets it: files, JSON, verdicts, refusals."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from ebpo_sim.errors import InputError
from ebpo_sim.rungs import COUNTS, standing
from ebpo_sim.studies.mse.simulate import verdict
from ebpo_sim.studies.mse.study import QUICK, SETTINGS, main
from ebpo_sim.worlds import parse_world, ratio_world

TINY = ["--prompts", "200", "--steps", "2", "--replicates", "4"]
REAL = "observed:Qwen2.5-Math-1.5B-Instruct/MATH"
FILES = {"table.csv", "summary.json", "ratio_vs_icc.png"}
COLUMNS = {
    "world", "icc", "group_size", "estimator", "shrinkage", "mse_exact", "mse_mc", "mse_mc_se",
    "ratio_exact", "ratio_mc", "ratio_mc_se", "ratio_split", "ratio_split_se", "verdict",
}  # fmt: skip


def read_table(out: Path) -> list[dict[str, str]]:
    with (out / "table.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_rows_and_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards the table's shape: a row for each world and preset in the order asked, every column, the settings told."""
    main(["--world", "beta:5,5", "--world", REAL, "--group-size", "4", *TINY, "--json", "--out", str(tmp_path)])
    found = json.loads(capsys.readouterr().out)
    assert {path.name for path in tmp_path.iterdir()} == FILES
    assert found["settings"]["worlds"] == ["beta:5,5", REAL]
    assert found["settings"]["design"] == {"prompts": 200, "steps": 2, "burn_in": 1, "replicates": 4, "seed": 0}
    assert [(r["world"], r["estimator"]) for r in found["rows"]] == [
        (w, n) for w in ("beta:5,5", REAL) for n in standing(COUNTS)
    ]
    assert all(r.keys() >= COLUMNS for r in found["rows"])


def test_verdicts_on_a_real_world(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards the headline: on a strong model's pass rates Algorithm 1 loses to the group mean and its repair wins."""
    main(["--world", REAL, *TINY, "--group-size", "4", "--group-size", "8", "--out", str(tmp_path)])
    shown = capsys.readouterr().out
    rows = {(int(r["group_size"]), r["estimator"]): r for r in read_table(tmp_path)}
    prior = ratio_world(REAL).quadrature(2)
    rho = prior.between / (prior.within + prior.between)
    for group_size in (4, 8):
        s = 1 / (2 + (group_size - 1) * rho)
        expected = (1 - s) ** 2 + s * s * group_size * rho / (1 - rho)
        assert expected > 1
        assert float(rows[group_size, "ebpo"]["ratio_exact"]) == pytest.approx(expected, rel=1e-9)
        assert rows[group_size, "ebpo"]["verdict"] == "loses"
        assert rows[group_size, "ebpo_debiased"]["verdict"] == "wins"
        assert rows[group_size, "grpo"]["verdict"] == "ties"
        assert float(rows[group_size, "ebpo"]["ratio_split"]) > 1
    assert shown.count("LOSES") == 2
    assert shown.index("-- critical ICC") < shown.index(REAL)  # ordered by ICC: the world stands below the rule
    assert str(tmp_path / "table.csv") in shown


def test_ratio_column_is_the_quotient_of_the_errors(tmp_path: Path) -> None:
    """Guards the table's arithmetic: ratios are errors over the group mean's, shrinkage 0 and 1 at the ends."""
    main(["--world", "beta:2,3", "--group-size", "4", *TINY, "--json", "--out", str(tmp_path)])
    rows = {r["estimator"]: r for r in read_table(tmp_path)}
    assert {r["icc"] for r in rows.values()} == {rows["grpo"]["icc"]}
    assert float(rows["grpo"]["icc"]) == pytest.approx(1 / 6, rel=1e-12)
    assert float(rows["grpo"]["mse_exact"]) == pytest.approx(0.2 / 4, rel=1e-12)
    for row in rows.values():
        for exact in ("exact", "mc"):
            ratio = float(row[f"mse_{exact}"]) / float(rows["grpo"][f"mse_{exact}"])
            assert float(row[f"ratio_{exact}"]) == pytest.approx(ratio, rel=1e-12)
    assert float(rows["grpo"]["shrinkage"]) == 0
    assert float(rows["global_mean"]["shrinkage"]) == 1
    assert rows["oracle_bayes"]["shrinkage"] == rows["grpo"]["ratio_split"] == ""


BAD = [
    (["--world", "beta:0,1"], "beta:0,1"),
    (["--world", "points:1.2@1"], r"points:1\.2@1.*\[0, 1\]"),
    (["--world", "observed:Qwen2.5-8B"], "did you mean .*Qwen2.5-7B"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=lambda x: " ".join(x) if isinstance(x, list) else None)
def test_bad_input_is_refused_before_anything_is_written(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards refusals: an InputError of one line that names value and remedy, no output, no file."""
    out = tmp_path / "out"
    with pytest.raises(InputError, match=message) as refusal:
        main([*arguments, "--out", str(out)])
    assert "\n" not in str(refusal.value)
    assert capsys.readouterr().out == ""
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "content",
    ["", "rollouts,successes\n", "rollouts,successes\n4,5\n4,1\n", "rollouts,successes\n4,nan\n4,1\n", "\ud800"],
    ids=["empty", "header", "too many successes", "NaN", "not text"],
)
def test_bad_counts_are_refused(content: str, tmp_path: Path) -> None:
    """Guards `counts:` on the command line: impossible files name the file, and write no file."""
    path, out = tmp_path / "counts.csv", tmp_path / "out"
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(InputError, match=r"counts\.csv"):
        main(["--world", f"counts:{path}", *TINY, "--out", str(out)])
    assert list(tmp_path.rglob("*.png")) == list(tmp_path.rglob("table.csv")) == []


EXTREME = ["points:0", "points:0,1", "points:0.3", "beta:0.3,0.7", "beta:0.01,0.01", "logitnormal:0,30"]


@pytest.mark.parametrize("world", EXTREME)
def test_extreme_worlds_run_without_a_warning(world: str, tmp_path: Path) -> None:
    """Guards the corners: no reward ever differs, all prompts certain, all prompts alike, a + b = 1, nearly certain."""
    main(["--world", world, "--group-size", "1", "--group-size", "2", *TINY, "--out", str(tmp_path)])
    rows = read_table(tmp_path)
    assert {r["verdict"] for r in rows} <= {"wins", "ties", "loses"}
    assert all("nan" not in r.values() for r in rows)


def test_curves_that_counts_do_not_determine_are_left_out(tmp_path: Path) -> None:
    """Guards honesty: 10 rollouts say nothing of a curve in k = 0..10, so its row is empty; lines stay, and G = 9."""
    world = ["--world", "observed:Claude-2/LiveCodeBench", "--group-size", "9", "--group-size", "10"]
    main([*world, *TINY, "--out", str(tmp_path)])
    rows = {(r["group_size"], r["estimator"]): r for r in read_table(tmp_path)}
    assert len(rows) == 2 * len(standing(COUNTS))
    curves = {"ebpo_nonparametric", "loo_table", "v05", "oracle_bayes"}
    empty = {key for key, row in rows.items() if row["ratio_exact"] == ""}
    assert empty == {("10", name) for name in curves}
    kept = ("world", "icc", "icc_se", "group_size", "estimator")
    assert all(value == "" for key in empty for column, value in rows[key].items() if column not in kept)
    assert {key for key, row in rows.items() if row["ratio_split"] == ""} == {("10", name) for name in standing(COUNTS)}


def test_verdict_and_settings() -> None:
    """Guards the verdict's edges, and that default and quick settings name real worlds and all presets."""
    assert [verdict(x) for x in (None, 1.0, 1 + 1e-10, 1 + 1e-8, 1 - 1e-8)] == ["ties", "ties", "ties", "loses", "wins"]
    for settings in (SETTINGS, QUICK):
        settings.design.check()
        assert settings.estimators == standing(COUNTS)
        assert all(parse_world(text) for text in settings.worlds)
