"""The paper's figure 8: the difficulty curriculum, EBPO against GRPO."""

from __future__ import annotations

from typing import Any

from ebpo_sim import labels
from ebpo_sim.compare.contrasts import Contrast, contrast, corrected, last, select
from ebpo_sim.plots import Axes, Figure
from paper_figures import curves, language_model, reported, style
from paper_figures.data import TRAINING, Data
from paper_figures.page import Page

NAME = "figure8"
TITLE = "Figure 8. Difficulty curriculum: easy to hard, EBPO against GRPO"
CAPTION = (
    f"{curves.RUNG}. pass@1 in percent at the end, each method at its own best learning rate, ± 2 standard errors; "
    "prompts in 16 bands of starting success, easy to hard, and for comparison shuffled. Right: differences EBPO − "
    "GRPO easy to hard in points with 95 % intervals, words after Holm's correction within the regime; diamonds: the "
    "paper's on its benchmarks (single runs, no interval): compare signs, not sizes."
)
ORDERS = {"easy_to_hard": "easy to hard", "shuffled": "shuffled"}
METRIC, POINTS = "pass1", 100.0


def _places(data: Data) -> list[tuple[str, str, str]]:
    """Those that were run easy to hard: the tiny LM need not be among them."""
    listed = curves.places(data)
    return [p for p in listed if p[0] in data.regimes or select(data.of(METRIC), **_cell(data, *p[:2], "easy_to_hard"))]


def _cell(data: Data, column: str, optimiser: str, order: str) -> dict[str, Any]:
    return curves.cell(data, column, optimiser, METRIC, order=order)


def verdicts(data: Data) -> list[Contrast]:
    """EBPO minus GRPO at the end, easy to hard (shuffled: table_group_sizes, G = 4)."""
    found = []
    for column, optimiser, label in _places(data):
        where = _cell(data, column, optimiser, "easy_to_hard")
        what = f"{label}, easy to hard, points; learning rates{curves.rates(data, where)}"
        found.append(contrast(data.of(METRIC), reported.CLAIMS[NAME].sign, what, unit=POINTS, **where))
    return corrected(found)


def draw(data: Data) -> Figure:
    """Bars by order for each regime and optimiser, and the differences beside the paper's."""
    found = dict(zip((p[:2] for p in _places(data)), verdicts(data), strict=True))
    columns = list(dict.fromkeys(column for column, _ in found))
    figure = style.figure(style.WIDE, 6.0)
    style.title(figure, TITLE)
    grid = style.panels(figure, 2, len(columns), right=style.strip(figure) - 0.025)
    for line, optimiser in zip(grid, reversed(style.OPTIMISERS), strict=True):
        for axis, column in zip(line, columns, strict=True):
            if (column, optimiser) not in found:
                axis.set_axis_off()
                continue
            _bars(axis, data, column, optimiser)
            heading = f"pass@1, %, {curves.heading(data, column, optimiser)}"
            style.panel_title(axis, heading, found[column, optimiser], below=True)
    style.key(figure, grid[0][:1])
    paper = {f"paper, {task}": value for task, value in reported.CURRICULUM.items()}
    style.beside(figure, reported.CLAIMS[NAME].text, list(found.values()), "at the end", paper)
    style.caption(figure, f"{CAPTION} {curves.seeds(data)}.{language_model.note(NAME, data)}")
    return figure


def _bars(axis: Axes, data: Data, column: str, optimiser: str) -> None:
    for i, order in enumerate(ORDERS):
        for j, name in enumerate(("grpo", "ebpo")):
            row = last(data.of(METRIC), estimator=name, **_cell(data, column, optimiser, order))
            if row is None:
                continue
            axis.bar(
                i + 0.36 * (j - 0.5), POINTS * row["value"], 0.34, yerr=2 * POINTS * (row["se"] or 0.0), capsize=3,
                color=labels.label(name).colour, ecolor=style.SOFT, label=labels.label(name).name if i == 0 else None,
            )  # fmt: skip
    axis.set_xticks(range(len(ORDERS)), labels=list(ORDERS.values()))
    axis.grid(visible=False, axis="x")


PAGE = Page(NAME, TITLE, CAPTION, (TRAINING,), draw, verdicts)
