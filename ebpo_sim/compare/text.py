"""What a comparison shows of itself in words and tables, whatever its host."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def rate(value: float, edge: bool) -> str:
    """A learning rate, marked * at the edge of its grid."""
    return f"{value:g}{'*' if edge else ''}"


def edges(names: Iterable[str]) -> list[str]:
    """The warning, as one line or none: whose best rate is the first or last of its grid."""
    listed = "; ".join(dict.fromkeys(names))
    return [f"At the edge of the grid of learning rates, so perhaps not at their best: {listed}."] if listed else []


def markdown_table(headers: Sequence[str], lines: Iterable[Sequence[str]], right: bool = True) -> str:
    """A table in Markdown, all columns but the first to the right unless not `right`."""
    rule = ["---", *["--:" if right else "---"] * (len(headers) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (headers, rule, *lines)) + "\n"
