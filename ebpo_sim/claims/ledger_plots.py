"""A claim's figure, and the map of T2's gain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ebpo_sim.claims.base import Claim, Finding
from ebpo_sim.numbers import formulas
from ebpo_sim.plots import Figure, panels

WORST = 4.0  # the ratio at which the map's colour ends, and its inverse
COLOURS = "PuOr_r"  # purple and orange are told apart under every kind of colour blindness


def plot(claim: Claim, findings: Sequence[Finding]) -> Figure:
    """How far the claim holds in every case, variant by variant; below 0 it is violated."""
    figure, (axis,) = panels(9, 1.6 + 0.55 * len(findings))
    axis.axvline(0, color="black", lw=1)
    for i, finding in enumerate(reversed(findings)):
        effects = np.sort([c.effect for c in finding.cases])
        spread = np.linspace(-0.25, 0.25, len(effects)) if len(effects) > 1 else np.zeros(1)
        signs = [c.sign for c in sorted(finding.cases, key=lambda c: c.effect)]
        colours = [("tab:grey", "#1565c0", "#a34a00")[sign] for sign in signs]
        axis.scatter(effects, i + spread, s=8, c=colours, alpha=0.6, linewidths=0)
    labels = [f"{f.variant}\n{f.verdict.word}" for f in reversed(findings)]
    axis.set_yticks(range(len(findings)), labels=labels, fontsize=8)
    axis.set_xscale("symlog", linthresh=0.01)
    axis.set_xlabel("margin of the claim in each case (left of 0: it fails; grey: equality)")
    axis.set_title(f"{claim.id}: {claim.statement}", fontsize=9, wrap=True)
    return figure


def heat_map(rows: Sequence[dict[str, Any]]) -> Figure:
    """A panel a variant: the ratio as number and colour, below 1 (purple) the claim holds; rho*(G) as a line."""
    from matplotlib.colors import LogNorm

    variants = list(dict.fromkeys(r["variant"] for r in rows))
    sizes = list(dict.fromkeys(r["group_size"] for r in rows))
    figure, axes = panels(1 + 0.55 * len(sizes) * len(variants), 4.6, len(variants), sharey=True)
    correlations = list(dict.fromkeys(r["icc"] for r in rows))
    step = np.arange(len(correlations))
    for axis, variant in zip(axes, variants, strict=True):
        ratios = np.array([r["ratio"] for r in rows if r["variant"] == variant]).reshape(len(step), len(sizes))
        axis.imshow(ratios, origin="lower", aspect="auto", cmap=COLOURS, norm=LogNorm(1 / WORST, WORST))
        for (y, x), ratio in np.ndenumerate(ratios):
            dark = not 0.45 < ratio < 2.5
            axis.text(x, y, f"{ratio:.2f}", ha="center", va="center", fontsize=7, color="white" if dark else "black")
        axis.set_xticks(range(len(sizes)), labels=[str(size) for size in sizes], fontsize=8)
        axis.set_xlabel("G", fontsize=8)
        axis.set_title(variant, fontsize=9)
        if variant == "algorithm-1":
            critical = np.interp([formulas.critical_icc(size) for size in sizes], correlations, step)
            axis.step(range(len(sizes)), critical, where="mid", color="black", lw=1.5)
    axes[0].set_yticks(step, labels=[f"{icc:g}" for icc in correlations], fontsize=8)
    axes[0].set_ylabel("intra-class correlation of rewards", fontsize=8)
    figure.suptitle("Error of the baseline / the group mean's, exact; orange: above 1; line: critical", fontsize=10)
    return figure
