"""The ledger: verdicts follow from cases, move with the estimator, agree with simulation, and fill the README."""

from __future__ import annotations

import re
import shlex
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import t as student

from ebpo_sim import make
from ebpo_sim.claims import (
    Case,
    Check,
    Finding,
    agreement,
    claims,
    decide,
    default_context,
    history,
    run_ledger,
    to_row,
)
from ebpo_sim.claims.__main__ import main
from ebpo_sim.claims.base import Context
from ebpo_sim.claims.family import search_worlds
from ebpo_sim.claims.ledger import markdown, rows
from ebpo_sim.counts.exact import limit_risk
from ebpo_sim.counts.updates import advantage_gap, raw_table
from ebpo_sim.errors import InputError
from ebpo_sim.estimators import Estimator, Subtract
from ebpo_sim.estimators.transforms import Evaluation, StatelessBaseline
from ebpo_sim.groups import Groups
from ebpo_sim.numbers.mixing import Prior
from ebpo_sim.worlds import parse_world

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
KEYS = (
    "id",
    "source",
    "statement",
    "variant",
    "verdict",
    "condition",
    "effect",
    "effect_se",
    "counterexample",
    "repaired_by",
)


@pytest.fixture(scope="module")
def full() -> Any:
    """The published ledger, once for this file (about half a minute)."""
    return run_ledger(default_context(quick=False, seed=0, threads=2))


def small(**subjects: Any) -> Context:
    """A quick context with these estimators as the only subjects."""
    context = default_context(quick=True, seed=0, threads=1)
    design = context.design._replace(prompts=256, steps=2, burn_in=1, replicates=4)
    return replace(context, subjects=subjects, worlds=("points:0,0.5", "beta:1,1", "beta:0.1,0.1"), design=design)


def verdicts(context: Context, name: str) -> dict[str, str]:
    return {f.variant: f.verdict.word for f in claims()[name].check(context)}


def test_decide() -> None:
    """Guards the rule: holds, holds_if exactly where the condition explains every violation, fails otherwise."""
    good, bad, excused = Case("a", 0.1), Case("b", -0.1), Case("c", -0.1, expected=False)
    assert decide([good], "x").word == "holds"
    assert decide([good, excused], "x") == ("holds_if", "x", "c", 1)
    assert decide([good, bad, excused], "x") == ("fails", "", "b", 2)
    assert decide([good, excused], "").word == "fails"
    assert decide([excused], "x").word == "fails", "a condition that is never met explains nothing"
    assert decide([Case("d", 0.0)], "").word == "fails", "strict claims do not hold with equality"


def test_the_verdict_moves_with_the_estimator() -> None:
    """Guards against hard-coded verdicts: a broken estimator loses T2 and R2, the repaired one wins them."""

    def broken(prior: Prior) -> Estimator:
        return make("global_mean")  # pools everything

    def repaired(prior: Prior) -> Estimator:
        return make("ebpo_debiased")

    context = small(broken=broken, repaired=repaired)
    assert verdicts(context, "T2")["broken"] == "fails"
    assert verdicts(context, "T2")["repaired"] == "holds"
    assert verdicts(context, "R2")["broken"] == "fails"
    assert verdicts(context, "R2")["repaired"] == "holds"


def test_a_centred_repair_loses_its_signal() -> None:
    """Guards T1, C1 and O1: the repaired baseline with batch centring behaves as Algorithm 1 does."""

    def centred(prior: Prior) -> Estimator:
        return make("ebpo_debiased", centre="batch", scale="batch")

    def repaired(prior: Prior) -> Estimator:
        return make("ebpo_debiased")

    context = small(centred=centred, repaired=repaired)
    assert verdicts(context, "T1") == {"centred": "holds_if", "repaired": "holds"}
    growing = verdicts(context, "C1")
    assert (growing["centred"], growing["repaired"]) == ("fails", "holds")
    assert verdicts(context, "O1") == {"centred": "holds", "repaired": "fails"}


def test_every_claim_has_its_rows(full: Any) -> None:
    """Guards completeness: all claims, the three variants of each of EBPO's, every key of the JSON rows."""
    table = rows(full)
    by_id: dict[str, set[str]] = {}
    for row in table:
        assert tuple(row)[: len(KEYS)] == KEYS
        assert row["verdict"] in ("holds", "holds_if", "fails")
        by_id.setdefault(row["id"], set()).add(row["variant"].partition(",")[0])
    for name in ("T1", "T2", "R2", "R3", "C1", "P1", "P2", "O1", "O2", "O4"):
        assert {"idealised", "algorithm-1", "released"} <= by_id[name], name
    hidden = {name.removeprefix("HB-") for name in by_id if name.startswith("HB-")}
    wanted = {f"P{i}" for i in range(1, 8)} | {f"Q{i}" for i in range(1, 8)} | {f"R{i}" for i in range(1, 10)}
    assert wanted <= hidden


