"""The dossier: one page of a rule that repeats what the studies compute, for a file of one's own too."""

from __future__ import annotations

import json
from html import unescape
from pathlib import Path

import pytest

from ebpo_sim import plugins
from ebpo_sim.check.laws import LAWS
from ebpo_sim.counts.exact import limit_risk
from ebpo_sim.dossier import main, named, ranks
from ebpo_sim.errors import InputError
from ebpo_sim.estimators import make, registry
from ebpo_sim.worlds import parse_world

FILE = """
from ebpo_sim.estimators import Estimator, register
from ebpo_sim.estimators.registry import ebpo


@register
def mine(*, memory: float = 0.5) -> Estimator:
    plain = ebpo(memory=memory)
    return Estimator("mine", plain.chain, plain.order)
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that registers a rule, in a process that forgets it afterwards."""
    monkeypatch.setattr(registry, "_PRESETS", dict(registry._PRESETS))
    monkeypatch.setattr(plugins, "_loaded", dict(plugins._loaded))
    (tmp_path / "mine.py").write_text(FILE, encoding="utf-8")
    return tmp_path / "mine.py"


def test_the_page_holds_what_the_studies_compute(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards the numbers: error as `limit_risk` has it, ranks among the rivals, all laws, every rung; a page without
    requests; a last line that concludes."""
    out = own.parent / "out"
    main([f"{own}:mine", "--quick", "--threads", "1", "--out", str(out)])
    assert {p.name for p in out.iterdir()} == {"dossier.html", "dossier.json", "error.csv", "noise.csv"}
    found = json.loads((out / "dossier.json").read_text(encoding="utf-8"))
    row = next(r for r in found["error"] if (r["estimator"], r["world"]) == ("mine", "beta:0.1,0.1"))
    world = parse_world("beta:0.1,0.1")
    exact = limit_risk(make("ebpo"), world, row["group_size"]).mse / limit_risk(make("grpo"), world, 4).mse
    assert row["group_size"] == 4 and row["ratio_exact"] == pytest.approx(exact, rel=1e-9)
    for table in (found["error_ranks"], found["noise_ranks"]):
        assert [r["ratio"] for r in table] == sorted(r["ratio"] for r in table)
        assert {"mine", "ebpo", "rloo"} <= {r["estimator"] for r in table} and "best_table" not in str(table)
    assert [r["law"] for r in found["laws"]] == list(LAWS) and not any(r["broken"] for r in found["laws"])
    assert found["ledger"] == []  # the committed ledger knows no rule of one's own
    assert "stands" in found["rungs"].values() and found["microseconds"] > 0
    page = unescape((out / "dossier.html").read_text(encoding="utf-8"))
    assert found["conclusion"] in page and "default-src 'none'" in page and "http" not in page.partition("<body>")[2]
    assert capsys.readouterr().out.splitlines()[-1] == f"Conclusion: mine: {found['conclusion']}."


def test_a_rule_that_counts_cannot_feed(tmp_path: Path) -> None:
    """Guards rules that need more than success counts: contract, rungs and cost stay, the reason is said."""
    main(["krpo", "--quick", "--threads", "1", "--out", str(tmp_path)])
    found = json.loads((tmp_path / "dossier.json").read_text(encoding="utf-8"))
    assert found["error"] == found["error_ranks"] == [] and "rollout_order" in found["reason"]
    assert found["conclusion"].startswith("no baseline error on success counts") and len(found["laws"]) == len(LAWS)
    assert found["reason"] in unescape((tmp_path / "dossier.html").read_text(encoding="utf-8"))


def test_names(own: Path) -> None:
    """Guards the argument: a file of one rule needs no name, what is missing is said."""
    assert named(str(own)) == named(f"{own}:mine") == "mine" and named("ebpo:memory=0.9") == "ebpo:memory=0.9"
    assert named(f"{own}:mine:memory=0.9") == "mine:memory=0.9"
    with pytest.raises(InputError, match="name an estimator"):
        named("")
    own.with_name("none.py").write_text("", encoding="utf-8")
    with pytest.raises(InputError, match="unknown estimator 'epbo'"):
        main(["epbo", "--out", str(own.parent / "out")])
    assert not (own.parent / "out").exists()


def test_ranks_are_of_complete_rules() -> None:
    """Guards rankings: geometric means, smallest first, and a rule that lacks a cell has no rank."""
    cells = [("a", 0.5), ("a", 2.0), ("b", 0.25), ("b", 1.0), ("c", 0.1), ("c", None)]
    found = ranks([{"estimator": name, "ratio": x} for name, x in cells], "ratio")
    assert [(r["rank"], r["estimator"], r["ratio"]) for r in found] == [(1, "b", 0.5), (2, "a", 1.0)]
