"""Claims on published recipes: the ledger's rows are whole, their words follow from them, their commands are read."""

from __future__ import annotations

import re

import pytest

from ebpo_sim import cli
from ebpo_sim.claims import claims, default_context
from ebpo_sim.claims.recipes import PLACEBO, REGIMES, lines
from ebpo_sim.studies.methods import study
from ebpo_sim.studies.methods.arms import PARTS


def test_the_rows_are_whole_and_decide() -> None:
    """Guards J15 and J16: three regimes, four other parts, two worlds and eight seeds, each once; a verdict counts its
    rows, and GRPO itself, with its own rewards, gains in every one."""
    rows = lines()
    parts = {(r["regime"], r["name"]) for r in rows if r["quantity"] == "objective's share less"}
    gains = {(r["regime"], r["world"], r["name"]) for r in rows if r["quantity"] == "gain of pass@1"}
    assert parts == {(regime, part) for regime in REGIMES for part in PARTS if part != "objective"}
    assert gains == {(g, w, a) for g in REGIMES for w in study.SETTINGS.worlds for a in ("grpo", PLACEBO)}
    assert len(rows) == len(parts) + len(gains) and {int(r["seeds"]) for r in rows} == {study.SETTINGS.seeds}
    assert all(float(r["value"]) > 5 * float(r["se"]) > 0 for r in rows if r["name"] == "grpo")
    for name, count in (("J15", 4), ("J16", 2)):
        found = claims()[name].check(default_context(quick=True, seed=0, threads=1))
        assert [f.variant for f in found] == list(REGIMES) and all(len(f.cases) == count for f in found)
        for finding in found:
            verdict = finding.verdict
            assert verdict.above == sum(c.effect > max(1e-6, 5 * c.se) for c in finding.cases)
            assert verdict.above + verdict.equal + verdict.below == count


@pytest.mark.parametrize("name", ["J15", "J16"])
def test_the_commands_are_read(name: str) -> None:
    """Guards the counterexamples: the methods study takes each as typed."""
    for finding in claims()[name].check(default_context(quick=True, seed=0, threads=1)):
        for case in finding.cases:
            program, *words = re.split(" +", case.command.partition(": ")[0])
            assert program == "methods_study"
            study.settings_from(cli.parse(study.Options, program, "", words))[0].check()
