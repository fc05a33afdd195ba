"""The figure of the recorded study."""

from __future__ import annotations

from ebpo_sim.labels import colours, label
from ebpo_sim.numbers.formulas import conservative_icc, critical_icc
from ebpo_sim.plots import Figure, panels
from ebpo_sim.studies.base import Rows

WINDOW = 5  # visits in a point of a line


def plot(rows: Rows) -> dict[str, Figure]:
    """The first world: error ratios by G; by visit at the G nearest 4; drift by lag; ICC and silent groups by visit."""
    here = [r for r in rows if r["world"] == rows[0]["world"]]
    figure, (by_size, by_visit, drift, shape) = panels(17, 4.6, 4)
    ratios = [r for r in here if r["quantity"] == "error ratio"]
    names, sizes = (list(dict.fromkeys(r[k] for r in ratios)) for k in ("estimator", "group_size"))
    colour, size = colours(names), min(sizes, key=lambda g: (abs(g - 4), g))
    for i, name in enumerate(names):
        mine = [r for r in ratios if r["estimator"] == name]
        at = [sizes.index(r["group_size"]) + 0.06 * (i - len(names) / 2) for r in mine]
        off = [[r["value"] - r["low"] for r in mine], [r["high"] - r["value"] for r in mine]]
        by_size.errorbar(at, [r["value"] for r in mine], off, fmt=label(name).marker, ms=4, color=colour[name])
        line = [r for r in here if r["quantity"] == "error ratio by visit" and r["group_size"] == size
                and r["estimator"] == name]  # fmt: skip
        values = [r["value"] for r in line]
        smooth = [sum(values[j : j + WINDOW]) / WINDOW for j in range(len(values) - WINDOW + 1)]
        by_visit.plot(
            [line[0]["visit"] + j + (WINDOW - 1) / 2 for j in range(len(smooth))], smooth, color=colour[name],
            label=label(name).short or label(name).name,
        )  # fmt: skip
    by_size.set(xticks=range(len(sizes)), xticklabels=sizes, xlabel="group size G", yscale="log")
    by_size.set(ylabel="baseline error / group mean's", title="all scored visits, 95 % over prompts")
    by_visit.set(xlabel="visit", yscale="log", title=f"G = {size}, means of {WINDOW} visits")
    for panel in (by_size, by_visit):
        panel.axhline(1, color="black", lw=0.8)
    by_visit.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    moved = [r for r in here if r["quantity"] == "drift"]
    drift.plot([r["lag"] for r in moved], [r["value"] for r in moved], color="black")
    drift.fill_between(
        [r["lag"] for r in moved], [r["low"] for r in moved], [r["high"] for r in moved], color="black", alpha=0.15
    )
    noises = [r for r in here if r["quantity"] == "sampling variance of a group mean"]
    for noise in (r for r in noises if r["value"] < max(r["high"] for r in moved)):
        drift.axhline(noise["value"], ls="--", lw=0.8, color="#666666")
        drift.annotate(f"noise, G = {noise['group_size']}", (1, noise["value"]), fontsize=7, va="bottom")
    drift.set(xlabel="visits apart", title="drift, mean square", ylim=(0, 1.1 * max(r["high"] for r in moved)))
    icc = [r for r in here if r["quantity"] == "ICC"]
    shape.plot([r["visit"] for r in icc], [r["value"] for r in icc], color="black", label="ICC")
    for g in dict.fromkeys(r["group_size"] for r in here if r["quantity"] == "silent groups"):
        mine = [r for r in here if r["quantity"] == "silent groups" and r["group_size"] == g]
        if g > 1:
            shape.plot([r["visit"] for r in mine], [r["value"] for r in mine], lw=1, label=f"silent, G = {g}")
        for limit, style in ((critical_icc(g), "--"), (conservative_icc(g), ":")):
            shape.axhline(limit, ls=style, lw=0.7, color="#666666")
            shape.annotate(f"G = {g}", (icc[-1]["visit"], limit), fontsize=6, va="bottom", ha="right")
    shape.set(xlabel="visit", ylim=(0, 1), title="EBPO loses above --, shrinks too much above ..")
    shape.legend(fontsize=7, frameon=False)
    return {"recorded.png": figure}
