"""Skipped rows, cells by topic and entropy in training: the table is what the study makes, verdicts follow from it."""

from __future__ import annotations

import csv
import math
import shlex
from dataclasses import replace

import numpy as np
import pytest

from ebpo_sim import cli
from ebpo_sim.claims import claims, default_context, skipping
from ebpo_sim.claims.base import meaning
from ebpo_sim.compare.plan import Job
from ebpo_sim.studies.prediction import study
from ebpo_sim.studies.prediction.cells import Cell, Ladder, config, population, reached

NAMES = ("E12", "E13", "E14", "E15", "E16")
CONTEXT = default_context(quick=True, seed=0, threads=1)
SIGNS = {"E12": -1, "E13": -1, "E14": -1, "E15": -1, "E16": 1}  # of a log ratio in the effect


def lines() -> list[dict[str, str]]:
    with skipping.TABLE.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_is_whole() -> None:
    """Guards skipping.csv: every method in every cell, eight seeds each, once."""
    found = [(r["world"], r["regime"], r["group_size"], r["estimator"], r["seed"]) for r in lines()]
    cells, methods, seeds = {x[:3] for x in found}, {x[3] for x in found}, {x[4] for x in found}
    assert len(cells) == 6 and len(methods) == 9 and seeds == set(map(str, range(8)))
    assert len(found) == len(set(found)) == 6 * 9 * 8


def test_the_table_is_what_the_study_makes() -> None:
    """Guards the numbers: two methods' runs of the smallest cell, again."""
    settings = replace(study.SETTINGS, group_sizes=(2, 4))
    for name in (skipping.SCORE, f"{skipping.PLAIN} + {skipping.BOUND}"):
        place = (name, "plateau", "4", "3")
        kept = next(r for r in lines() if (r["estimator"], r["regime"], r["group_size"], r["seed"]) == place)
        sizes = (int(kept["N"]), float(kept["near"]), float(kept["far"]))
        cell = Cell(kept["world"], "plateau", "adam", 4, *sizes)
        curve = Ladder(settings).run(Job(name, cell, float(kept["learning_rate"]), 3, 0))["curve"]
        met = reached(curve, cell.far)
        assert met is not None
        for column in ("rollouts", "rows"):
            assert met[column] == pytest.approx(float(kept[column]), rel=1e-5)
        assert curve[0]["entropy"] - met["entropy"] == pytest.approx(float(kept["entropy lost"]), rel=1e-4)
    assert config(settings, name, cell).minibatches == 1 and population(settings, cell.world, "plateau", 3).actions == 8


def test_ratios_are_paired_by_seed() -> None:
    """Guards cases(): by plain arithmetic on the file, for the first cell of a pair; a cell where fewer than six
    seeds met the target with both methods is left out."""
    mine, other = f"{skipping.SCORE} + {skipping.BOUND}", skipping.SCORE
    (first, *_) = skipping.cases("balanced", mine, other, "rows", lambda x: -x)
    world, size = first.command.split("--world ")[1].split()[0], first.x
    place = [r for r in lines() if (r["world"], r["regime"], r["group_size"]) == (world, "balanced", f"{size:g}")]
    values = [[float(r["rows"]) for r in place if r["estimator"] == name] for name in (mine, other)]
    logs = np.log(values[0]) - np.log(values[1])
    assert first.effect == pytest.approx(-logs.mean(), rel=1e-12)
    assert first.se == pytest.approx(logs.std(ddof=1) / math.sqrt(8), rel=1e-12)
    met: dict[tuple[str, str, str], set[str]] = {}
    for r in lines():
        if r["rollouts"]:
            met.setdefault((r["regime"], r["estimator"], r["group_size"]), set()).add(r["seed"])
    counts = set()
    for name in {r["estimator"] for r in lines()} - {"grpo"}:
        for regime in skipping.REGIMES:
            sizes = {f"{case.x:g}" for case in skipping.cases(regime, name, "grpo", "rollouts", float)}
            for size in ("2", "4"):
                pairs = len(met[regime, name, size] & met[regime, "grpo", size])
                counts.add(pairs)
                assert (size in sizes) == (pairs >= 6)
    assert min(counts) < 6 < max(counts) == 8


def test_the_verdicts_move_with_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against verdicts that cannot fall: texts presume the words of the committed table; where every method's
    costs are those of the other one of each pair, what was above is below, and the bound is kept by all."""
    known = claims()
    plain = {name: known[name].check(CONTEXT) for name in NAMES}
    for name, findings in plain.items():
        assert [(f.variant, f.verdict.word) for f in findings] == list(known[name].presumes), name
        assert meaning(known[name], findings) == known[name].meaning
    whole = {column: skipping.costs(column) for column in ("rollouts", "rows", "entropy lost")}

    def inverse(column: str) -> dict[tuple[str, str, str], skipping.Costs]:
        return {
            cell: {m: {s: x and 1 / x for s, x in seeds.items()} for m, seeds in methods.items()}
            for cell, methods in whole[column].items()
        }

    monkeypatch.setattr(skipping, "costs", inverse)
    for name, findings in plain.items():
        for before, after in zip(findings, known[name].check(CONTEXT), strict=True):
            shift = math.log(1.2) if "rollouts" in before.variant else 0.0
            for a, b in zip(before.cases, after.cases, strict=True):
                assert b.effect - shift == pytest.approx(-(a.effect - shift), abs=1e-12) and b.se == pytest.approx(a.se)


def test_the_commands_can_be_typed() -> None:
    """Guards the counterexamples: options that the study takes, of methods and a cell that it then runs."""
    shown = [f.verdict.counterexample for name in NAMES for f in claims()[name].check(CONTEXT)]
    assert any(shown)
    for text in filter(None, shown):
        program, *given = shlex.split(text.rpartition(": ")[0])
        assert program == "prediction_study"
        settings = study.settings_from(cli.parse(study.Options, "", "", given))
        replace(settings, population=64, validation=8).check()
        assert settings.central == () and 1 <= len(settings.estimators) <= 2 and settings.seeds == 8
