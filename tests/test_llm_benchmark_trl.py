"""`llm/benchmark_trl.py`: both sides run on the same prompts, the times nest, the ratios are those of the rounds."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from needs import require

require("trl")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # llm runs from the checkout; it is not installed

import torch  # noqa: E402

from ebpo_sim import InputError  # noqa: E402
from llm import benchmark_trl  # noqa: E402
from llm.objectives import Loss  # noqa: E402
from trl_toy import NEWS  # noqa: E402

pytestmark = [pytest.mark.filterwarnings(line) for line in NEWS]


def test_both_sides_do_the_same_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards the comparison: our steps take TRL's prompts, one of them computes every row; parts are within wholes."""
    steps = []
    whole = benchmark_trl.our_step

    def spy(run, problems, number):
        seconds, metrics = whole(run, problems, number)
        steps.append(("every row" if run.objective.every_row else "needed", [p.id for p in problems], metrics))
        return seconds, metrics

    drawn = []
    score = benchmark_trl.Rewards.__call__
    monkeypatch.setattr(benchmark_trl, "our_step", spy)
    monkeypatch.setattr(
        benchmark_trl.Rewards, "__call__", lambda self, **k: drawn.append(k["prompts"]) or score(self, **k)
    )
    options = {"shape": "8x4", "rounds": 3, "warmup": 1, "hidden": 16, "layers": 1, "sft-steps": 30}
    options |= {"out": tmp_path / "out", "cache": tmp_path / "cache"}
    benchmark_trl.main([text for name, value in options.items() for text in (f"--{name}", str(value))])
    assert len(drawn) == 4 and len(steps) == 8
    for number, prompts in enumerate(drawn):
        pair = steps[2 * number : 2 * number + 2]
        assert {kind for kind, _, _ in pair} == {"needed", "every row"}
        assert [ids for _, ids, _ in pair] == [prompts[::4]] * 2
    assert [kind for kind, _, _ in steps[::2]] == ["every row", "needed"] * 2  # each goes first half of the time
    assert all(metrics["rows_trained"] == 1 for kind, _, metrics in steps if kind == "every row")
    assert any(metrics["rows_trained"] < 1 for kind, _, metrics in steps if kind == "needed")
    found = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    (cell,) = found["cells"]
    assert (cell["prompts"], cell["group_size"], len(cell["rounds"])) == (8, 4, 3)
    for row in cell["rounds"]:
        assert 0 < row["trl_generate"] < row["trl_sample"] < row["trl_step"]
        assert 0 < row["ours_generate"] < row["ours_sample"] < row["ours_step"]
        assert 32 <= row["trl_tokens"] <= 32 * 9 and 32 <= row["ours_tokens"] <= 32 * 9
    expected = np.median([row["trl_step"] / row["ours_step"] for row in cell["rounds"]])
    assert cell["ratios"]["step, zero rows skipped"]["median"] == pytest.approx(expected)
    said = capsys.readouterr().out
    assert "step, every row" in said and f"TRL {found['machine']['trl']}" in said


def test_the_ratio_is_paired() -> None:
    """Guards the ratio: rounds that are slow on both sides do not widen it."""
    rows = [{"a": 3.0 * slow, "b": 2.0 * slow} for slow in (1, 10, 100)]
    assert benchmark_trl.ratio(rows, ("a", "b")) == {"median": 1.5, "low": 1.5, "high": 1.5}


def test_every_row_is_every_row() -> None:
    """Guards the arm without skipping: rows of advantage 0 are computed there and only there."""
    advantage = torch.tensor([0.0, 1.0, 0.0])
    assert Loss(every_row=True).needed_rows(advantage).tolist() == [0, 1, 2]
    assert Loss().needed_rows(advantage).tolist() == [1]


@pytest.mark.parametrize(
    "options",
    [
        ["--shape", "16"],
        ["--shape", "0x4"],
        ["--shape", "4x1"],
        ["--rounds", "1"],
        ["--threads", "0"],
        ["--threads", "1000000"],
        ["--seed", "-1"],
        ["--hidden", "-1"],
    ],
)
def test_bad_options_are_refused(options: list[str], tmp_path: Path) -> None:
    """Guards refusals: the option and the remedy, before any work."""
    with pytest.raises(InputError, match=options[0]):
        benchmark_trl.main([*options, "--out", str(tmp_path), "--cache", str(tmp_path)])
    assert list(tmp_path.iterdir()) == []
