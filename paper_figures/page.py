"""What a figure or table is to the program, the captions and the scoreboard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ebpo_sim.compare.contrasts import Contrast
from ebpo_sim.plots import Figure
from paper_figures.data import Data, Rows


@dataclass(frozen=True)
class Page:
    """needs: the studies it is drawn from. markdown, records: of tables, as text and as one value a line."""

    name: str
    title: str
    caption: str
    needs: tuple[str, ...]
    draw: Callable[[Data], Figure]
    verdicts: Callable[[Data], list[Contrast]]
    markdown: Callable[[Data], str] | None = None
    records: Callable[[Data], Rows] | None = None