def test_failures_can_be_retyped(full: Any) -> None:
    """Guards the counterexamples: each is a study's command, and T2's violates T2 when its estimator is evaluated."""
    for claim, findings in full:
        for finding in findings:
            row = to_row(claim, finding)
            if row["verdict"] == "holds":
                assert row["counterexample"] is None
                continue
            study = row["counterexample"].split()[0]
            assert study in ("mse_study", "failure_study", "entropy_study", "clustering_study", "noise_study"), row
            if claim.id == "T2":
                words = shlex.split(row["counterexample"])
                world, size, name = (
                    words[words.index(flag) + 1] for flag in ("--world", "--group-size", "--estimator")
                )
                here = parse_world(world)
                plain = limit_risk(make("grpo"), here, int(size)).mse
                assert limit_risk(make(name), here, int(size)).mse > plain


def test_the_simplest_counterexample_comes_first(full: Any) -> None:
    """Guards the search rule: no simpler world of the list violates T2 for Algorithm 1 at the smallest G."""
    _, findings = next(item for item in full if item[0].id == "T2")
    found = next(f for f in findings if f.variant == "algorithm-1").verdict.counterexample
    for world in search_worlds(quick=False):
        here = parse_world(world)
        if limit_risk(make("ebpo"), here, 2).mse > limit_risk(make("grpo"), here, 2).mse * (1 + 1e-9):
            assert found == f"mse_study --world {world} --group-size 2 --estimator ebpo"
            return
    pytest.fail("no counterexample in the list")


def test_exact_and_simulated_agree(full: Any) -> None:
    """All confirmations of the ledger at once, at the seed 0 of the command line; false-fail rate 1e-3."""
    checked = agreement(full)
    assert checked["comparisons"] >= 30
    assert checked["passes"], checked


def test_agreement_notices_a_disagreement(full: Any) -> None:
    """Guards the guard: a value ten standard errors off is reported."""
    claim, findings = next(item for item in full if item[0].id == "T2")
    wrong = replace(findings[0], check=Check(1.0, 1.1, 0.01, 15))
    found = agreement([(claim, [wrong, *findings[1:]])])
    assert not found["passes"]
    assert found["max_abs_z"] == pytest.approx(10)


def checked(*checks: Check) -> dict[str, Any]:
    """The agreement of these checks alone."""
    claim = claims()["T2"]
    finding = Finding("x", [Case("a", 1.0)], "", "effect", 0.0)
    return agreement([(claim, [replace(finding, variant=str(i), check=c) for i, c in enumerate(checks)])])


def test_every_check_has_its_own_degrees_of_freedom() -> None:
    """Guards the family-wise rate: under right numbers, checks of few and of many replicates fail together with
    probability 1e-3; each is judged by its own t law, and |z| = 6 means less from 8 replicates than from 16."""
    names = 48
    limit = 1e-3 / names
    for freedom in (7, 15, 798):
        z = float(student.isf(limit / 2, freedom))
        calm = [Check(0.0, 0.0, 1.0, 15)] * (names - 1)
        assert checked(Check(0.0, 0.999 * z, 1.0, freedom), *calm)["passes"]
        found = checked(Check(0.0, 1.001 * z, 1.0, freedom), *calm)
        assert not found["passes"]
        assert (found["comparisons"], found["freedom"], found["where"]) == (names, freedom, "T2 0")
        assert found["limit"] == pytest.approx(limit, rel=1e-12)
    assert Check(0.0, 6.0, 1.0, 7).p_value > 10 * Check(0.0, 6.0, 1.0, 15).p_value
    # The smallest p-value counts, not the largest |z|.
    assert checked(Check(0.0, 5.0, 1.0, 7), Check(0.0, 4.9, 1.0, 40))["where"] == "T2 1"


def test_a_check_without_an_error_is_equality() -> None:
    """Guards the edges: se 0 demands equality, and a check that is not a number agrees with nothing."""
    assert checked(Check(1.0, 1.0, 0.0, 7))["passes"]
    assert not checked(Check(1.0, 1.1, 0.0, 7))["passes"]
    for nan in (Check(1.0, float("nan"), 0.1, 7), Check(1.0, 1.0, float("nan"), 7), Check(1.0, float("nan"), 0.0, 7)):
        assert not checked(Check(0.0, 0.1, 1.0, 15), nan)["passes"]


