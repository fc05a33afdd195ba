"""The figures of the hidden-bias study, drawn from its long table alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ebpo_sim.bias import overshoot
from ebpo_sim.plots import Figure, curve, panels
from ebpo_sim.studies.base import Rows

COLOURS = ("tab:blue", "tab:red", "tab:green", "tab:orange", "tab:purple")


def plots(rows: Sequence[dict[str, Any]]) -> dict[str, Figure]:
    """The three figures by file name, drawn from the table alone."""
    return {"prefix.png": _plot_prefix(rows), "adamw.png": _plot_adamw(rows), "overshoot.png": _plot_overshoot(rows)}


def _series(rows: Sequence[dict[str, Any]], part: str, panel: str) -> dict[str, Rows]:
    found: dict[str, Rows] = {}
    for r in rows:
        if (r["part"], r["id"]) == (part, panel):
            found.setdefault(r["series"], []).append(r)
    return found


METHOD_COLOURS = dict(zip(("grpo", "grpo_v3.2", "cppo", "dapo", "dr_grpo"), COLOURS, strict=True))
SAME = {"grpo": "grpo = gspo", "cppo": "cppo, γ = 1/2", "dr_grpo": "dr_grpo = gcpo", "dapo": "dapo = cispo"}


def _plot_prefix(rows: Sequence[dict[str, Any]]) -> Figure:
    figure, (left, middle, right) = panels(15, 4.6, 3)
    for axis, panel in ((left, "weight"), (middle, "all share f"), (right, "only f")):
        for method, lines in _series(rows, "prefix", panel).items():
            style = "--" if method == "dapo" else "-"
            curve(axis, lines, "x", "computed", style, color=METHOD_COLOURS[method], label=SAME.get(method, method))
        axis.axhline(0, color="black", lw=0.6, zorder=0)
        axis.axvline(1, color="black", lw=0.6, ls=":", zorder=0)
        axis.set_xscale("log")
        axis.set_xticks([0.25, 0.5, 1, 2, 4], labels=["1/4", "1/2", "1", "2", "4"])
        axis.minorticks_off()
    for lines in _series(rows, "prefix", "all groups").values():
        line = curve(middle, lines, "x", "computed", "o", color="black", ms=3.5, zorder=3)
    line.set_label("expected drift over all groups,\nevery method: 0")
    for i, lines in enumerate(s for s in _series(rows, "prefix", "only f").values() if s[0]["predicted"] is not None):
        curve(right, lines, "x", "predicted", "x", color="black", ms=4, label=None if i else "closed form")
    left.set(title="One group, all share the prefix (p = 3/8)", ylabel="$W_{agg}$")
    middle.set(title="Control: f and g have the same outcomes", ylabel="drift of logit f given that all share f")
    right.set(title="f changes only the length of wrong answers", ylabel="expected drift of logit f, exact, G = 4")
    left.set_xlabel("length of wrong / length of correct answers")
    middle.set_xlabel("length of wrong / length of correct answers")
    right.set_xlabel("the same, for answers that start with f")
    for axis in (left, middle, right):
        axis.legend(frameon=False, fontsize=8.5)
    figure.suptitle("Finding (i): what W_agg of one group shows, and what happens over all groups")
    return figure


CASES = ("tab:blue", "tab:orange", "tab:red", "black", "tab:gray")


def _plot_adamw(rows: Sequence[dict[str, Any]]) -> Figure:
    figure, (left, right) = panels(12, 4.6, 2)
    colours = dict(zip(_series(rows, "adamw", "phi"), CASES, strict=True))
    for name, lines in _series(rows, "adamw", "phi").items():
        curve(left, lines, "x", "computed", "o-", color=colours[name], ms=3, lw=1.3, label=name)
    for name, (edge,) in _series(rows, "adamw", "edge").items():
        left.axvline(edge["x"], color=colours[name], ls=":", lw=1.2)
        right.axvline(edge["computed"], color="black", ls=":", lw=1.2)
    for name, lines in _series(rows, "adamw", "eps/phi").items():
        curve(right, lines, "x", "computed", "o", color=colours[name], ms=4, label=name)
    left.plot([], [], color="black", ls=":", label="φ = ε/√v; insensitive far to its right")
    right.plot([], [], color="black", ls=":", label="ε/φ = √v (median of the run)")
    left.set(xlabel="reward scale φ", ylabel="max |θ(φ) - θ(1)| after the run", title="Distance from the run at φ = 1")
    right.set(xlabel="ε/φ", ylabel="max |θ(φ, ε) - θ(1, ε → 0)|", title="(φ, ε) matter through ε/φ only")
    for axis in (left, right):
        axis.set(xscale="log", yscale="log")
    left.legend(fontsize=8.5, loc="lower left", framealpha=1, edgecolor="white")
    right.legend(frameon=False, fontsize=8.5, loc="upper left")
    figure.suptitle("Finding (ii): reward scale under Adam, softmax bandit, advantages without std")
    return figure


def _plot_overshoot(rows: Sequence[dict[str, Any]]) -> Figure:
    figure, (left, right) = panels(12, 4.6, 2)
    for colour, (name, lines) in zip(COLOURS, _series(rows, "overshoot", "ratio").items(), strict=False):
        curve(left, lines, "x", "computed", color=colour, label=name)
        curve(left, lines, "x", "predicted", "x", color=colour, ms=8, mew=2, clip_on=False)
    left.axhline(1.2, color="black", lw=1, ls="--", label="clip bound 1 + ε_up")
    left.plot([], [], "x", color="black", ms=7, mew=2, ls="none", label="predicted end (Eq. 36)")
    left.set(xlabel="inner step", ylabel="ratio s = π/π_old", title="One logit, A = 1: the ratio passes the bound")
    for colour, (name, lines) in zip(COLOURS, _series(rows, "overshoot", "step").items(), strict=False):
        curve(right, lines, "x", "computed", "o", color=colour, ms=3.5, label=f"{name}, measured")
        curve(right, lines, "x", "predicted", color=colour, lw=1)
    rho = overshoot.limit_ratio(0.9, 0.95)
    right.plot(range(40), [rho ** (k + 1) for k in range(40)], ":", color="black", lw=1.5, label=r"$\rho^{k+1}$, T → ∞")
    right.plot([], [], color="gray", lw=1, label="Eq. 36")
    right.set(xlabel="k", ylabel="$C_{T,k}$", yscale="log", title="Step T+k over step T-1, betas (0.9, 0.95)")
    for axis in (left, right):
        axis.legend(frameon=False, fontsize=8.5)
    figure.suptitle("Finding (iii): Adam moves on after the gradient is clipped away")
    return figure
