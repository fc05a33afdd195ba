"""The generated pages: what `make docs` writes is what is committed, runs, and grows with the registries."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pytest

import pages
from ebpo_sim import docs
from ebpo_sim.claims.about import about, decided
from ebpo_sim.claims.ledger import claims
from ebpo_sim.counts.updates import advantage_gap
from ebpo_sim.estimators import Estimator, Subtract, make, names, register, registry
from ebpo_sim.estimators.group_mean import GroupMean
from ebpo_sim.methods.flags import Flags, flags
from ebpo_sim.methods.recipes import RECIPES
from ebpo_sim.objectives import CISPO, DPPO, KL, SAPO, Clip, make_objective, objective_names

PACKAGE = pages.ROOT / "ebpo_sim"


@pytest.fixture(scope="module")
def written() -> dict[str, str]:
    return docs.pages()


def test_the_pages_are_the_committed_ones(written: dict[str, str]) -> None:
    """Guards the repository: a change of a method comes with its page; `make docs` renews them."""
    for name, text in written.items():
        assert (PACKAGE / name).read_bytes() == text.encode(), f"{name} is old: run make docs"


def test_links_and_tests_that_are_named_exist(written: dict[str, str]) -> None:
    """Guards references: relative links lead to files, tests named are functions of the suite."""
    suite = "\n".join(p.read_text(encoding="utf-8") for p in sorted((pages.ROOT / "tests").glob("test_*.py")))
    found = set()
    for name, text in written.items():
        for target in re.findall(r"\]\((?!http)([^)#]+)", text):
            assert ((PACKAGE / name).parent / target).exists()
        found |= set(re.findall(r"`(test_\w+)`", text))
    assert len(found) >= 5 and not [test for test in found if f"def {test}(" not in suite]


def test_examples_run(written: dict[str, str]) -> None:
    """Guards the code of every section: it gives a finite advantage to each of eight rollouts."""
    blocks = pages.blocks("python", written["estimators/METHODS.md"])
    assert len(blocks) == len(names())
    for block in blocks:
        scope: dict[str, object] = {}
        exec(block, scope)
        assert np.isfinite(np.asarray(scope["advantages"])).sum() == 8, block


def test_weights_by_hand(written: dict[str, str]) -> None:
    """Guards the numbers: RLOO's weight is 1 everywhere, without a baseline too, GRPO's at G = 2 is 1/sqrt 2."""
    for name, row in (("rloo", "1.000 | 1.000 | 1.000"), ("reinforce", "1.000 | 1.000 | 1.000"),
                      ("grpo", "0.707 | 0.707 | 0.707")):  # fmt: skip
        section = written["estimators/METHODS.md"].partition(f"\n## {name}:")[2].partition("\n## ")[0]
        assert f"| G = 2 | {row} |" in section
    assert advantage_gap(np.array([[0, 0], [-0.5, 0.5], [0, 0]]), 0.3) == pytest.approx(0.5)


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A preset more, forgotten afterwards."""
    monkeypatch.setattr(registry, "_PRESETS", dict(registry._PRESETS))

    @register
    def brand_new(*, width: float = 0.25) -> Estimator:
        """A rule of no paper."""
        return Estimator("brand_new", (Subtract(GroupMean()),))

    yield "brand_new"


def test_a_new_preset_has_a_section(own: str, written: dict[str, str]) -> None:
    """Guards the generator: nothing but the registry decides what is on the pages."""
    assert f"## {own}" not in written["estimators/METHODS.md"]
    section = docs.pages()["estimators/METHODS.md"].partition(f"\n## {own}\n")[2]
    assert "A rule of no paper." in section and "`width=0.25`" in section and "| G = 8 | 0.875 |" in section
    assert all(f"\n## {name}\n" in written["objectives/METHODS.md"] for name in objective_names())
    assert all(f"\n## {name}\n" in written["methods/PAPERS.md"] for name in RECIPES)


def test_settings_of_libraries_only_where_they_mean_the_same() -> None:
    """Guards the table of TRL's and verl's words against parts whose settings those do not have."""
    assert flags("grpo").verl == "algorithm.adv_estimator=grpo" and flags("grpo:ddof=0") == Flags()
    assert flags(CISPO()).verl == "-" and "loss_mode=cispo" in flags(CISPO(0.2, 0.2)).verl
    assert flags(KL(0.3)).verl == "-" and "kl_loss_type=k2" in flags(KL(0.3, "k2")).verl
    assert flags(SAPO()).trl == 'loss_type="sapo"' and "delta=3" in flags(Clip(dual=3)).trl
    assert "loss_mode=dppo_tv" in flags(DPPO(0.05, cap=1.5)).verl
    assert flags(make_objective("ipo")) == flags(make_objective("topr")) == Flags()


def test_the_ledger_of_a_method() -> None:
    """Guards the choice of rows: EBPO's column, a paper's claims, variants by name; words that are no names are not."""
    assert [row[0] for row in decided()] == [name for name in claims() if not name.startswith("HB-")]
    assert {e.id for e in about("ebpo")} >= {"T1", "T2", "R2", "R3", "C1", "P1", "P2"}
    assert about("ebpo")[1].verdicts.startswith("holds if 2(G-1)ρ²")
    assert [e.id for e in about("maxrl", ["2602.02710"])] == ["A1", "A2", "A6"]
    assert about("sapo")[0].verdicts == "sapo: holds" and not about("entropy")
    assert make("ebpo_debiased").name in about("ebpo_debiased")[0].verdicts
