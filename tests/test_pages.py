"""The pages hang together: links lead somewhere, the front page is short, its numbers stand where it links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import pages

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def links(path: Path) -> Iterator[tuple[str, str]]:
    """(file, anchor) of every relative link of a page."""
    for target in LINK.findall(path.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            yield target.partition("#")[0], target.partition("#")[2]


def anchors(path: Path) -> set[str]:
    """What headings are called in links."""
    heads = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


MORE = (".github/CONTRIBUTING.md", "ebpo_sim/claims/LOG.md", "ebpo_sim/leaderboard.md")
PAGES = [*pages.PAGES, *(pages.ROOT / name for name in MORE)]


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(pages.ROOT)))
def test_every_link_leads_somewhere(path: Path) -> None:
    """Guards files and headings that pages name."""
    for name, anchor in links(path):
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), f"{path}: {name}"
        assert not anchor or anchor in anchors(target), f"{path}: {name}#{anchor}"


def test_the_front_page_is_short() -> None:
    """Guards what a newcomer reads: at most 150 lines and 14 kB, two commands first, all packages named."""
    text = pages.page()
    assert len(text.splitlines()) <= 150 and len(text.encode()) <= 14_000
    assert pages.blocks("sh", text) == ["make study\n", "make test\n"]
    linked = {name for name, _ in links(pages.FRONT)}
    assert linked >= {str(p.relative_to(pages.ROOT)) for p in pages.PAGES if p.parent.parent == pages.ROOT}


def test_numbers_of_the_findings_stand_on_their_pages() -> None:
    """Guards the findings: each number with a decimal point is on a page that the finding links, where a test holds it;
    a finding without a link is about the page of the one before it."""
    section = pages.page().partition("## What was found")[2].partition("\n## ")[0]
    found = re.split(r"^\d\. ", section, flags=re.M)[1:]
    assert len(found) == 6
    text = ""
    for finding in found:
        named = [pages.ROOT / target.partition("#")[0] for target in LINK.findall(finding)]
        text = "\n".join(p.read_text(encoding="utf-8") for p in named) or text
        numbers = re.findall(r"[+−]?\d+\.\d+", LINK.sub("", finding))
        assert numbers or "claims" in finding
        assert not [n for n in numbers if n not in text], finding


def test_the_count_of_claims() -> None:
    """Guards the finding on the ledger: the paper's claims by their verdicts in the ledger's own table."""
    lines = re.findall(r"^\| (T1|T2|R2|R3|C1|P1|P2) \|(.*)$", pages.page("ebpo_sim/claims"), flags=re.M)
    cells = {name: [cell.strip() for cell in rest.split(" | ")] for name, rest in lines}
    assert len(cells) == 7 and all(row[1].removeprefix("stationary: ") == "holds" for row in cells.values())
    first = {name: row[2].removeprefix("stationary: ").split(" (")[0].split(";")[0] for name, row in cells.items()}
    conditions = [name for name, word in first.items() if word.startswith("holds if")]
    fails = [name for name, word in first.items() if word.startswith("fails")]
    assert (sorted(conditions), sorted(fails)) == (["P2", "R2", "T1", "T2"], ["C1", "P1", "R3"])
    text = pages.words(pages.page())
    assert "All 7 hold in the setting of their proofs" in text and "none without a condition: 4 under one" in text


def test_every_study_is_named() -> None:
    """Guards the list of commands: each module that runs as `python -m ebpo_sim.NAME` is on a page."""
    text = pages.everything()
    modules = [p.stem for p in (pages.ROOT / "ebpo_sim").glob("*_study.py")]
    assert len(modules) >= 8 and not [name for name in modules if name not in text]
