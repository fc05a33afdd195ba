"""The ledger: verdicts follow from cases, move with the estimator, agree with simulation, and fill the README."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ebpo_sim import make
from ebpo_sim.claims import Case, Check, agreement, claims, decide, default_context, run_ledger, to_row
from ebpo_sim.claims.__main__ import main
from ebpo_sim.claims.base import Context
from ebpo_sim.claims.family import search_worlds
from ebpo_sim.claims.ledger import markdown, rows
from ebpo_sim.errors import InputError
from ebpo_sim.estimators import Estimator
from ebpo_sim.exact import limit_risk
from ebpo_sim.mixing import Prior
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
            assert study in ("mse_study", "failure_study", "entropy_study", "clustering_study"), row
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
    """All z-scores of the ledger at once, at the seed 0 of the command line; false-fail rate 1e-3."""
    checked = agreement(full, replicates=16)
    assert checked["comparisons"] >= 30
    assert checked["passes"], checked


def test_agreement_notices_a_disagreement(full: Any) -> None:
    """Guards the guard: a value ten standard errors off is reported."""
    claim, findings = next(item for item in full if item[0].id == "T2")
    wrong = replace(findings[0], check=Check(1.0, 1.1, 0.01))
    found = agreement([(claim, [wrong, *findings[1:]])], replicates=16)
    assert not found["passes"]
    assert found["max_abs_z"] == pytest.approx(10)


def test_the_readme_shows_this_ledger(full: Any) -> None:
    """Guards the README's table: it is the one that the ledger makes."""
    shown = re.search(r"<!-- ledger -->\n(.*?)\n<!-- /ledger -->", README, flags=re.S)
    assert shown and shown.group(1) == markdown(full), "copy results/claims/ledger.md into the README"


def test_the_front_door(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards the files, the figure and --json of a single claim, and the refusal of an unknown id."""
    main(["R2", "--quick", "--json", "--out", str(tmp_path)])
    assert '"rows"' in capsys.readouterr().out
    assert {p.name for p in tmp_path.iterdir()} == {"table.csv", "ledger.json", "ledger.md", "R2.png"}
    with pytest.raises(InputError, match="did you mean"):
        main(["T9", "--out", str(tmp_path / "none")])
    assert not (tmp_path / "none").exists()
