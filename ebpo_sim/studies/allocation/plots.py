"""The figure of the allocation study."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ebpo_sim.labels import REFERENCE
from ebpo_sim.plots import Axes, Figure, panels
from ebpo_sim.studies.allocation.outcomes import QUANTITIES, Rows

SHOWN = {"rollouts": ("o", "#222222"), "seconds 1:1": ("s", "#1f77b4"), "seconds 1:4": ("^", "#d95f02")}
TICKS = (0.5, 0.7, 0.8, 1, 1.25, 1.5, 2, 3)


def plot(rows: Rows, arms: Sequence[str], size: int) -> dict[str, Figure]:
    """At one group size: signal per rollout, less what weights cost, against the effective share of prompts; then what
    the far target cost in rollouts and in seconds, by regime."""
    regimes = list(dict.fromkeys(r["regime"] for r in rows if r["regime"]))
    figure, axes = panels(4.6 * (1 + len(regimes)), 4.6, 1 + len(regimes))
    here = [r for r in rows if r["group_size"] == size]
    _shares(axes[0], here, arms)
    axes[0].set(title=f"recorded run, G = {size}", xlim=(0.2, 1.1), xlabel="effective share of prompts",
                ylabel=f"signal per rollout x effective share of rollouts / {REFERENCE}'s")  # fmt: skip
    shown = [arm for arm in arms if arm != REFERENCE]
    for axis, regime in zip(axes[1:], regimes, strict=True):
        for shift, (name, (marker, colour)) in enumerate(SHOWN.items()):
            found = [(place, _ratio(here, arm, regime, name)) for place, arm in enumerate(shown)]
            known = [(place + 0.2 * (shift - 1), r) for place, r in found if r]
            off = [[r["value"] - r["low"] for _, r in known], [r["high"] - r["value"] for _, r in known]]
            axis.errorbar([r["value"] for _, r in known], [place for place, _ in known], xerr=off, fmt=marker, ms=4,
                          color=colour, label=name)  # fmt: skip
        axis.axvline(1, color="black", lw=0.8)
        axis.set(xscale="log", xlabel=f"cost of the far target / {REFERENCE}'s", title=f"{regime}, G = {size}")
        axis.minorticks_off()
        axis.set_xticks(TICKS, labels=[f"{tick:g}" for tick in TICKS])
        axis.set_xlim(0.5, 3)
        axis.set_yticks(range(len(shown)), labels=[_name(arm) for arm in shown] if axis is axes[1] else [])
        axis.set_ylim(len(shown) - 0.5, -0.5)
    if len(axes) > 1:
        figure.legend(
            *axes[-1].get_legend_handles_labels(), fontsize=7, frameon=False, ncols=3, loc="outside lower right"
        )
    return {"allocation.png": figure}


def _shares(axis: Axes, rows: Rows, arms: Sequence[str]) -> None:
    for arm in arms:
        mine = {r["quantity"]: r for r in rows if r["estimator"] == arm and r["part"] == "replay"}
        gain, share = mine.get(f"signal per rollout / {REFERENCE}'s"), mine.get("effective share of prompts")
        if gain and share and share["value"] is not None:
            kish = mine["effective share of rollouts"]["value"]
            value, low, high = (kish * gain[k] for k in ("value", "low", "high"))
            axis.errorbar([share["value"]], [value], [[value - low], [high - value]], fmt="o", ms=4, color="#222222")
            right = share["value"] > 0.9 or (share["value"] > 0.7 and arms.index(arm) < 5)
            axis.annotate(_name(arm), (share["value"], value), (-6 if right else 6, 0), textcoords="offset points",
                          fontsize=7, va="center", ha="right" if right else "left")  # fmt: skip
    axis.axhline(1, color="black", lw=0.8)


def _name(arm: str) -> str:
    return arm.removeprefix(f"{REFERENCE} + ").replace(":", "\n")


def _ratio(rows: Rows, arm: str, regime: str, name: str) -> dict[str, Any] | None:
    wanted = (arm, regime, QUANTITIES[name], "far")
    found = (r for r in rows if (r["estimator"], r["regime"], r["quantity"], r["target"]) == wanted)
    return next((r for r in found if r["value"] is not None and r["low"] is not None), None)
