"""Pictures of the methods study: leaderboards with intervals, shares of the parts, what their levels do."""

from __future__ import annotations

import math
from typing import Any

from ebpo_sim.labels import REFERENCE
from ebpo_sim.plots import Figure, panels
from ebpo_sim.studies.methods.shares import REST
from ebpo_sim.studies.methods.text import places, ranked, title

Rows = list[dict[str, Any]]
COLOURS = {"recipe": "#0072b2", "method": "#009e73", "placebo": "#d55e00", "reference": "#222222"}
SURE = ("appears", "the opposite")
EDGE = 8.0  # ratios beyond it are drawn at it
TICKS = (0.25, 0.5, 1, 2, 4, 8)


def plot(told: Rows, shares: Rows, effects: Rows) -> dict[str, Figure]:
    """Figures by file name."""
    found = {"leaderboard.png": leaderboards(told)}
    if shares:
        found |= {"parts.png": parts(shares), "levels.png": levels(effects)}
    return found


def leaderboards(told: Rows) -> Figure:
    """A panel a regime: ratio of rollouts to GRPO's with its interval, cheapest first; who misses the target last."""
    shown = [p for p in places(told) if p[1:] == places(told)[0][1:]]
    count = max(len(ranked(told, place)) for place in shown)
    figure, axes = panels(1.2 + 4.8 * len(shown), 1.8 + 0.19 * count, len(shown))
    for axis, place in zip(axes, shown, strict=True):
        rows = ranked(told, place)
        for y, r in enumerate(rows):
            colour, reference = COLOURS[r["kind"]], r["estimator"] == REFERENCE
            if r["value"] is None and not reference:
                axis.text(1, y, f"  {r['met']} of {r['runs']} runs", fontsize=6, va="center", color=colour)
                continue
            at, low, high = (min(math.exp(r[k] or 0.0), EDGE) for k in ("value", "low", "high"))
            axis.errorbar(
                [at], [y], xerr=[[at - low], [high - at]], marker="o", ms=4, elinewidth=1, ls="", color=colour,
                fillstyle="full" if r["verdict"] in SURE or reference else "none",
            )  # fmt: skip
        axis.axvline(1, color="black", lw=0.8)
        axis.set(xscale="log", ylim=(len(rows) - 0.4, -0.6))
        axis.set_yticks(range(len(rows)), labels=[r["estimator"] for r in rows], fontsize=7)
        ends = [math.exp(r[k]) for r in rows for k in ("low", "high") if r[k] is not None]
        axis.set_xlim(min([0.8, *ends]) / 1.1, min(EDGE, max([2.0, *ends])) * 1.1)
        axis.set_xticks([t for t in TICKS if axis.get_xlim()[0] <= t <= axis.get_xlim()[1]])
        axis.minorticks_off()
        axis.xaxis.set_major_formatter("{x:g}")
        axis.set_xlabel("rollouts to the far target, ratio to GRPO", fontsize=8)
        axis.set_title(title(told, place), fontsize=8)
    figure.suptitle(
        "95 % intervals; filled: a direction after Holm's correction; blue: recipes, green: others, orange: placebo",
        fontsize=9,
    )
    return figure


def parts(shares: Rows) -> Figure:
    """Shares of variance by part, a panel a regime: of the design, and with the recipes in it."""
    regimes = list(dict.fromkeys(r["regime"] for r in shares))
    figure, axes = panels(1.5 + 3.6 * len(regimes), 3.4, len(regimes), sharex=True, sharey=True)
    names = list(dict.fromkeys(r["part"] for r in shares))
    looks = {"design": (-0.17, "#0072b2", "full"), "design and recipes": (0.17, "#cc79a7", "none")}
    for axis, regime in zip(axes, regimes, strict=True):
        for arms, (shift, colour, fill) in looks.items():
            rows = [r for r in shares if (r["regime"], r["arms"]) == (regime, arms)]
            at = [names.index(r["part"]) + shift for r in rows]
            ends = [[max(0.0, r["share"] - r["low"]) for r in rows], [max(0.0, r["high"] - r["share"]) for r in rows]]
            axis.errorbar([r["share"] for r in rows], at, xerr=ends, ls="", marker="o", ms=5, color=colour,
                          fillstyle=fill, label=f"{arms}, {rows[0]['count']} arms" if rows else arms)  # fmt: skip
        axis.axvline(0, color="black", lw=0.8)
        axis.set_title(
            f"{regime} (nu/N = {next(r['noise_ratio'] for r in shares if r['regime'] == regime):.2g})", fontsize=9
        )
        axis.set_xlabel("share of variance of log rollouts", fontsize=8)
    axes[0].set_yticks(
        range(len(names)), labels=[n.replace(REST, "interactions\nand seeds") for n in names], fontsize=8
    )
    axes[0].set_ylim(len(names) - 0.4, -0.6)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    figure.suptitle("Which parts matter: 95 % intervals over seeds", fontsize=10)
    return figure


def levels(effects: Rows) -> Figure:
    """What each level does, against GRPO's: a panel a regime."""
    regimes = list(dict.fromkeys(r["regime"] for r in effects))
    figure, axes = panels(1.8 + 3.4 * len(regimes), 4.0, len(regimes), sharex=True, sharey=True)
    names = list(dict.fromkeys((r["part"], r["level"], r["against"]) for r in effects))
    for axis, regime in zip(axes, regimes, strict=True):
        for r in [r for r in effects if r["regime"] == regime]:
            at, low, high = (math.exp(r[k]) for k in ("value", "low", "high"))
            axis.errorbar([at], [names.index((r["part"], r["level"], r["against"]))], xerr=[[at - low], [high - at]],
                          marker="o", ms=5, color="#0072b2", ls="",
                          fillstyle="full" if r["verdict"] in SURE else "none")  # fmt: skip
        axis.axvline(1, color="black", lw=0.8)
        axis.set_xscale("log")
        axis.minorticks_off()
        axis.set_xticks((0.5, 0.7, 1, 1.4, 2, 3, 4))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.set_title(regime, fontsize=9)
        axis.set_xlabel("rollouts, ratio to GRPO's level", fontsize=8)
    axes[0].set_yticks(range(len(names)), labels=[f"{level} ({part})" for part, level, _ in names], fontsize=8)
    axes[0].set_ylim(len(names) - 0.4, -0.6)
    figure.suptitle(
        "Levels of the balanced design: 95 % intervals; filled: a direction after Holm's correction", fontsize=9
    )
    return figure
