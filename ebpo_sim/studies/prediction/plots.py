"""The prediction study's picture: predicted against measured ratios of steps, and what other rules of thumb expect."""

from __future__ import annotations

import math
from collections.abc import Sequence
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any

import numpy as np

from ebpo_sim.compare.differences import mean_of
from ebpo_sim.labels import LABELS, colours, label
from ebpo_sim.studies.prediction.cells import REGIMES
from ebpo_sim.studies.prediction.language_model import WORLD, measured
from ebpo_sim.studies.prediction.outcomes import Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = dict(zip((*REGIMES, WORLD), "osD*", strict=True))
HOLLOW = ("plateau", "balanced")
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)  # small panels have every third
SMALL = ("noise by coordinate", "noise midway", "baseline error", "silent groups", "cosine")


def plot(points: Sequence[Point], setup: str) -> Figure:
    """Steps to the far target, method over GRPO, a point a method and cell: by noise large, by others small."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    mine = [p for p in points if (p.cell.setup, p.target) == (setup, "far")]
    lm = [p for p in measured() if setup == "adam" and p.target == "0.34"]
    colour = _colours([p.arm for p in (*mine, *lm)])
    figure = Figure(figsize=(13.5, 5), layout="constrained")
    rows: Any = [["noise", "noise", *SMALL[:3], "key"], ["noise", "noise", *SMALL[3:], ".", "key"]]
    panels = figure.subplot_mosaic(rows, width_ratios=(1, 1, 1, 1, 1, 1.2))
    panels["key"].axis("off")
    for name in ("noise", *SMALL):
        _panel(panels[name], [*mine, *(lm if name == "noise" else [])], name, colour, large=name == "noise")
    key = [
        Line2D(
            [],
            [],
            color=colour[arm],
            marker="o",
            ls="",
            label=f"{letter}  {label(arm).name}".replace(" + ", "\n    + "),
        )
        for letter, arm in zip(ascii_lowercase, colour, strict=False)
    ]
    regimes = dict.fromkeys(p.cell.regime for p in mine)
    key += [
        Line2D([], [], color="black", marker=MARKERS[r], ls="", mfc="none", label=f"{r}, nu/N = {REGIMES[r].ratio:g}")
        for r in regimes
    ]
    if lm:
        key.append(Line2D([], [], color="black", marker=MARKERS[WORLD], ms=9, ls="", label=f"{WORLD}, to 34 %"))
    panels["key"].legend(handles=key, fontsize=6.5, frameon=False, loc="upper left")
    figure.suptitle(
        f"Steps to the far target, method / GRPO, each at its own rate ({setup}): measured against predicted; "
        "by noise, (1 + nu/N) / (1 + nu of GRPO/N)", fontsize=10,
    )  # fmt: skip
    return figure


def _colours(arms: Sequence[str]) -> dict[str, str]:
    """A colour a method: its own label's, or its preset's if no other here has that, or a spare one."""
    shown = dict[str, str]()
    for arm in dict.fromkeys(arms):
        preset = arm.partition(" + ")[0].partition(":")[0]
        shown[arm] = arm if arm in LABELS or preset in (*shown.values(), *arms) else preset
    found = colours(shown.values())
    return {arm: found[name] for arm, name in shown.items()}


def _panel(panel: Axes, points: Sequence[Point], name: str, colour: dict[str, str], large: bool) -> None:
    shown = [p for p in points if (p.predictors[name] or 0) > 0]
    for p in shown:
        found = mean_of(p.log_ratio_R)
        at, low, high = (math.exp(v if v is not None else found.value) for v in (found.value, found.low, found.high))
        bars = [[at - low], [high - at]] if large else None
        if large:  # colours alone do not tell so many methods apart
            letter = ascii_lowercase[list(colour).index(p.arm)]
            panel.annotate(letter, (p.predictors[name] or 1.0, at), (4, 2), textcoords="offset points", fontsize=6)
        panel.errorbar(
            [p.predictors[name] or 1.0], [at], bars, color=colour[p.arm], marker=MARKERS[p.cell.regime],
            ms=12 if p.cell.regime == WORLD else 6 if large else 4, elinewidth=0.6, ls="",
            mfc="none" if p.cell.regime in HOLLOW else colour[p.arm],
        )  # fmt: skip
    x, y = ([p.predictors[name] or 1.0 for p in shown], [math.exp(float(np.mean(p.log_ratio_R))) for p in points])
    (x_low, x_high), (y_low, y_high) = ((min([0.5, *v]) / 1.2, max([2.0, *v]) * 1.2) for v in (x, y))
    panel.plot([1e-3, 1e3], [1e-3, 1e3], color="black", lw=0.8)
    panel.axhline(1, color="0.8", lw=0.6, zorder=0)
    panel.axvline(1, color="0.8", lw=0.6, zorder=0)
    panel.set(xscale="log", yscale="log", xlim=(x_low, x_high), ylim=(y_low, y_high))
    panel.set_xlabel(f"predicted by {name}", fontsize=10 if large else 8)
    ticks = TICKS if large else TICKS[::3]
    panel.set_xticks([t for t in ticks if x_low <= t <= x_high])
    panel.set_yticks([t for t in ticks if y_low <= t <= y_high])
    panel.minorticks_off()
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_formatter("{x:g}")
