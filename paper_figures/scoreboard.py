"""All verdicts on one page: what held and what did not."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ebpo_sim.compare.contrasts import Contrast
from paper_figures import (
    figure1,
    figure2,
    figure8,
    language_model,
    reported,
    style,
    table_group_sizes,
    table_methods,
    table_order,
    training_curves,
)
from paper_figures.data import FAILURE, TRAINING, Data
from paper_figures.page import Page

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "scoreboard"
TITLE = "What the paper shows, and what appears on our ladder"
CAPTION = (
    "Each stamp is computed: EBPO − GRPO with its 95 % interval (Student's t), one at a time. Covering zero: no "
    "difference seen, or, where it is wider than ± 1 % of GRPO's value, no resolving power; within 1 % without "
    "covering zero, or exactly zero: negligible; else its sign decides, "
    "or, where llm.compare corrected for its comparisons (Holm) and the correction takes it away, before correction "
    "only. Rung 0 is exact sums (figure 2), rung 2 "
    "synthetic skill-chain prompts (the rest)"
)
LINE = 0.3  # inches
LEFT, WIDTH = 0.385, 0.6  # of the chips
PAGES = (figure1.PAGE, figure2.PAGE, *training_curves.PAGES, figure8.PAGE, table_methods.PAGE, table_group_sizes.PAGE,
         table_order.PAGE)  # fmt: skip
CLAIMED = PAGES[1:]  # in their order on the board


def verdicts(data: Data) -> list[Contrast]:
    """Every verdict there is, named by its figure."""
    return [v._replace(what=f"{page.name}: {v.what}") for page in CLAIMED for v in page.verdicts(data)]


def draw(data: Data) -> Figure:
    """A line for each figure and table; its verdicts as stamps, in the order of captions.md."""
    shorts = {name.partition("_raw")[0]: claim.short for name, claim in reported.CLAIMS.items()}
    board = [(page.title.split(".")[0], shorts[page.name], page.verdicts(data)) for page in CLAIMED]
    height = 1.75 + LINE * len(board)
    figure = style.figure(height=height)
    style.title(figure, TITLE)
    y = 1 - 0.68 / height
    for title, short, found in board:
        figure.text(0.02, y, title, fontsize=8.5, weight="bold", va="center", color=style.INK)
        figure.text(0.095, y, short, fontsize=8.5, va="center", color=style.INK)
        _chips(figure, y, found, 0.16 / height)
        y -= LINE / height
    _key(figure, y - 0.1 / height, {v.word for _, _, found in board for v in found})
    style.caption(figure, f"{CAPTION}{language_model.note(NAME, data)} {data.scale}.")
    return figure


def _chips(figure: Figure, y: float, found: list[Contrast], tall: float) -> None:
    from matplotlib.patches import Rectangle

    one, size = WIDTH / max(1, len(found)), 6.4 if len(found) < 8 else 5.6 if len(found) < 12 else 5.0
    for i, verdict in enumerate(found):
        figure.add_artist(
            Rectangle(
                (LEFT + i * one, y - 0.7 * tall), one - 0.003, 1.4 * tall, facecolor=style.STAMPS[verdict.word],
                edgecolor="none", transform=figure.transFigure,
            )
        )  # fmt: skip
        figure.text(
            LEFT + (i + 0.5) * one - 0.0015, y, _label(verdict.what, len(found)), fontsize=size, color="white",
            ha="center", va="center",
        )  # fmt: skip


def _label(what: str, neighbours: int) -> str:
    """What a chip is about, shorter where chips are many."""
    label = re.sub(r"^(Left|Middle|Right): | learning rates?.*|, (EBPO|blocked) −.*|, points.*", "", what)
    return (
        label
        if neighbours < 6
        else label.replace(",", "").replace(" = ", "=").replace("shared", "shar.").replace(style.TINY, "LM")
    )


def _key(figure: Figure, y: float, words: set[str]) -> None:
    """The words on the board, and what own and shared mean."""
    x = 0.0225
    for word in (w for w in style.STAMPS if w in words):
        style.figure_stamp(figure, x, y, word)
        x += 0.024 + 0.0072 * len(word)
    figure.text(x, y, "own, shared: learning rates", fontsize=8, va="center", color=style.SOFT)


PAGE = Page(NAME, TITLE, CAPTION, (FAILURE, TRAINING), draw, verdicts)
