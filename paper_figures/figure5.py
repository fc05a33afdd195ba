"""The paper's figure 5: the policy's entropy over training, G = 4."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpo_sim import labels
from ebpo_sim.compare.contrasts import Contrast, select
from paper_figures import curves, style
from paper_figures.data import TRAINING, Data

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "figure5"
TITLE = "Figure 5. Policy entropy over training (G = 4)"
CAPTION = (
    f"{curves.RUNG}. Verdict on the entropy left at the end, a mean over tokens. Below, entropy against the success "
    "rate reached (not in the paper), to tell entropy lost from entropy spent on learning."
)
NEEDS = (TRAINING,)


def verdicts(data: Data) -> list[Contrast]:
    """EBPO minus GRPO at the end of training."""
    return curves.judged(data, NAME, "entropy")


def draw(data: Data) -> Figure:
    """The curves, the claim and the verdicts."""
    return curves.over_training(data, NAME, TITLE, CAPTION, ("entropy",), extra=_extra)


def _extra(axis: Axes, data: Data, optimiser: str) -> None:
    """Entropy against success at the same record, so that a method's speed cancels."""
    for name in curves.MAIN:
        pair = [
            {r["step"]: r["value"] for r in select(data.rows, estimator=name, **curves.cell(data, optimiser, metric))}
            for metric in ("pass1", "entropy")
        ]
        shared = [s for s in pair[0] if None not in (pair[0][s], pair[1].get(s))]
        axis.plot([pair[0][s] for s in shared], [pair[1][s] for s in shared], color=labels.label(name).colour, lw=1.6)
    axis.set_xlabel("held-out pass@1", fontsize=8.5, labelpad=1)
    title = f"entropy against pass@1, {curves.columns(data)[optimiser]}"
    style.panel_title(axis, title, below=bool(data.llm))
