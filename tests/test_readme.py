"""The README says what the code does: its examples run, its table's exact columns are recomputed."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ebpo_sim import make
from ebpo_sim.counts.exact import limit_risk
from ebpo_sim.estimators import names, registry
from ebpo_sim.methods.selected import counted
from ebpo_sim.studies.base import agreement
from ebpo_sim.studies.mse.simulate import simulate
from ebpo_sim.studies.mse.study import SETTINGS
from ebpo_sim.studies.mse.text import overview
from ebpo_sim.worlds import parse_world

TEXT = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def test_the_trainer_example_runs() -> None:
    """Guards the three lines that a trainer copies: they run, and a mixed group gets both signs."""
    code = next(block for block in blocks("python") if "estimator.step" in block)
    scope: dict[str, Any] = {}
    exec(code, scope)
    assert scope["advantages"].shape == (6,)
    assert scope["advantages"][0] > 0 > scope["advantages"][1]


def test_the_new_estimator_example_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the 20-line estimator: once registered it has an exact risk, (1/4) w/G + (1/4) E p^2 for half the mean."""
    code = next(block for block in blocks("python") if "half_way" in block)
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
    assert next(block for block in blocks("") if block.startswith("G = 4")) == overview(rows) + "\n"
    assert agreement(rows, "ratio_mc", "ratio_exact", SETTINGS.design.replicates)["passes"]


def test_every_preset_is_named() -> None:
    """Guards the table of presets."""
    assert not [name for name in names() if f"`{name}`" not in TEXT]


def blocks(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, flags=re.S | re.M)
    return [body for name, body in found if name == language]


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
    assert words in " ".join(TEXT.split())
