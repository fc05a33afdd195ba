"""One look for all figures: sizes, colours, the stamp of a verdict, and the text beside and below the panels."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ebpo_sim.compare.contrasts import Contrast

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 11.5, 4.9  # inches
WIDE, STRIP = 14.5, 3.1625  # with three columns; of the text beside the panels
INK, SOFT, PAPER = "#222222", "#666666", "#f4f1ea"
STAMPS = {
    "appears": "#2e7d32",
    "the opposite": "#c62828",
    "negligible": "#ef6c00",
    "before correction only": "#6a7f2e",
    "no difference seen": "#607d8b",
    "no resolving power": "#90a4ae",
    "no interval": "#a1887f",
    "not studied": "#bdbdbd",
}
OPTIMISERS = {"sgd": "SGD", "adam": "Adam"}
TINY = "tiny LM"
METRICS = {
    "reward": "reward",
    "pass1": "pass@1",
    "maj16": "maj@16",
    "pass16": "pass@16",
    "entropy": "entropy (nats)",
    "grad_norm": "gradient norm",
    "kl": "KL of a step",
    "gradient_cosine": "cosine to the true gradient",
    "zero_signal": "groups without a signal",
}


def figure(width: float = WIDTH, height: float = HEIGHT) -> Figure:
    """An empty figure; never through pyplot, which keeps global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), facecolor="white")


def strip(on: Figure) -> float:
    """Where the text beside the panels begins: it is as wide in inches whatever the figure is."""
    return 1 - STRIP / on.get_figwidth()


def floor(on: Figure) -> float:
    """Inches that the caption has below the strip: that of three columns tells of two rungs."""
    return 0.74 if on.get_figwidth() <= WIDTH else 0.92


def panels(on: Figure, rows: int, columns: int, right: float = 0.70) -> list[list[Axes]]:
    """Axes on the left part of the figure: the right belongs to `beside`, the bottom to `caption`."""
    # Room is given in inches, since figures differ in height.
    height = on.get_figheight()
    grid = on.add_gridspec(
        rows, columns, left=0.065, right=right, top=1 - 0.95 / height, bottom=(0.48 + floor(on)) / height,
        wspace=0.26, hspace=0.55,
    )  # fmt: skip
    found = [[on.add_subplot(grid[i, j]) for j in range(columns)] for i in range(rows)]
    for axis in (a for line in found for a in line):
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8, colors=INK)
        axis.grid(alpha=0.25, lw=0.6)
    return found


def title(on: Figure, text: str) -> None:
    """The figure's title, top left."""
    on.text(0.02, 1 - 0.16 / on.get_figheight(), text, fontsize=13, weight="bold", va="top", color=INK)


def caption(on: Figure, text: str) -> None:
    """The caption strip along the bottom: the rung that made it, seeds, how to read it."""
    characters = int(15.2 * on.get_figwidth())  # of 8 points on a line
    on.text(0.02, 0.09 / on.get_figheight(), textwrap.fill(text, characters), fontsize=8, va="bottom", color=SOFT)


def panel_title(axis: Axes, text: str, verdict: Contrast | None = None, below: bool = False) -> None:
    """A panel's name on the left, and the verdict on it on the right; in narrow panels below its name."""
    axis.set_title(text, loc="left", fontsize=9.5, color=INK, pad=22 if below else 9)
    if verdict is not None and below:
        stamp(axis, 0.012, 1.035, verdict.word, ha="left", size=7.5)
    elif verdict is not None:
        stamp(axis, 0.99, 1.045, verdict.word)


def stamp(axis: Axes, x: float, y: float, word: str, ha: str = "right", size: float = 8) -> None:
    """A word on its colour, in the axes' coordinates."""
    axis.text(
        x, y, word.upper(), transform=axis.transAxes, ha=ha, va="bottom", fontsize=size, weight="bold", color="white",
        bbox={"boxstyle": "round,pad=0.3", "facecolor": STAMPS.get(word, SOFT), "edgecolor": "none"},
    )  # fmt: skip


def beside(on: Figure, reported: str, found: Sequence[Contrast], measure: str = "") -> None:
    """The strip on the right: what the paper reports, and what is found here, by the measure named."""
    from matplotlib.patches import FancyBboxPatch

    height, left = on.get_figheight(), strip(on)
    bottom, top = floor(on) / height, 1 - 0.5 / height
    on.add_artist(
        FancyBboxPatch(
            (left, bottom), 0.985 - left, top - bottom, boxstyle="round,pad=0.004,rounding_size=0.006",
            facecolor=PAPER, edgecolor="none", transform=on.transFigure, zorder=-1,
        )
    )  # fmt: skip
    characters = int((0.975 - left) * on.get_figwidth() * 72 / 4.45)
    line = 0.158 / height
    y = top - 0.06 / height
    for text in ("THE PAPER", reported, "", "HERE, EBPO − GRPO" + (f": {measure}" if measure else "")):
        heading = text.isupper() or text.startswith("HERE")
        wrapped = textwrap.fill(text, characters)
        on.text(
            left + 0.008, y, wrapped, fontsize=8, va="top", linespacing=1.32, weight="bold" if heading else "normal",
            color=SOFT if heading else INK,
        )  # fmt: skip
        y -= line * max(1, wrapped.count("\n") + 1) * (0.55 if not text else 1)
    for verdict in found:
        y = _finding(on, left + 0.008, y - 0.02 / height, verdict, characters)


def key(on: Figure, axes: Sequence[Axes]) -> None:
    """The key to the lines of all axes, at the bottom of the strip, where it hides none of them."""
    found: dict[str, Any] = {}
    for axis in axes:
        # Drawn last means on top: the main estimators come first in the key.
        for handle, label in reversed(list(zip(*axis.get_legend_handles_labels(), strict=True))):
            found.setdefault(label, handle)
    if found:
        place = strip(on), floor(on) / on.get_figheight()
        on.legend(
            list(found.values()), list(found), loc="lower left", bbox_to_anchor=place, ncols=2, fontsize=7,
            frameon=False, labelspacing=0.3, columnspacing=1.0, handlelength=1.6,
        )  # fmt: skip


def _finding(on: Figure, x: float, y: float, verdict: Contrast, characters: int) -> float:
    """A verdict's word and numbers, and below what they are about; returns where the next begins."""
    line = 0.158 / on.get_figheight()
    colour = STAMPS.get(verdict.word, SOFT)
    about = textwrap.fill(verdict.what, characters - 3)
    on.text(x, y, "■", fontsize=8, va="top", color=colour)
    on.text(x + 0.014, y, verdict.word, fontsize=8, va="top", weight="bold", color=colour)
    on.text(0.98, y, verdict.numbers, fontsize=8, va="top", ha="right", color=INK)
    on.text(x + 0.014, y - line, about, fontsize=7.6, va="top", color=SOFT, linespacing=1.3)
    return y - line * (2.25 + about.count("\n"))


def figure_stamp(on: Figure, x: float, y: float, word: str) -> None:
    """A stamp in the figure's coordinates, centred on its line."""
    on.text(
        x, y, word.upper(), fontsize=7.5, weight="bold", color="white", va="center",
        bbox={"boxstyle": "round,pad=0.3", "facecolor": STAMPS.get(word, SOFT), "edgecolor": "none"},
    )  # fmt: skip
