"""The figure of the clustering study: the prior's error along the epoch, its average, and its lag under drift."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ebpo_sim.plots import Axes, Figure, curve, known, panels, points
from ebpo_sim.worlds.topics import ORDERS

COLOURS = dict(zip(ORDERS, ("black", "tab:red", "tab:purple", "tab:green", "tab:blue"), strict=True))
SHOWN = {"cumulative": "tab:red", "retention 0.9": "tab:orange", "batch": "tab:green"}


def plot(rows: Sequence[dict[str, Any]], steps: Sequence[dict[str, Any]]) -> Figure:
    """First world, smallest G: error of the first estimator's prior by memory; every gain; the lag under drift."""
    first = rows[0]
    same = ("world", "group_size")
    here = [r for r in rows if all(r[k] == first[k] for k in same)]
    path = [r for r in steps if all(r[k] == first[k] for k in (*same, "estimator"))]
    estimators, memories = (list(dict.fromkeys(r[k] for r in here)) for k in ("estimator", "memory"))
    drift = [r for r in steps if r["world"].startswith("drift:") and r["order"] == "blocked"]
    drift = [r for r in drift if all(r[k] == drift[0][k] for k in (*same, "estimator"))]
    count = len(memories) + len(estimators) + bool(drift)
    height = -(-count // 4)
    figure, axes = panels(18, 4.3 * height, 4, height)
    top = 1.08 * max(r["prior_error"] for r in path if r["prior_error"] is not None)
    for panel, memory in zip(axes, memories, strict=False):
        _path_panel(panel, memory, [r for r in path if r["memory"] == memory], first, top)
    for panel, name in zip(axes[len(memories) :], estimators, strict=False):
        _gain_panel(panel, name, memories, [r for r in here if r["estimator"] == name])
    if drift:
        _drift_panel(axes[count - 1], drift)
    for panel in axes[count:]:
        panel.axis("off")
    handles, texts = axes[0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside lower center", ncols=len(texts), frameon=False, markerscale=2)
    figure.suptitle(
        f"Error of the prior by order and memory: {first['world']}, G = {first['group_size']}; "
        "dots: simulated (bands and bars 2 se), dashes: exact"
    )
    return figure


def _path_panel(axis: Axes, memory: str, path: list[dict[str, Any]], first: dict[str, Any], top: float) -> None:
    for order, colour in COLOURS.items():
        line = [r for r in path if r["order"] == order and r["prior_error"] is not None]
        if line:
            step, value, se, exact = (
                np.array([r[k] for r in line]) for k in ("step", "prior_error", "prior_error_se", "prior_error_exact")
            )
            axis.fill_between(step, value - 2 * se, value + 2 * se, color=colour, alpha=0.25, lw=0)
            axis.plot(step, value, ".", ms=4, color=colour, label=order)
            axis.plot(step, exact, "--", lw=0.6 if order == "alternating" else 1.2, color=colour)
    for level, text in ((first["j_shuffle"], "Var p"), (first["j_topic"], "E Var\n(p|topic)")):
        axis.axhline(level, color="gray", lw=0.8)
        axis.annotate(text, (1.01, level), xycoords=("axes fraction", "data"), va="center", fontsize=8, rotation=0)
    axis.set(title=f"{first['estimator']}, memory: {memory}", xlabel="batch", ylim=(0, top))
    axis.set_ylabel("E (prior - p)²")


def _gain_panel(axis: Axes, name: str, memories: list[str], rows: list[dict[str, Any]]) -> None:
    low = -0.6
    for i, (order, colour) in enumerate(COLOURS.items()):
        for r in (r for r in rows if r["order"] == order and r["gain"] is not None):
            x = memories.index(r["memory"]) + 0.15 * (i - 2)
            if r["gain"] < low:
                axis.annotate(f"{r['gain']:.1f}", (x, low + 0.02), color=colour, fontsize=8, ha="center")
                continue
            axis.errorbar(x, r["gain"], 2 * r["gain_se"], fmt="o", ms=4.5, color=colour, lw=1)
            axis.plot([x - 0.06, x + 0.06], [r["gain_exact"]] * 2, color=colour, lw=1)
    for level in (0, 1):
        axis.axhline(level, color="gray", lw=0.8)
    ticks = [m.replace(", ", "\n").replace(" 0", "\n0") for m in memories]
    axis.set_xticks(range(len(memories)), labels=ticks, fontsize=8)
    axis.set(ylim=(low - 0.06, 1.12), title=f"{name}: average over the epoch", ylabel="gain (1: P2's ideal)")


def _drift_panel(axis: Axes, path: list[dict[str, Any]]) -> None:
    for memory, colour in SHOWN.items():
        line = known((r for r in path if r["memory"] == memory), "lag")
        points(axis, line, "step", "lag", fmt=".", ms=4, lw=1, color=colour, label=memory)
        curve(axis, line, "step", "lag_exact", "--", lw=1.1, color=colour)
    axis.axhline(0, color="gray", lw=0.8)
    axis.legend(frameon=False, fontsize=8, loc="lower left")
    axis.set(title=f"{path[0]['estimator']}: {path[0]['world']}", xlabel="batch")
    axis.set_ylabel("lag: prior - mean of the batch")
