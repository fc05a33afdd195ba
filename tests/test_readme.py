"""The README says what the code does: its examples run, its table's exact columns are recomputed."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import pages
from ebpo_sim import make
from ebpo_sim.counts.exact import limit_risk
from ebpo_sim.diagnose.__main__ import read
from ebpo_sim.diagnose.coverage import NOMINAL, WORLDS, Design
from ebpo_sim.diagnose.diagnosis import Plan, diagnose
from ebpo_sim.diagnose.ratios import selection
from ebpo_sim.estimators import names, registry
from ebpo_sim.methods.selected import counted
from ebpo_sim.studies.base import agreement
from ebpo_sim.studies.mse.simulate import simulate
from ebpo_sim.studies.mse.study import SETTINGS
from ebpo_sim.studies.mse.text import overview
from ebpo_sim.worlds import observed_counts, parse_world

DATA = Path(__file__).parent / "data"
TRAINER = pages.page("ebpo_sim/estimators")


def test_the_trainer_example_runs() -> None:
    """Guards the three lines that a trainer copies: they run, and a mixed group gets both signs."""
    code = next(
        block for block in pages.blocks("python", pages.page("ebpo_sim/estimators")) if "estimator.step" in block
    )
    scope: dict[str, Any] = {}
    exec(code, scope)
    assert scope["advantages"].shape == (6,)
    assert scope["advantages"][0] > 0 > scope["advantages"][1]


def test_the_new_estimator_example_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the 20-line estimator: once registered it has an exact risk, (1/4) w/G + (1/4) E p^2 for half the mean."""
    code = next(block for block in pages.blocks("python", TRAINER) if "half_way" in block)
    monkeypatch.setattr(registry, "_PRESETS", dict(registry._PRESETS))
    exec(code, {"__name__": __name__})
    assert "half_way" in names()
    world = parse_world("beta:2,3")
    prior = world.quadrature(8)
    expected = prior.within / 4 / 4 + (prior.between + prior.mean**2) / 4
    assert limit_risk(make("half_way"), world, 4).mse == pytest.approx(expected, rel=1e-12)


def test_the_table_is_what_the_code_computes() -> None:
    """Guards every byte of the G = 4 table: exact, simulated, model-free and best-learnt columns, made again."""
    rows = simulate(replace(SETTINGS, group_sizes=(4,)), threads=2)
    assert (
        next(block for block in pages.blocks("", pages.page("ebpo_sim")) if block.startswith("G = 4"))
        == overview(rows) + "\n"
    )
    assert agreement(rows, "ratio_mc", "ratio_exact", SETTINGS.design.replicates)["passes"]


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("Qwen2-1.5B, MATH", "Qwen2-1.5B/MATH"),
        ("Qwen2.5-Math-1.5B-Instruct, MATH", "Qwen2.5-Math-1.5B-Instruct/MATH"),
        ("GPT-4-0613, LiveCodeBench (T = 0.2)", "GPT-4-0613/LiveCodeBench"),
    ],
)
def test_the_diagnoses_are_what_the_code_computes(line: str, name: str, tmp_path: Path) -> None:
    """Guards the table of diagnoses at G = 8: every number to its printed digits, the verdict and the estimator."""
    counts = observed_counts(name)
    cells = zip(counts.rollouts, counts.successes, counts.prompts, strict=True)
    path = tmp_path / "counts.csv"
    path.write_text("rollouts,successes,prompts\n" + "".join(f"{n},{s},{c}\n" for n, s, c in cells), encoding="utf-8")
    plan = Plan(group_sizes=(8,))
    found = diagnose(read([str(path)])[1][0], "", plan, selection(()))
    row = next(x for x in pages.page("ebpo_sim/diagnose").splitlines() if x.startswith(f"| {line} |"))
    icc, advised, own, published = (cell.strip() for cell in row.split("|")[2:6])
    assert advised.partition(":")[0] == found.advice.verdict
    named = re.findall(r"`(\w+)`", advised + own)
    ratios = {r.estimator: r.split for r in found.table.at(8)}
    assert found.advice.estimator in (named[0], "grpo")
    assert ("do not use" in published) == any("Do not use EBPO" in x for x in found.advice.sentences)
    for shown, estimate in ((icc, found.components.icc), (own, ratios[named[0]]), (published, ratios["ebpo"])):
        digits = re.findall(r"\d+\.(\d+)", shown)
        assert estimate is not None and estimate.low is not None and estimate.high is not None
        values = (estimate.value, estimate.low, estimate.high)
        expected = [f"{v:.{len(d)}f}" for v, d in zip(values, digits, strict=True)]
        assert re.findall(r"\d+\.\d+", shown) == expected


def test_measured_numbers_are_those_of_their_files() -> None:
    """Guards what is measured too slowly, or on one machine, for a test: the README repeats the files that hold the
    output of `python -m ebpo_sim.diagnose.coverage` and of `make bench`."""
    shares = re.findall(r"(\d\.\d\d) ± 0\.01 ", (DATA / "readme_coverage.txt").read_text(encoding="utf-8"))
    error = f"{(NOMINAL * (1 - NOMINAL) / Design().sets) ** 0.5:.3f}"
    assert len(shares) == len(WORLDS) * 6
    assert f"{min(shares)} to {max(shares)} ± {error} in five known worlds" in pages.page("ebpo_sim/diagnose")
    assert (DATA / "readme_bench.txt").read_text(encoding="utf-8") in pages.blocks("", pages.page("ebpo_sim"))


def test_every_preset_is_named() -> None:
    """Guards the table of presets."""
    assert not [name for name in names() if f"`{name}`" not in pages.page("ebpo_sim/estimators")]


def test_what_filtering_does_to_a_prior_is_computed() -> None:
    """Guards the four ratios of the paragraph on parts: exact risk of EBPO and the repaired rule, filtered and not."""
    world = parse_world("beta:1,3")
    plain = limit_risk(make("grpo"), world, 4).mse
    ratios = [
        f"{limit_risk(counted(name + filtered, None), world, 4).mse / plain:.3f}"
        for name in ("ebpo", "ebpo_debiased")
        for filtered in ("", " + dynamic:batches=1")
    ]
    words = "from {} to {}, the repaired rule's, which trusts its prior more, from {} to {}.".format(*ratios)
    assert words in pages.words(pages.page("ebpo_sim/methods"))
