"""The map of T2's gain: exact values by closed forms, and where it is written."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from ebpo_sim.claims import default_context, heat_map, ledger_plots
from ebpo_sim.claims.__main__ import main
from ebpo_sim.numbers import formulas


def test_the_map_by_closed_forms() -> None:
    """With weight S on the prior the ratio is (1-S)^2 + S^2 G icc/(1-icc): S = 1/(2 + (G-1) icc) in Algorithm 1, which
    crosses 1 at rho*(G); S* in the proof and the repair, whose ratio is 1 - S*."""
    rows = heat_map.grid(default_context(quick=False, seed=0, threads=1))
    assert len(rows) == 4 * len(heat_map.CORRELATIONS) * 6
    for row in rows:
        icc, size = row["icc"], row["group_size"]
        best = (1 - icc) / (1 + (size - 1) * icc)
        weight = best if row["variant"] in ("idealised", "ebpo_debiased") else 1 / (2 + (size - 1) * icc)
        assert row["ratio"] == pytest.approx((1 - weight) ** 2 + weight**2 * size * icc / (1 - icc), rel=1e-9)
        if row["variant"] == "algorithm-1":
            assert (row["ratio"] < 1) == (icc < formulas.critical_icc(size))
    texts = {t.get_text() for axis in ledger_plots.heat_map(rows).axes for t in axis.texts}
    assert {f"{row['ratio']:.2f}" for row in rows} == texts


def test_where_the_map_is(tmp_path: Path) -> None:
    """Guards `claims T2`: picture, table, and the picture in the page."""
    main(["T2", "--quick", "--html", "--json", "--threads", "1", "--group-size", "4", "--out", str(tmp_path)])
    assert (tmp_path / "T2_map.png").stat().st_size > 5000
    with (tmp_path / "T2_map.csv").open(encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    assert [r["icc"] for r in found][:2] == ["0.05", "0.1"] and {r["group_size"] for r in found} == {"4"}
    text = (tmp_path / "ledger.html").read_text(encoding="utf-8")
    assert text.count("data:image/png;base64,") == 2 and "over the intra-class correlation and G" in text
