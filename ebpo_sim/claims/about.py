"""Which rows of the committed ledger concern a method: those that name it, and those of its paper."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ebpo_sim.claims.ledger import claims
from ebpo_sim.labels import LABELS, SUBJECT

LEDGER = Path(__file__).parent / "README.md"
OWN = {SUBJECT: 3, "ebpo_released": 4}  # the methods that have a column of the table to themselves
CELLS = range(2, 6)  # verdicts, by variant
COLUMNS = {2: "as in the proof", 3: "Algorithm 1", 4: "released code"}


class Entry(NamedTuple):
    """A claim by its number, and the verdicts on it that concern the method."""

    id: str
    claim: str
    verdicts: str


def decided() -> list[list[str]]:
    """The table of the ledger as it was committed, a row a claim, cells as they are shown."""
    lines = LEDGER.read_text(encoding="utf-8").splitlines() if LEDGER.exists() else []
    rows = [re.split(r" (?<!\\)\| ", line.strip().strip("|").strip()) for line in lines if line.startswith("| ")]
    return [row for row in rows if row[0] in claims()]


def about(name: str, sources: Iterable[str] = ()) -> list[Entry]:
    """What is decided of the method `name`: verdicts whose variant names it, and all of a claim that names it or is of
    one of its papers, given by their arXiv numbers (not EBPO's, whose claims have a column)."""
    shown = LABELS[name].name if name in LABELS else name
    words = [name, shown] if shown != shown.lower() else [name]
    named = _words(words)
    stated = _words([word for word in words if word != word.lower() or not word.isalpha()])  # "entropy" is a word too
    papers = {s for s in sources if s} - {LABELS[SUBJECT].source}
    found = []
    for row in decided():
        cells = [f"{COLUMNS[i]}: {row[i]}" if i in COLUMNS else row[i] for i in CELLS if row[i] != "-"]
        if name in OWN:
            cells = [cell for cell in (row[OWN[name]],) if cell != "-"]
        elif not stated.search(row[1]) and not any(paper in claims()[row[0]].source for paper in papers):
            cells = [p for cell in cells for p in cell.split("; ") if named.search(p.rpartition(": ")[0])]
        if cells:
            found.append(Entry(row[0], row[1], "; ".join(cells)))
    return found


def _words(words: Iterable[str]) -> re.Pattern[str]:
    """Matches these as whole words, and nothing where there are none."""
    return re.compile("|".join(rf"(?<![\w-]){re.escape(word)}(?![\w-])" for word in words) or r"(?!)")
