"""The paper's figure 8: the difficulty curriculum, EBPO against GRPO."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpo_sim import labels
from ebpo_sim.compare.contrasts import Contrast, contrast, last, select
from paper_figures import curves, language_model, reported, style
from paper_figures.data import TRAINING, Data, steps
from paper_figures.page import Page

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "figure8"
TITLE = "Figure 8. Difficulty curriculum: easy to hard, EBPO against GRPO"
CAPTION = (
    f"{curves.RUNG}. pass@1 in percent at the end, each method at its own best learning rate, ± 2 standard errors; "
    "prompts in 16 bands of starting success, easy to hard, and for comparison shuffled. Right panel: differences "
    "EBPO − GRPO in points, the paper's on its benchmarks (single runs, no interval) beside ours: compare signs, not "
    "sizes."
)
ORDERS = {"easy_to_hard": "easy to hard", "shuffled": "shuffled"}
METRIC, POINTS = "pass1", 100.0


def _columns(data: Data) -> dict[str, str]:
    """The optimisers that were run easy to hard: the tiny LM need not be among them."""
    tiny = curves.cell(data, language_model.OPTIMISER, METRIC, order="easy_to_hard")
    return curves.columns(data) if select(data.llm, **tiny) else style.OPTIMISERS


def verdicts(data: Data) -> list[Contrast]:
    """EBPO minus GRPO at the end, easy to hard (shuffled: table_group_sizes, G = 4)."""
    found = []
    for optimiser, label in _columns(data).items():
        where = curves.cell(data, optimiser, METRIC, order="easy_to_hard")
        what = f"{label}, easy to hard, points; learning rates{curves.rates(data, where)}"
        found.append(contrast(data.rows, reported.CLAIMS[NAME].sign, what, unit=POINTS, **where))
    return found


def draw(data: Data) -> Figure:
    """Bars by order for each optimiser, and the differences beside the paper's."""
    shown = _columns(data)
    figure = style.figure(style.WIDE if len(shown) > 2 else style.WIDTH)
    style.title(figure, TITLE)
    axes = style.panels(figure, 1, len(shown) + 1, right=style.strip(figure) - 0.025)[0]
    found = verdicts(data)
    for axis, (optimiser, label), verdict in zip(axes, shown.items(), found, strict=False):
        _bars(axis, data, optimiser)
        style.panel_title(axis, f"pass@1, %, {label}", verdict, below=True)
    _differences(axes[-1], found, list(shown.values()))
    style.panel_title(axes[-1], "EBPO − GRPO, points", below=True)
    style.key(figure, axes[:1])
    style.beside(figure, reported.CLAIMS[NAME].text, found, "at the end")
    note = language_model.note(NAME, data)
    style.caption(figure, f"{CAPTION} {data.scale}; {steps(data.training)} steps, {data.world_text}.{note}")
    return figure


def _bars(axis: Axes, data: Data, optimiser: str) -> None:
    for i, order in enumerate(ORDERS):
        for j, name in enumerate(("grpo", "ebpo")):
            row = last(data.rows, estimator=name, **curves.cell(data, optimiser, METRIC, order=order))
            if row is None:
                continue
            axis.bar(
                i + 0.36 * (j - 0.5), POINTS * row["value"], 0.34, yerr=2 * POINTS * (row["se"] or 0.0), capsize=3,
                color=labels.label(name).colour, ecolor=style.SOFT, label=labels.label(name).name if i == 0 else None,
            )  # fmt: skip
    axis.set_xticks(range(len(ORDERS)), labels=list(ORDERS.values()))
    axis.grid(visible=False, axis="x")


def _differences(axis: Axes, found: list[Contrast], labels: list[str]) -> None:
    names = [f"paper\n{task}" for task in reported.CURRICULUM] + [f"ours\n{label}" for label in labels]
    axis.bar(range(2), list(reported.CURRICULUM.values()), 0.6, color="#c9b99a")
    for x, verdict in enumerate(found, start=2):
        if verdict.difference is not None:
            axis.bar(
                x, POINTS * verdict.difference, 0.6, yerr=POINTS * (verdict.half_width or 0.0), capsize=3,
                color=style.STAMPS[verdict.word], ecolor=style.SOFT,
            )  # fmt: skip
    axis.axhline(0, color=style.INK, lw=0.8)
    axis.set_xticks(range(len(names)), labels=names, fontsize=7)
    axis.grid(visible=False, axis="x")


PAGE = Page(NAME, TITLE, CAPTION, (TRAINING,), draw, verdicts)
