"""The mse study's picture: error ratio against intra-class correlation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ebpo_sim import labels
from ebpo_sim.counts.exact import limit_risk
from ebpo_sim.estimators import make
from ebpo_sim.numbers import formulas
from ebpo_sim.numbers.mixing import Prior
from ebpo_sim.plots import Axes, Figure, known, panels, points
from ebpo_sim.studies.mse.text import by_icc
from ebpo_sim.worlds import Points

FIGURE = "ratio_vs_icc.png"
CURVES = ("rloo", "james_stein", "ebpo", "ebpo_within", "ebpo_beta_binomial", "ebpo_debiased", "global_mean")
POINTS = (labels.SUBJECT, "ebpo_nonparametric")  # as simulated
SAME = {"ebpo": " = ebpo_released", "ebpo_debiased": " = oracle_linear"}  # in the limit
APART = {"rloo": "tab:gray"}  # beside the group mean at 1, in the colour of a reference


def plot(rows: Sequence[dict[str, Any]]) -> Figure:
    """Error ratio against intra-class correlation, a panel for each G; the last panel is the key."""
    sizes = list(dict.fromkeys(row["group_size"] for row in rows))
    columns = min(3, len(sizes) + 1)
    height = -(-(len(sizes) + 1) // columns)
    figure, axes = panels(5.2 * columns, 4.4 * height, columns, height)
    number = {
        w: i + 1 for i, w in enumerate(dict.fromkeys(r["world"] for r in sorted(rows, key=lambda r: by_icc(r["icc"]))))
    }
    for panel, group_size in zip(axes, sizes, strict=False):
        _panel(panel, group_size, [r for r in rows if r["group_size"] == group_size], number)
    for panel in axes[len(sizes) :]:
        panel.axis("off")
    handles, texts = axes[0].get_legend_handles_labels()
    key = axes[len(sizes)]
    key.legend(handles, texts, loc="upper left", frameon=False, fontsize=8.5)
    lines = [f"{i:>2}  {w}" for w, i in number.items()]
    if any("LiveCodeBench" in w for w in number):
        lines.append("    (LiveCodeBench: T = 0.2, colder than RL training)")
    key.text(0.02, 0.0, "\n".join(lines), transform=key.transAxes, va="bottom", fontsize=6.5, family="monospace")
    figure.suptitle("Baseline error relative to GRPO's group mean (below 1: better)")
    return figure


def _panel(axis: Axes, group_size: int, rows: Sequence[dict[str, Any]], number: dict[str, int]) -> None:
    grid = np.sin(np.linspace(0.06, np.pi / 2 - 0.06, 41)) ** 2  # denser at both ends, where the curves are steep
    shown = {r["estimator"] for r in rows}
    for name in CURVES:
        if name in shown:
            curve = [_linear_ratio(name, icc, group_size) for icc in grid]
            colour = APART.get(name, labels.label(name).colour)
            axis.plot(grid, curve, color=colour, lw=1.6, label=name + SAME.get(name, ""))
    for name in POINTS:
        look = labels.label(name)
        mine = known((r for r in rows if r["estimator"] == name), "icc", "ratio_mc")
        if mine:
            points(
                axis, mine, "icc", "ratio_mc", fmt=look.marker, color=look.colour, ms=4, lw=1,
                label=f"{name}, simulated (2 se)",
            )  # fmt: skip
        if name == labels.SUBJECT:
            for i, r in enumerate(sorted(mine, key=lambda r: r["icc"])):
                axis.annotate(
                    str(number[r["world"]]), (r["icc"], r["ratio_mc"]), fontsize=7,
                    textcoords="offset points", xytext=(-4, 5) if i % 2 else (3, -9),
                )  # fmt: skip
    critical = formulas.critical_icc(group_size)
    axis.axvline(critical, color="black", ls=":", lw=1)
    axis.axhline(1.0, color="black", lw=0.8)
    axis.annotate(f"ρ* = {critical:.3f}", (critical, 0.21), fontsize=9, ha="right", rotation=90, va="bottom")
    axis.set(yscale="log", ylim=(0.2, 6), xlim=(0, 1), title=f"G = {group_size}")
    axis.set_yticks([0.25, 0.5, 1, 2, 4], labels=["0.25", "0.5", "1", "2", "4"])
    axis.minorticks_off()
    axis.set_xlabel("intra-class correlation of rewards")
    axis.set_ylabel("error / error of the group mean")


def _linear_ratio(name: str, icc: float, group_size: int) -> float:
    """A linear rule's ratio depends on the prior only through icc, so a two-point world of mean 1/2 gives the curve."""
    half = np.sqrt(icc) / 2
    world = Points("curve", Prior((0.5 - half, 0.5 + half), (0.5, 0.5)))
    return limit_risk(make(name), world, group_size).mse / (world.prior.within / group_size)
