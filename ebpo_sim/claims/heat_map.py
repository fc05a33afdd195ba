"""The gain that claim T2 is about, over the intra-class correlation and the group size: exact, and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ebpo_sim.claims.base import Context
from ebpo_sim.claims.family import world
from ebpo_sim.counts.exact import limit_risk, rule
from ebpo_sim.numbers import formulas
from ebpo_sim.plots import Figure, panels

CLAIM = "T2"
CORRELATIONS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
WORST = 4.0  # the ratio at which the colour ends, and its inverse
COLOURS = "PuOr_r"  # purple and orange are told apart under every kind of colour blindness


def grid(context: Context) -> list[dict[str, Any]]:
    """Rows (variant, icc, group_size, ratio): the limit of the variant's baseline error over the group mean's in the
    world Beta(a, a) with a = (1/icc - 1)/2, whose intra-class correlation is icc."""
    found = []
    for variant, subject in context.subjects.items():
        for icc in CORRELATIONS:
            here = world(f"beta:{(1 / icc - 1) / 2!r},{(1 / icc - 1) / 2!r}")
            for size in context.group_sizes:
                prior = rule(here, size)
                ratio = limit_risk(subject(prior), here, size).mse / (prior.within / size)
                found.append({"variant": variant, "icc": icc, "group_size": size, "ratio": ratio})
    return found


def plot(rows: Sequence[dict[str, Any]]) -> Figure:
    """A panel a variant: the ratio as number and colour, below 1 (purple) the claim holds; rho*(G) as a line."""
    from matplotlib.colors import LogNorm

    variants = list(dict.fromkeys(r["variant"] for r in rows))
    sizes = list(dict.fromkeys(r["group_size"] for r in rows))
    figure, axes = panels(1 + 0.55 * len(sizes) * len(variants), 4.6, len(variants), sharey=True)
    step = np.arange(len(CORRELATIONS))
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
            critical = np.interp([formulas.critical_icc(size) for size in sizes], CORRELATIONS, step)
            axis.step(range(len(sizes)), critical, where="mid", color="black", lw=1.5)
    axes[0].set_yticks(step, labels=[f"{icc:g}" for icc in CORRELATIONS], fontsize=8)
    axes[0].set_ylabel("intra-class correlation of rewards", fontsize=8)
    figure.suptitle("Error of the baseline / the group mean's, exact; orange: above 1; line: critical", fontsize=10)
    return figure
