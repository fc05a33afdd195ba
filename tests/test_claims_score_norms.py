"""Score norms of right and wrong answers: exact on the chains as drawn, the measured ones those of their files."""

from __future__ import annotations

import csv

import numpy as np
import pytest

import pages
from ebpo_sim.chains.answers import score_norms
from ebpo_sim.chains.population import parse_population
from ebpo_sim.chains.update import sample
from ebpo_sim.claims import claims, default_context
from ebpo_sim.claims.base import meaning
from ebpo_sim.claims.score_norms import TABLE, chain_norms

DRAWS = 4000


def test_norms_of_the_chains_are_those_of_drawn_answers() -> None:
    """Guards a and c: means over 4000 answers of each of 12 prompts. 24 comparisons at 4.5 standard errors: false
    alarm 2e-4."""
    people = parse_population("observed:Qwen2.5-7B", 12, 3, 4)
    p_P, right_P, wrong_P = chain_norms(people)
    rolled = sample(people.start_SK, people.prompts, DRAWS, np.random.default_rng(5))
    norm_PG = score_norms(rolled)
    compared = 0
    for p, reward_G, norm_G, right, wrong in zip(p_P, rolled.reward_PG, norm_PG, right_P, wrong_P, strict=True):
        assert abs(reward_G.mean() - p) < 5 * (p * (1 - p) / DRAWS) ** 0.5
        for chosen, exact in ((norm_G[reward_G > 0], right), (norm_G[reward_G == 0], wrong)):
            if len(chosen) > 30:
                compared += 1
                assert abs(chosen.mean() - exact) < 4.5 * chosen.std(ddof=1) / len(chosen) ** 0.5 + 1e-9
    assert compared >= 12


def test_the_verdicts_and_their_conditions() -> None:
    """Guards E8: every verdict is the one its text speaks of, and each condition is exact."""
    claim = claims()["E8"]
    findings = claim.check(default_context(quick=True, seed=0, threads=1))
    assert [(f.variant, f.verdict.word) for f in findings] == list(claim.presumes)
    assert meaning(claim, findings) == claim.meaning
    for finding in findings[:3]:
        assert all((case.sign > 0) == (case.expected and finding.variant != "equal norms") for case in finding.cases)
    assert all(f.effect == pytest.approx(np.mean([c.effect for c in f.cases])) for f in findings)
    with TABLE.open(encoding="utf-8", newline="") as file:
        wanted = [
            (float(r["wrong"]) - float(r["right"]), np.sqrt(float(r["wrong_se"]) ** 2 + float(r["right_se"]) ** 2))
            for r in csv.DictReader(file)
        ]
    found = [(case.effect, case.se) for finding in findings[4:] for case in finding.cases]
    np.testing.assert_allclose(sorted(found), sorted(wanted), rtol=1e-12)


def test_the_table_is_that_of_the_measurements() -> None:
    """Guards the copy that the ledger reads: the bins with right and wrong answers, to the bit."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        kept = {(r["policy"], r["pass_rate"]): r for r in csv.DictReader(file)}
    measured = 0
    for policy, name in (("start", "start"), ("after 400 steps of GRPO", "grpo_400")):
        path = pages.ROOT / "llm" / "measured" / "score_norms" / f"{name}.csv"
        for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines()):
            if row["right"] and row["wrong"]:
                measured += 1
                for column in ("mean_pass_rate", "right", "wrong"):
                    assert float(kept[policy, row["pass_rate"]][column]) == float(row[column])
                for column in ("right", "wrong"):
                    error = float(kept[policy, row["pass_rate"]][f"{column}_se"])
                    assert error == pytest.approx(float(row[f"{column} se"]), rel=0)
    assert measured == len(kept)
