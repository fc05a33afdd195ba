"""A claim's figure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ebpo_sim.claims.base import Claim, Finding
from ebpo_sim.plots import Figure, panels


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
