"""Warm starts at a wanted ICC: moments, the mixture that has them, what is measured of it, and the program."""

from __future__ import annotations

import csv
import math
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # llm runs from the checkout; it is not installed

from ebpo_sim import InputError
from llm import bases
from llm.problems import task
from llm.settings import Settings


def test_moments_are_unbiased() -> None:
    """Guards E p and E p^2, exactly: over every outcome of 4 answers to prompts of known chances."""
    chances, first, second = (0.2, 0.9), 0.0, 0.0
    for a in range(5):
        for b in range(5):
            weight = math.prod(
                math.comb(4, c) * p**c * (1 - p) ** (4 - c) for c, p in zip((a, b), chances, strict=True)
            )
            found = bases.moments([3], [[a / 4, b / 4]], 4)
            first, second = first + weight * found.first_L[0], second + weight * found.second_L[0]
    assert first == pytest.approx(sum(chances) / 2) and second == pytest.approx(sum(p * p for p in chances) / 2)


@pytest.mark.parametrize("icc", [0.05, 0.15, 0.4, 0.75, 0.9])
@pytest.mark.parametrize("rate", [0.3, 0.4])
def test_shares_give_what_is_wanted(icc: float, rate: float) -> None:
    """Guards the mixture, exactly: of levels with one pass rate each, mean and ICC of the shares are those wanted."""
    p = np.array([0.0, 0.25, 0.42, 0.7, 1.0])
    share_L, away = bases.shares(bases.Moments((1, 2, 3, 4, 5), p, p * p), rate, icc)
    mean = share_L @ p
    assert share_L.sum() == pytest.approx(1) and (share_L >= 0).all() and away < 0.03
    assert mean == pytest.approx(rate, abs=0.02)
    assert (share_L @ (p * p) - mean**2) / (mean * (1 - mean)) == pytest.approx(icc, abs=0.06)


def test_what_cannot_be_had_is_told() -> None:
    """Guards the choice of steps: how far the nearest mixture is away."""
    p = np.array([0.1, 0.2])
    share_L, away = bases.shares(bases.Moments((1, 2), p, p * p), 0.4, 0.4)
    assert share_L.tolist() == [0.0, 1.0] and away == pytest.approx(0.2 + abs(0.04 - 0.16 - 0.4 * 0.24))


def test_measured_icc() -> None:
    """Guards the analysis of variance: of beta-binomial prompts it is 1/(a + b + 1), within 4 of its own errors."""
    rng = np.random.default_rng(0)
    rate_P = rng.binomial(16, rng.beta(0.8, 1.2, 400)) / 16
    found = bases.measured(rate_P, 16)
    assert abs(found.icc - 1 / 3) < 4 * found.icc_se < 0.2 and abs(found.rate - 0.4) < 4 * found.rate_se < 0.1
    assert bases.icc_of(np.full(9, 0.5), 16) == 0 == bases.icc_of(np.ones(5), 4)
    assert bases.icc_of(np.array([0.0, 1.0, 1.0]), 4) == 1


def test_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the table: its shares make the problems of a run, and a second call measures nothing again."""
    rate = {3: 1.0, 4: 0.75, 5: 0.5, 6: 0.25, 7: 0.0, 8: 0.0}
    calls = []

    def known(settings: Settings, per_cell: int, samples: int, seed: int, cache: Path) -> list[list[float]]:
        calls.append((settings.sft_steps, settings.sft_seed, seed))
        cells = dict.fromkeys(p.cell for p in task(settings).train)
        return [[rate[cell.level]] * per_cell for cell in cells]

    monkeypatch.setattr(bases, "rates_of", known)
    argv = ["--topic", "sort", "--icc", "0.4", "--prompts", "8", "--samples", "4", "--seeds", "2", "--sft-steps", "5"]
    bases.main([*argv, "--out", str(tmp_path / "out"), "--cache", str(tmp_path)])
    with (tmp_path / "out/bases.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["sft_seed"] for row in rows] == ["0", "1"] and set(calls) == {(5, s, p) for s in (0, 1) for p in (0, 1)}
    levels = {p.cell.level for p in task(Settings(topics="sort", level_shares=rows[0]["level_shares"])).train}
    assert levels < set(rate) and rows[0]["level_shares"] in (tmp_path / "out/bases.md").read_text()
    with pytest.raises(InputError, match="--icc must be above 0"):
        bases.main([*argv, "--icc", "1.5", "--out", str(tmp_path / "out")])


def test_rates_are_kept(tmp_path: Path) -> None:
    """Guards the cache: the same warm start is measured once, with a rate of whole answers a prompt of each cell."""
    tiny = Settings(topics="sort", max_level=4, sft_steps=1, sft_batch=8, hidden=16, layers=1, heads=2, kv_heads=1)
    found = bases.rates_of(tiny, 3, 2, 0, tmp_path)
    assert [len(row) for row in found] == [3, 3] and all(2 * x in (0, 1, 2) for row in found for x in row)
    (tmp_path / next(tmp_path.glob("warm_*")).name).unlink()
    assert bases.rates_of(tiny, 3, 2, 0, tmp_path) == found and not list(tmp_path.glob("warm_*"))
