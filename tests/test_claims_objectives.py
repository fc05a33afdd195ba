"""The claims about objectives: verdicts as the ledger prints them, counterexamples that show what they say, conditions
and derivatives against independent computations."""

from __future__ import annotations

import json
import shlex
import time
from typing import Any

import numpy as np
import pytest

from ebpo_sim.claims import claims, default_context
from ebpo_sim.claims.base import Context, Finding, meaning
from ebpo_sim.claims.objective_policies import entropy, policies
from ebpo_sim.methods.__main__ import main as methods
from ebpo_sim.objectives import Clip

OWN = [c for name, c in claims().items() if name.startswith("J") and name not in ("J15", "J16")]  # test_claims_recipes


@pytest.fixture(scope="module")
def context() -> Context:
    return default_context(quick=True, seed=0, threads=1)


@pytest.fixture(scope="module")
def findings(context: Context) -> dict[str, list[Finding]]:
    return {claim.id: claim.check(context) for claim in OWN}


def test_the_verdicts_are_those_presumed(findings: dict[str, list[Finding]], context: Context) -> None:
    """Guards the texts: every finding's verdict is written down beside its claim; all of it takes under 10 s."""
    begun = time.process_time()
    for claim in OWN:
        assert [(f.variant, f.verdict.word) for f in findings[claim.id]] == list(claim.presumes)
        assert meaning(claim, findings[claim.id]) == claim.meaning
        claim.check(context)
    assert time.process_time() - begun < 10
    assert sum(map(len, findings.values())) >= 40 and set(findings) <= set(claims())


def test_every_counterexample_can_be_retyped(
    findings: dict[str, list[Finding]], context: Context, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards the commands: a push's is run as printed and its rows show the violation; a policy's names the claim, the
    variant and the place, where the effect is not above 0."""
    tried = 0
    for name, mine in findings.items():
        for finding in mine:
            shown = finding.verdict.counterexample
            assert (shown == "") == (finding.verdict.word == "holds")
            if not shown:
                continue
            command, _, where = shown.partition(": ")
            program, *words = shlex.split(command)
            if program == "claims":
                assert words == [name] and where.startswith(f"{finding.variant}, at ")
                again = next(f for f in claims()[name].check(context) if f.variant == finding.variant)
                assert any(c.command == shown and c.effect <= 1e-6 for c in again.cases)
            else:
                assert program == "methods"
                methods([*words, "--json"])
                assert violates(finding, json.loads(capsys.readouterr().out)), shown
            tried += 1
    assert tried > 20


def violates(finding: Finding, rows: list[dict[str, Any]]) -> bool:
    """Whether the printed rows contradict the claim."""
    push, advantage = (np.array([row[c] for row in rows]) for c in ("push", "advantage"))
    if finding.effect_name == "largest push beyond the bound":
        return bool(push[0] * advantage[0] > 0 and not 0.8 <= rows[0]["ratio"] <= 1.2)
    if finding.effect_name == "largest jump":
        return bool(abs(push[1] - push[0]) > 0.01 and abs(rows[1]["ratio"] / rows[0]["ratio"] - 1) < 2e-4)
    if finding.effect_name.startswith("push at ratio 1"):
        return bool(abs(push[0] - advantage[0]) > 1e-3)
    if finding.variant == "clip, at most 0.15":
        return bool(push[0] != 0 and rows[0]["ratio"] < 0.85)
    if finding.variant == "wrong answers go down":
        return bool(np.all(push[advantage < 0] >= 0))
    if finding.variant == "right answers go up":
        return bool(np.all(push[advantage > 0] <= 0))
    if finding.effect_name.startswith("weight at"):
        return len(rows) == 8 and abs(push[advantage > 0].sum()) > 0
    if finding.variant == "of the objective":
        value = np.array([row["value"] for row in rows])
        lower = abs(min(rows[1]["ratio"], 1.0))  # at a bound of 0.6 the wrong answer counts for no more than this
        return bool(abs(value[1]) > max(0.6, lower) - 1e-9)
    return bool(abs(push[0]) > 1.2)


def test_an_entropy_and_its_slope() -> None:
    """Guards J3 and J10: entropy by its definition, and -Cov(log pi, A) as its slope along a natural gradient step."""
    for _, pi, advantage in policies()[:20]:
        assert entropy(np.log(pi)) == pytest.approx(float(-pi @ np.log(pi)), abs=1e-12)
        step = 1e-5
        slope = (entropy(np.log(pi) + step * advantage) - entropy(np.log(pi) - step * advantage)) / (2 * step)
        expected = -float(pi @ (np.log(pi) * advantage) - (pi @ np.log(pi)) * (pi @ advantage))
        assert slope == pytest.approx(expected, abs=1e-8)


def test_moments_of_the_sequence_ratio(findings: dict[str, list[Finding]]) -> None:
    """Guards J1's closed moments against enumeration: answers of two and four tokens of the first policies."""
    for length in (2, 4):
        old, new, _ = policies()[0]
        index = np.indices((len(old),) * length).reshape(length, -1).T
        chance, ratio = old[index].prod(1), (new / old)[index].prod(1) ** (1 / length)
        mean = float(chance @ ratio)
        variance, single = float(chance @ ratio**2) - mean**2, float(old @ (new / old) ** 2) - 1
        at = f"tokens {length}"
        case = next(c for c in findings["J1"][0].cases if c.command.endswith(at))
        assert case.effect == pytest.approx(single - variance, rel=1e-12)
        assert findings["J1"][2].cases[[1, 2, 4].index(length)].effect == pytest.approx(1e-9 - abs(mean - 1), rel=1e-9)


def test_verdicts_move_with_the_objectives(monkeypatch: pytest.MonkeyPatch, context: Context) -> None:
    """Guards against hard-coded verdicts: a clip that never holds breaks "none further off", and J14's bound by CISPO
    is lost once its cap is off."""
    from ebpo_sim.claims import objective_pushes as checks

    known = checks.make_objective
    monkeypatch.setattr(checks, "make_objective", lambda n: Clip(None, None) if n in ("clip", "cispo") else known(n))
    assert {f.variant: f.verdict.word for f in checks.kept_gradient(context)}["clip, none further off"] == "fails"
    assert {f.variant: f.verdict.word for f in checks.bounded(context)}["cispo, 1.2"] == "fails"
