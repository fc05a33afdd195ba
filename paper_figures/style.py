"""One look for all figures: sizes, colours, the stamp of a verdict, and the text beside and below the panels."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from typing import Any

from ebpo_sim.compare.contrasts import Contrast
from ebpo_sim.plots import Axes, Figure

WIDTH, HEIGHT = 11.5, 4.9  # inches
WIDE, STRIP = 15.5, 3.4  # with many columns; of the text beside the panels
INK, SOFT, PAPER = "#222222", "#666666", "#f4f1ea"
STAMPS = {
    "appears": "#1565c0",  # blue and brown: told apart without red and green, and no method's colours
    "the opposite": "#a34a00",
    "negligible": "#37474f",
    "before correction only": "#7a5195",
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
    "gradient_cosine": "cosine",
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
    """Inches that the caption has below the strip: that of many columns tells of two rungs."""
    return 0.74 if on.get_figwidth() <= WIDTH else 1.1


def panels(on: Figure, rows: int, columns: int, right: float = 0.70) -> list[list[Axes]]:
    """Axes on the left part of the figure: the right belongs to `beside`, the bottom to `caption`."""
    # Room is given in inches, since figures differ in height.
    height = on.get_figheight()
    grid = on.add_gridspec(
        rows, max(1, columns), left=0.065, right=right, top=1 - 0.95 / height, bottom=(0.48 + floor(on)) / height,
        wspace=0.26, hspace=0.72,
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
    axis.set_title(text, loc="left", fontsize=8.4 if below else 9.5, color=INK, pad=20 if below else 9)
    if verdict is not None and below:
        stamp(axis, 0.012, 1.035, verdict.word, ha="left", size=7.5)
    elif verdict is not None:
        stamp(axis, 0.99, 1.045, verdict.word)


def stamp(axis: Axes, x: float, y: float, word: str, ha: str = "right", size: float = 8) -> None:
    """A word on its colour, in the axes' coordinates."""
    axis.text(x, y, word.upper(), transform=axis.transAxes, ha=ha, va="bottom", fontsize=size, **_stamped(word))


def _stamped(word: str) -> dict[str, Any]:
    box = {"boxstyle": "round,pad=0.3", "facecolor": STAMPS.get(word, SOFT), "edgecolor": "none"}
    return {"weight": "bold", "color": "white", "bbox": box}


def beside(
    on: Figure, reported: str, found: Sequence[Contrast], measure: str = "", paper: dict[str, float] | None = None
) -> None:
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
    forest(on, found, (left, y - 0.56 / height), paper)


def short(what: str) -> str:
    """What a difference is about, without its learning rates and unit."""
    return re.sub(r" learning rates?.*|(, easy to hard)?,? points.*", "", what)


def forest(
    on: Figure, found: Sequence[Contrast], corner: tuple[float, float], paper: dict[str, float] | None = None
) -> None:
    """Differences with their 95 % intervals below the corner, a line each with its word on the right: in percent of the
    reference's value, its 1 % shaded, or, where they have a unit, in it, beside `paper`'s numbers without interval."""
    reported = paper or {}
    lines, points = len(found) + len(reported), any(v.unit != 1 for v in found)
    if not found:
        return
    height, width = on.get_figheight(), on.get_figwidth()
    tall = 0.185 * lines / height
    axis = on.add_axes((corner[0] + 1.36 / width, corner[1] - tall, 0.72 / width, tall))
    for y, value in enumerate(reported.values()):
        axis.plot([value], [y], marker="D", ms=4, color="#a08d62", ls="")
    for y, verdict in enumerate(found, start=len(reported)):
        if verdict.difference is not None:
            unit = verdict.unit if points else 100 / (verdict.scale or 1.0)
            colour, half = STAMPS[verdict.word], unit * (verdict.half_width or 0.0)
            axis.errorbar([unit * verdict.difference], [y], xerr=[half], marker="o", ms=3.2, lw=1.2, color=colour)
        axis.text(1.05, y, verdict.word, transform=axis.get_yaxis_transform(), fontsize=6.2, va="center",
                  color=STAMPS[verdict.word], weight="bold")  # fmt: skip
    if not points:
        axis.axvspan(-1, 1, color=SOFT, alpha=0.15, lw=0)
    axis.axvline(0, color=INK, lw=0.8)
    axis.set(ylim=(lines - 0.5, -0.5), facecolor="none")
    axis.set_yticks(range(lines), labels=[*reported, *(short(v.what).replace(",", "") for v in found)], fontsize=6.4)
    axis.tick_params(axis="y", length=0)
    axis.tick_params(axis="x", labelsize=6.6, top=True, bottom=False, labeltop=True, labelbottom=False)
    axis.spines[["right", "bottom", "left"]].set_visible(False)
    axis.locator_params(axis="x", nbins=4)
    axis.set_title("points" if points else "% of GRPO's", fontsize=6.6, pad=14, color=SOFT)


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
            list(found.values()), [textwrap.fill(name, 26) for name in found], loc="lower left",
            bbox_to_anchor=place, ncols=2, fontsize=6.6,
            frameon=False, labelspacing=0.3, columnspacing=1.0, handlelength=1.6,
        )  # fmt: skip


def figure_stamp(on: Figure, x: float, y: float, word: str) -> None:
    """A stamp in the figure's coordinates, centred on its line."""
    on.text(x, y, word.upper(), fontsize=7.5, va="center", **_stamped(word))
