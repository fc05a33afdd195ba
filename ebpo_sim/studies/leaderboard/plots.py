"""The leaderboard's picture: a line a method, its error and its noise on each board."""

from __future__ import annotations

from ebpo_sim.labels import label
from ebpo_sim.plots import Figure, panels
from ebpo_sim.studies.base import Rows
from ebpo_sim.studies.leaderboard.text import COLUMNS, methods

LOOKS = (("D", "#d55e00"), ("s", "#cc79a7"), ("o", "#0072b2"), ("^", "#009e73"), ("v", "#666666"))
TITLES = {"error": "held-out baseline error / GRPO's", "noise": "gradient noise scale / GRPO's"}


def plot(rows: Rows) -> dict[str, Figure]:
    """Medians over worlds and G; left of the line is better. Methods as in the table, least noise on top."""
    kinds = list(dict.fromkeys(r["board"] for r in rows))
    lines = [m for m in methods(rows) if any(m[f"{kind} {board}"] is not None for kind in COLUMNS for board in kinds)]
    figure, axes = panels(11.0, 1.5 + 0.22 * max(len(lines), 4), len(COLUMNS), sharey=True)
    for axis, kind in zip(axes, COLUMNS, strict=True):
        for i, board in enumerate(kinds):
            marker, colour = LOOKS[i % len(LOOKS)]
            at = [(m[f"{kind} {board}"], -j) for j, m in enumerate(lines) if m[f"{kind} {board}"] is not None]
            axis.plot(*zip(*at, strict=True) if at else ((), ()), marker, color=colour, ms=4.5, label=board, mfc="none")
        axis.axvline(1, color="black", lw=0.8)
        axis.set_xscale("log")
        axis.set_xlabel(TITLES[kind])
        axis.grid(axis="y", lw=0.3)
    axes[0].set_yticks([-j for j in range(len(lines))], [label(m["estimator"]).name for m in lines], fontsize=7.5)
    axes[0].set_ylim(-len(lines) + 0.4, 0.6)
    axes[-1].legend(fontsize=8, frameon=False, loc="lower right")
    return {"leaderboard.png": figure}
