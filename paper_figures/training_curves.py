"""The paper's figures 3 to 7: what changes over training, EBPO against GRPO."""

from __future__ import annotations

from ebpo_sim import labels
from ebpo_sim.compare.contrasts import select
from ebpo_sim.plots import Axes
from paper_figures import curves, style
from paper_figures.data import Data


def cosine(axis: Axes, data: Data, column: str) -> None:
    """The gradient's direction, which no scale of the advantages changes."""
    curves.panel(axis, data, column, curves.MAIN_OPTIMISER, "gradient_cosine")


def entropy_against_success(axis: Axes, data: Data, column: str) -> None:
    """Entropy against success at the same record, so that a method's speed cancels."""
    for name in curves.MAIN:
        cells = (curves.cell(data, column, curves.MAIN_OPTIMISER, metric) for metric in ("pass1", "entropy"))
        pair = [
            {r["step"]: r["value"] for r in select(data.of(where["metric"]), estimator=name, **where)}
            for where in cells
        ]
        shared = [s for s in pair[0] if None not in (pair[0][s], pair[1].get(s))]
        axis.plot([pair[0][s] for s in shared], [pair[1][s] for s in shared], color=labels.label(name).colour, lw=1.6)
    axis.set_xlabel("held-out pass@1", fontsize=8.5, labelpad=1)
    style.panel_title(axis, f"entropy, {curves.heading(data, column, curves.MAIN_OPTIMISER)}", below=True)


PAGES = (
    curves.page(
        "figure3", "Figure 3. Gradient norm over training",
        "A norm depends on the advantages' scale, which each method sets differently, so the verdict is on "
        "log(last / first record), EBPO's minus GRPO's, errors added as if independent. Last row: the cosine between "
        "sampled and true gradient, free of scale (not in the paper).",
        ("grad_norm",), "kept", cosine,
    ),
    curves.page(
        "figure4", "Figure 4. KL of one step over training",
        "KL between the policies before and after a step; verdict on the mean over all steps.", ("kl",), "mean",
    ),
    curves.page(
        "figure5", "Figure 5. Policy entropy over training (G = 4)",
        "Verdict on the entropy left at the end, a mean over tokens. Last row: entropy against the success rate "
        "reached (not in the paper), to tell entropy lost from entropy spent on learning.",
        ("entropy",), extra=entropy_against_success,
    ),
    curves.page(
        "figure6", "Figure 6. Validation: majority of 16 and any of 16",
        "maj@16: the commonest of 16 answers is right; pass@16: one of 16 is. Verdict at the end.", ("maj16", "pass16"),
    ),
    curves.page("figure7", "Figure 7. Reward over training (G = 4)", "Verdict on the reward at the end.", ("reward",)),
)  # fmt: skip
