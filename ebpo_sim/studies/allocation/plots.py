"""The figure of the allocation study."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ebpo_sim.labels import REFERENCE, colours
from ebpo_sim.plots import Figure, panels
from ebpo_sim.studies.allocation.outcomes import QUANTITIES, Rows


def plot(rows: Rows, arms: Sequence[str], size: int) -> dict[str, Figure]:
    """At one group size: signal per rollout against the effective share of prompts; then what the far target cost in
    rollouts and in seconds, by regime."""
    regimes = list(dict.fromkeys(r["regime"] for r in rows if r["regime"]))
    figure, axes = panels(4.6 * (1 + len(regimes)), 4.6, 1 + len(regimes))
    here = [r for r in rows if r["group_size"] == size]
    colour = colours(arms)
    first = axes[0]
    for arm in arms:
        mine = {r["quantity"]: r for r in here if r["estimator"] == arm and r["part"] == "replay"}
        gain, share = mine.get(f"signal per rollout / {REFERENCE}'s"), mine.get("effective share of prompts")
        if gain and share and share["value"] is not None:
            off = [[gain["value"] - gain["low"]], [gain["high"] - gain["value"]]]
            first.errorbar([share["value"]], [gain["value"]], off, fmt="o", ms=5, color=colour[arm], label=_name(arm))
    first.axhline(1, color="black", lw=0.8)
    first.set(xlabel="effective share of prompts", ylabel=f"signal per rollout / {REFERENCE}'s",
              title=f"recorded run, G = {size}", xlim=(0, 1.05))  # fmt: skip
    if first.get_legend_handles_labels()[0]:
        first.legend(fontsize=7, frameon=False)
    shown = [arm for arm in arms if arm != REFERENCE]
    for axis, regime in zip(axes[1:], regimes, strict=True):
        for shift, (name, marker) in enumerate((("rollouts", "o"), ("seconds 1:1", "s"), ("seconds 1:4", "^"))):
            for place, arm in enumerate(shown):
                found = _ratio(here, arm, regime, name)
                if found:
                    off = [[found["value"] - found["low"]], [found["high"] - found["value"]]]
                    axis.errorbar([found["value"]], [place + 0.2 * (shift - 1)], xerr=off, fmt=marker, ms=4,
                                  color=colour[arm], label=name if place == 0 else None)  # fmt: skip
        axis.axvline(1, color="black", lw=0.8)
        axis.set(xscale="log", xlabel=f"cost of the far target / {REFERENCE}'s", title=f"{regime}, G = {size}")
        axis.set_yticks(range(len(shown)), labels=[_name(arm) for arm in shown] if axis is axes[1] else [])
        axis.set_ylim(len(shown) - 0.5, -0.5)
    if len(axes) > 1 and axes[1].get_legend_handles_labels()[0]:
        axes[1].legend(fontsize=7, frameon=False)
    return {"allocation.png": figure}


def _name(arm: str) -> str:
    return arm.removeprefix(f"{REFERENCE} + ").replace(":", "\n")


def _ratio(rows: Rows, arm: str, regime: str, name: str) -> dict[str, Any] | None:
    wanted = (arm, regime, QUANTITIES[name], "far")
    found = (r for r in rows if (r["estimator"], r["regime"], r["quantity"], r["target"]) == wanted)
    return next((r for r in found if r["value"] is not None and r["low"] is not None), None)
