"""Tables as a picture, as Markdown and as CSV."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ebpo_sim import labels
from ebpo_sim.compare import text
from ebpo_sim.compare.contrasts import Contrast
from ebpo_sim.plots import Figure
from paper_figures import curves, language_model, reported, style
from paper_figures.data import TRAINING, Data, Rows
from paper_figures.page import Page

LINE = 0.235  # inches
PERCENT = (("percent", "value", 100), ("half_width", "se", 200))


class Table(NamedTuple):
    """Cells as text; groups are (title, number of columns) over the headers."""

    title: str
    headers: tuple[str, ...]
    rows: list[tuple[str, ...]]
    groups: tuple[tuple[str, int], ...] = ()


def percent(row: dict[str, Any] | None) -> str:
    """A rate as percent with two standard errors; a dash where there is none."""
    if row is None or row["value"] is None:
        return "–"
    return f"{100 * row['value']:.1f} ± {200 * (row['se'] or 0.0):.1f}"


def measured(row: dict[str, Any]) -> dict[str, Any]:
    """Of a row of a study what all long tables tell: percent and two standard errors."""
    percents = {name: None if row[k] is None else u * row[k] for name, k, u in PERCENT}
    return {
        "source": "ours", "world_or_model": row["world"], "method": row["estimator"],
        "regime": row.get("regime", ""), "optimiser": row["optimiser"], "tuning": row["tuning"], **percents,
    }  # fmt: skip


def printed(model: str, method: str, percent: float, **more: Any) -> dict[str, Any]:
    """A number of the paper in a long table."""
    empty = {"regime": "", "optimiser": "", "tuning": "", "percent": percent, "half_width": None}
    return {"source": "paper", "world_or_model": model, "method": method, **empty, **more}


def page(
    name: str,
    title: str,
    caption: str,
    table: Callable[[Data], Table],
    verdicts: Callable[[Data], list[Contrast]],
    records: Callable[[Data], Rows],
    more: tuple[Table, ...] = (),
) -> Page:
    """A table as a page; more: tables that only its Markdown has."""

    def note(data: Data) -> str:
        return language_model.note(name, data)

    def as_text(data: Data) -> str:
        lines = "\n".join(f"- {v.line}" for v in verdicts(data))
        shown = "\n".join(markdown(t) for t in (table(data), *more))
        return f"{shown}\n{caption} {curves.seeds(data)}.{note(data)}\n\n{lines}\n"

    def picture(data: Data) -> Figure:
        below = f"{caption} {curves.seeds(data)}.{note(data)}"
        return draw(title, table(data), reported.CLAIMS[name].text, verdicts(data), below)

    return Page(name, title, caption, (TRAINING,), picture, verdicts, as_text, records)


def markdown(table: Table) -> str:
    """The table in Markdown, group titles in front of the headers."""
    spread = [title for title, columns in table.groups for _ in range(columns)] or [""] * len(table.headers)
    headers = [f"{group}: {name}" if group else name for group, name in zip(spread, table.headers, strict=True)]
    return f"**{table.title}**\n\n{text.markdown_table(headers, table.rows, right=False)}"


def draw(heading: str, table: Table, claim: str, found: Sequence[Contrast], caption: str) -> Figure:
    """The table with its verdicts and caption; the row of EBPO and of GRPO stand out by colour."""
    columns = max(1, min(3, -(-len(found) // 4)))
    verdict_lines = -(-len(found) // columns)
    height = 1.85 + LINE * (len(table.rows) + (3 if table.groups else 2) + verdict_lines)
    figure = style.figure(style.WIDE, height)
    style.title(figure, heading)
    widths = [max(len(table.headers[i]), *(len(row[i]) for row in table.rows)) + 2.2 for i in range(len(table.headers))]
    scale = 0.955 / sum(widths)
    left = [0.025 + scale * sum(widths[:i]) for i in range(len(widths))]
    right = [x + scale * (w - 1.4) for x, w in zip(left, widths, strict=True)]
    y = 1 - 0.62 / height
    step = LINE / height
    start = 0
    for title, spread in table.groups:
        if title:
            x0, x1 = left[start], right[start + spread - 1]
            figure.text((x0 + x1) / 2, y, title, fontsize=8.5, weight="bold", ha="center", va="center")
            _rule(figure, x0, x1, y - 0.55 * step)
        start += spread
    y -= step if table.groups else 0
    for i, name in enumerate(table.headers):
        figure.text(
            left[i] if i == 0 else right[i], y, name, fontsize=8, ha="left" if i == 0 else "right", va="center",
            color=style.SOFT,
        )  # fmt: skip
    _rule(figure, left[0], 0.985, y - 0.55 * step)
    y -= 0.2 * step
    for row in table.rows:
        y -= step
        method = row[0].removeprefix("paper: ")
        for label in (*style.OPTIMISERS.values(), style.TINY):
            method = method.removesuffix(f", {label}")
        strong = method in (labels.label("grpo").name, labels.label("ebpo").name)
        colour = labels.label("ebpo").colour if method == labels.label("ebpo").name else style.INK
        for i, cell in enumerate(row):
            figure.text(
                left[i] if i == 0 else right[i], y, cell, fontsize=8, ha="left" if i == 0 else "right", va="center",
                color=colour, weight="bold" if strong else "normal",
            )  # fmt: skip
    _rule(figure, left[0], 0.985, y - 0.6 * step)
    y -= 1.5 * step
    figure.text(0.025, y, f"The paper: {claim}", fontsize=8.5, va="center", color=style.INK)
    for i, verdict in enumerate(found):
        x, at = 0.0275 + 0.97 / columns * (i // verdict_lines), y - step * (1 + i % verdict_lines)
        style.figure_stamp(figure, x, at, verdict.word)
        text = f"{style.short(verdict.what)}  {verdict.numbers}"
        figure.text(x + 0.105, at, text, fontsize=8.5, va="center", color=style.INK)
    style.caption(figure, caption)
    return figure


def _rule(figure: Figure, x0: float, x1: float, y: float) -> None:
    from matplotlib.lines import Line2D

    figure.add_artist(Line2D([x0, x1], [y, y], color=style.SOFT, lw=0.7, transform=figure.transFigure))
