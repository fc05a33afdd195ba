"""No advice without evidence: each sentence names a study or claim, and what is named can be run."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path

import pytest

from ebpo_sim import diagnose
from ebpo_sim.claims import claims
from ebpo_sim.diagnose.evidence import EVIDENCE, KEY, supported

HEAD = re.compile(r"[A-Z][a-zA-Z ]+: ")
SPEAKERS = ("advice", "settings", "libraries")


def heads(name: str) -> set[str]:
    """Texts of a module of diagnose that begin with "Words: ", its docstrings apart."""
    tree = ast.parse((Path(diagnose.__file__).parent / f"{name}.py").read_text(encoding="utf-8"))
    docs = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
    texts = [n for n in ast.walk(tree) if isinstance(n, ast.Constant) and id(n) not in docs]
    return {str(n.value) for n in texts if HEAD.match(str(n.value))}


def test_every_kind_of_advice_has_evidence() -> None:
    """Guards the table: no module that makes sentences begins one with a word that the table lacks."""
    found = set().union(*map(heads, SPEAKERS))
    assert {text.partition(":")[0] for text in found} >= {"Budget", "History", "Clusters", "Training"}
    assert [head for head in found if not any(head.startswith(start) for start in EVIDENCE)] == []


def test_evidence_can_be_run() -> None:
    """Guards the commands: programs that exist, claims of the ledger."""
    known = claims()
    for command in EVIDENCE.values():
        program, _, claim = command.partition(" ")
        assert importlib.util.find_spec(f"ebpo_sim.{program}") is not None, command
        assert claim in known if program == "claims" else not claim, command


def test_sentences_carry_their_evidence() -> None:
    """Guards the words; advice of an unknown kind is a fault."""
    assert supported(["Budget: with 8 rollouts."]) == ("Budget: with 8 rollouts. [claims N6]",)
    assert "python -m ebpo_sim.NAME" in KEY
    with pytest.raises(LookupError, match="no study or claim supports 'Luck: try it'"):
        supported(["Luck: try it"])
