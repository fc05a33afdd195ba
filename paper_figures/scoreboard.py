"""All verdicts on one page: what held and what did not."""

from __future__ import annotations

import re
from collections import Counter

from ebpo_sim.compare.contrasts import Contrast
from ebpo_sim.plots import Figure
from ebpo_sim.studies.training.placement import placement, sentence
from paper_figures import (
    curves,
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

NAME = "scoreboard"
TITLE = "What the paper shows, and what appears on our ladder"
CAPTION = (
    "Each stamp is computed: EBPO − GRPO with its 95 % interval (Student's t). Covering zero: no difference seen, or, "
    "where it is wider than ± 1 % of GRPO's value or the regime's ν/N is below 1 (there methods that differ in noise "
    "must tie), no resolving power; within 1 % without covering zero, or exactly zero: negligible; else its sign "
    "decides, or, where Holm's correction within a figure and regime (or that of llm.compare) takes it "
    "away, before correction only. Rung 0 is exact sums (figure 2), rung 2 synthetic skill-chain prompts (the rest)"
)
LINE = 0.3  # inches
LEFT, RIGHT = 0.285, 0.985  # of the chips
PAGES = (figure1.PAGE, figure2.PAGE, *training_curves.PAGES, figure8.PAGE, table_methods.PAGE, table_group_sizes.PAGE,
         table_order.PAGE)  # fmt: skip
CLAIMED = PAGES[1:]  # in their order on the board


def verdicts(data: Data) -> list[Contrast]:
    """Every verdict there is, named by its figure."""
    return [v._replace(what=f"{page.name}: {v.what}") for page in CLAIMED for v in page.verdicts(data)]


def draw(data: Data) -> Figure:
    """A line for each figure and table, a column for each regime and the tiny LM; below them how often each word came
    out, of all that stands in the column."""
    shorts = {name.partition("_raw")[0]: claim.short for name, claim in reported.CLAIMS.items()}
    board = [(page.title.split(".")[0], shorts[page.name], page.verdicts(data)) for page in CLAIMED]
    columns = curves.columns(data)
    height, wide = 2.85 + LINE * len(board), (RIGHT - LEFT) / max(1, len(columns))
    figure = style.figure(style.WIDE, height)
    style.title(figure, TITLE)
    y, counts = 1 - 0.95 / height, {column: Counter[str]() for column in columns}
    for i, text in enumerate(columns.values()):
        x = LEFT + (i + 0.5) * wide
        figure.text(x, y + LINE / height, text, fontsize=9, weight="bold", ha="center", va="center", color=style.INK)
    for title, short, found in board:
        figure.text(0.02, y, title, fontsize=8.5, weight="bold", va="center", color=style.INK)
        figure.text(0.075, y, short, fontsize=8.5, va="center", color=style.INK)
        by = {c: [v for v in found if (v.regime or language_model.OPTIMISER) == c] for c in columns}
        if found and found[0].half_width is None and found[0].difference is not None:  # exact: in no regime
            span = wide * max(1, len(data.regimes))
            _chips(figure, LEFT + 0.2 * span, 0.6 * span, y, found, 0.16 / height)  # below no column
        else:
            for i, (column, mine) in enumerate(by.items()):
                _chips(figure, LEFT + i * wide, wide, y, mine, 0.16 / height)
                counts[column].update(v.word for v in mine)
        y -= LINE / height
    words = [w for w in style.STAMPS if any(w in c for c in counts.values())]
    for word in words:
        style.figure_stamp(figure, 0.1, y, word)
        for i, column in enumerate(columns):
            at = LEFT + (i + 0.5) * wide
            shown = str(counts[column][word] or "–")
            figure.text(at, y, shown, fontsize=8.5, ha="center", va="center", color=style.INK)
        y -= 0.62 * LINE / height
    style.caption(figure, f"{CAPTION}{language_model.note(NAME, data)} {curves.seeds(data)}. {sentence(placement())}")
    return figure


def _chips(figure: Figure, left: float, width: float, y: float, found: list[Contrast], tall: float) -> None:
    from matplotlib.patches import Rectangle

    one, size = (width - 0.006) / max(1, len(found)), 6.2 if len(found) < 5 else 5.0 if len(found) < 7 else 4.3
    for i, verdict in enumerate(found):
        figure.add_artist(
            Rectangle(
                (left + i * one, y - 0.7 * tall), one - 0.0015, 1.4 * tall, facecolor=style.STAMPS[verdict.word],
                edgecolor="none", transform=figure.transFigure,
            )
        )  # fmt: skip
        figure.text(
            left + (i + 0.5) * one - 0.00075, y, _label(verdict, 2 + (len(found) > 6)), fontsize=size, color="white",
            ha="center", va="center", linespacing=1.1,
        )  # fmt: skip


def _label(verdict: Contrast, lines: int) -> str:
    """What a chip is about, beside its column: a few words on at most so many lines."""
    drop = rf"^(Left|Middle|Right): |\b{verdict.regime or style.TINY}, |, (EBPO|blocked) .*|EBPO, "
    label = re.sub(drop, "", style.short(verdict.what)).replace(" = ", "=").removesuffix(style.TINY)
    return label.replace(", ", "\n", lines - 1)


PAGE = Page(NAME, TITLE, CAPTION, (FAILURE, TRAINING), draw, verdicts)
