"""Entropy in training by regime: the ledger's rows are whole, their words follow from them, their commands are read."""

from __future__ import annotations

import csv
import shlex

from ebpo_sim.claims import claims, default_context
from ebpo_sim.claims.entropy_training import MEASURES, TABLE
from ebpo_sim.studies.training import study


def test_the_rows_are_whole_and_decide() -> None:
    """Guards E9: three starts, two optimisers, three regimes and three measures, each once; a row is above, equal or
    below by its own standard error, and a verdict counts its rows."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    places = {(r["world"], r["regime"], r["optimiser"], r["tuning"], r["finding"]) for r in rows}
    assert len(places) == len(rows) == 3 * 3 * 2 * 2 * 2
    assert {r["estimator"] for r in rows} == {"ebpo"} and {int(r["seeds"]) for r in rows} == {8}
    ratios = [max(float(r["noise_ratio"]) for r in rows if r["regime"] == x) for x in ("plateau", "balanced", "noisy")]
    assert ratios[0] < 1 < ratios[1] < 10 < ratios[2]
    found = claims()["E9"].check(default_context(quick=True, seed=0, threads=1))
    assert len(found) == 3 * len(MEASURES) and all(len(f.cases) == 6 for f in found)
    for finding in found:
        verdict = finding.verdict
        assert verdict.above == sum(c.effect > 0 and c.sign > 0 for c in finding.cases)
        assert verdict.above + verdict.equal + verdict.below == 6 and verdict.word == "fails"
        assert abs(finding.effect - sum(c.effect for c in finding.cases) / 6) < 1e-15
    shown = sorted((c.effect, c.se) for f in found for c in f.cases)
    wanted = [r for r in rows if (r["finding"], r["tuning"]) in MEASURES]
    assert shown == sorted((float(r["value"]), float(r["se"])) for r in wanted) and len(wanted) == 54


def test_the_commands_are_read() -> None:
    """Guards the counterexamples: the training study takes each as typed."""
    for finding in claims()["E9"].check(default_context(quick=True, seed=0, threads=1)):
        program, *words = shlex.split(finding.verdict.counterexample.partition(": ")[0])
        assert program == "training_study"
        study.settings_from(study.parse(words)).check()
