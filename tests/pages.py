"""The pages that tests hold to the code: README.md of the project and of its packages, and their links and numbers."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FRONT = ROOT / "README.md"
ROOMS = ("ebpo_sim", "llm", "paper_figures", "tests")
PAGES = (FRONT, *sorted(p for room in ROOMS for p in (ROOT / room).rglob("README.md")))


def page(folder: str = "") -> str:
    """The text of a package's README; of the project's for no name."""
    return (ROOT / folder / "README.md").read_text(encoding="utf-8")


def everything() -> str:
    """All pages in one text."""
    return "\n".join(path.read_text(encoding="utf-8") for path in PAGES)


def words(text: str) -> str:
    """The text with its line breaks and runs of spaces as single spaces."""
    return " ".join(text.split())


def blocks(language: str, text: str) -> list[str]:
    """Fenced blocks of a language, "" for those without one."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.S | re.M)
    return [body for name, body in found if name == language]
