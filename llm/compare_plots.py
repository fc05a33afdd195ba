"""The comparison's figure: curves per step, per second, and differences to GRPO with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ebpo_sim import labels
from ebpo_sim.plots import Axes, Figure
from llm.compare_measures import cell_of, value_at
from llm.compare_runner import Cell
from llm.compare_text import arms as arms_of
from llm.compare_text import cells, name, pick

Rows = Sequence[Mapping[str, Any]]
# The fixed weights stand apart from EBPO here, where all arms share a panel.
APART = {labels.NO_SHRINKAGE: "#b279a2", labels.FULL_SHRINKAGE: "#f58518"}


def figure(found: Rows, curves: Rows) -> Figure:
    """A row a cell: pass@1 per step, per second of training, and the intervals of the differences to GRPO."""
    from matplotlib.figure import Figure

    listed = cells(found)
    made = Figure(figsize=(13, 0.9 + 3.4 * len(listed)), layout="constrained")
    arms = list(dict.fromkeys(r["arm"] for r in found))
    colour = labels.colours(arms) | APART
    axes = made.subplots(len(listed), 3, squeeze=False, width_ratios=(1, 1, 1.1))
    for line, cell in zip(axes, listed, strict=True):
        here = [c for c in curves if cell_of(c) == cell]
        title = f"G = {cell.group_size}, {cell.order}"
        _curves(line[0], here, arms, colour, "step", ("evaluation",))
        line[0].set(title=f"{title}: per step", xlabel="step", ylabel="validation pass@1, %")
        _curves(line[1], here, arms, colour, "seconds", ("evaluation", "equal_time"))
        line[1].set(title="per second (dashed: longer schedule)", xlabel="seconds of training")
        _differences(line[2], found, cell, colour)
        line[2].set(title="less GRPO, 95 % (hollow: equal seconds)", xlabel="points")
    handles, texts = axes[0][0].get_legend_handles_labels()
    made.legend(handles, texts, loc="outside lower center", ncols=len(texts), frameon=False, fontsize=8)
    return made


def mean_curve(lines: Sequence[Rows], x: str, points: int = 41) -> tuple[list[float], list[float]]:
    """Mean of several runs' pass@1 in percent, each linear between its records, as far as all of them go."""
    end = min(line[-1][x] for line in lines)
    places = [min(end, end * i / (points - 1)) for i in range(points)]  # rounding must not pass the end
    columns = [([r[x] for r in line], [100 * r["validation_pass1"] for r in line]) for line in lines]
    return places, [sum(value_at(*c, at) for c in columns) / len(columns) for at in places]


def _curves(axis: Axes, here: Rows, arms: Sequence[str], colour: dict[str, str], x: str, stages: Sequence[str]) -> None:
    for stage in stages:
        for arm in arms:
            lines: dict[str, list[Mapping[str, Any]]] = {}
            for c in here:
                if (c["stage"], c["arm"]) == (stage, arm):
                    lines.setdefault(c["run"], []).append(c)
            if lines:
                plain = stage == "evaluation"
                axis.plot(
                    *mean_curve(list(lines.values()), x), color=colour[arm], lw=1.8 if plain else 1.1,
                    ls="-" if plain else "--", label=name(arm) if plain else None,
                )  # fmt: skip
    axis.grid(alpha=0.25, lw=0.6)
    axis.spines[["top", "right"]].set_visible(False)


def _differences(axis: Axes, found: Rows, cell: Cell, colour: dict[str, str]) -> None:
    arms = [arm for arm, _, _ in arms_of(found, cell) if arm != labels.REFERENCE]
    for place, arm in enumerate(arms):
        for measure, shift, fill in (("final", -0.13, colour[arm]), ("equal_time", 0.13, "white")):
            row = pick(found, cell, arm, measure, labels.REFERENCE)
            if row is None:
                continue
            value = 100 * row["value"]
            if row["low"] is not None:
                axis.plot([100 * row["low"], 100 * row["high"]], [place + shift] * 2, color=colour[arm], lw=1.6)
            axis.plot(value, place + shift, "o", ms=6, color=colour[arm], markerfacecolor=fill)
    axis.axvline(0, color="#666666", lw=0.9)
    axis.set_yticks(range(len(arms)), labels=[name(arm) for arm in arms], fontsize=8)
    axis.set_ylim(len(arms) - 0.5, -0.5)
    axis.grid(alpha=0.25, lw=0.6, axis="x")
    axis.spines[["top", "right"]].set_visible(False)