def test_the_ledger_states_its_degrees_of_freedom(full: Any) -> None:
    """Guards each check's freedom: one below its replicates, 16 for drift, topics and entropy, 40 elsewhere; a slope
    over 800 streams has 798. In the quick ledger drift and topics have 8 replicates, the rest 16."""
    few = {"drift", "topics", "entropy"}
    seen = {}
    for claim, findings in full:
        for f in findings:
            if f.check:
                kind = "slope" if f.variant.endswith("stationary") else {"P1": "entropy", "P2": "topics"}.get(claim.id)
                kind = "drift" if f.variant.endswith("drift") else kind
                seen.setdefault(kind or "rest", set()).add(f.check.freedom)
    assert seen == {"slope": {798}, "rest": {39}, **{kind: {15} for kind in few}}
    quick = default_context(quick=True, seed=0, threads=1)
    assert {c.freedom for c in history._simulated_lags(quick).values()} == {7}


class MixedGroups(StatelessBaseline):
    """0.1 in groups with a success and a failure, else 0: E[b | right] = E[b | wrong] at p = 1/2 and nowhere else."""

    def evaluate(self, state: tuple[()], groups: Groups) -> Evaluation:
        return Evaluation(0.1 * ~groups.degenerate_P[..., None])


def test_a_gradient_must_be_right_at_every_p() -> None:
    """Guards O2's grid: a baseline whose bias vanishes by symmetry at p = 1/2 alone fails in every cell."""

    def symmetric(prior: Prior) -> Estimator:
        return Estimator("mixed groups", (Subtract(MixedGroups()),))

    found = {f.variant: f for f in claims()["O2"].check(small(symmetric=symmetric))}
    assert found["symmetric"].verdict.word == "fails"
    assert found["symmetric"].verdict.violations == len(found["symmetric"].cases)
    table = raw_table(symmetric(Prior((0.5,), (1.0,))), parse_world("beta:1,1"), 4)
    assert advantage_gap(table, 0.5) == pytest.approx(1, abs=1e-12)
    assert abs(advantage_gap(table, 0.3) - 1) > 0.03


def test_the_rate_of_the_own_batch_bias() -> None:
    """Guards R3 from both sides: a running mean of batches of one size gives its own batch exactly 1/T, so Algorithm 1
    meets the bound with equality; a bound of another rate would leave room. Forgetting does not decay as 1/T."""
    effects = [c.effect for c in history.stationary_cases("algorithm-1", make("ebpo"))]
    assert [c.x for c in history.stationary_cases("algorithm-1", make("ebpo"))] == list(history.AGES)
    assert effects == pytest.approx([1e-9] * len(effects), abs=1e-10)
    forgetting = history.stationary_cases("forgetting", make("ebpo", memory=0.9))
    assert decide(forgetting, "").word == "fails"
    # T = 16: weight 0.1/(1 - 0.9^16) = 0.123 against 0.0625; 1/sqrt(T) would allow it.
    assert next(c.effect for c in forgetting if c.x == 16) == pytest.approx(1 / 16 - 0.1 / (1 - 0.9**16), abs=1e-6)


@pytest.mark.parametrize(("rounds", "word"), [(13, "fails"), (20, "fails"), (100, "holds")])
def test_most_of_the_promised_reduction_is_not_enough(monkeypatch: pytest.MonkeyPatch, rounds: int, word: str) -> None:
    """Guards P2's threshold of 0.9: the repair with a prior per topic, which starts each topic without one, realises at
    least 0.84, 0.897 and 0.98 of the promise when a topic has 13, 20 and 100 batches."""
    monkeypatch.setattr(history, "ROUNDS", rounds)
    monkeypatch.setattr(history, "_simulated", lambda context: defaultdict(lambda: Check(0.0, 0.0, 1.0, 7)))
    context = default_context(quick=False, seed=0, threads=1)
    found = next(f for f in history.topic_order(context) if f.variant == "ebpo_debiased, prior per topic")
    least = min(c.effect for c in found.cases) + 0.9
    assert found.verdict.word == word
    assert least == pytest.approx({13: 0.84, 20: 0.897, 100: 0.98}[rounds], abs=0.005)


def test_the_readme_shows_this_ledger(full: Any) -> None:
    """Guards the README's table: it is the one that the ledger makes."""
    shown = re.search(r"<!-- ledger -->\n(.*?)\n<!-- /ledger -->", README, flags=re.S)
    assert shown and shown.group(1) == markdown(full), "copy results/claims/ledger.md into the README"


def test_the_front_door(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards the files, the figure and --json of a single claim, and the refusal of an unknown id."""
    main(["R2", "--quick", "--json", "--out", str(tmp_path)])
    assert '"rows"' in capsys.readouterr().out
    assert {p.name for p in tmp_path.iterdir()} == {
        "table.csv",
        "instruments.csv",
        "ledger.json",
        "ledger.md",
        "R2.png",
    }
    with pytest.raises(InputError, match="did you mean"):
        main(["T9", "--out", str(tmp_path / "none")])
    assert not (tmp_path / "none").exists()
