"""The paper's figure 3: the norm of the gradient over training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpo_sim.compare.contrasts import Contrast
from paper_figures import curves
from paper_figures.data import TRAINING, Data

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "figure3"
TITLE = "Figure 3. Gradient norm over training"
CAPTION = (
    f"{curves.RUNG}. A norm depends on the advantages' scale, which each method sets differently, so the verdict is on "
    "log(last / first record), EBPO's minus GRPO's, errors added as if independent. Below: the cosine between sampled "
    "and true gradient, free of scale (not in the paper)."
)
NEEDS = (TRAINING,)


def verdicts(data: Data) -> list[Contrast]:
    """What each keeps of its norm, EBPO against GRPO."""
    return curves.judged(data, NAME, "grad_norm", measure="kept")


def draw(data: Data) -> Figure:
    """The curves, the claim and the verdicts."""
    return curves.over_training(data, NAME, TITLE, CAPTION, ("grad_norm",), measure="kept", extra=_extra)


def _extra(axis: Axes, data: Data, optimiser: str) -> None:
    curves.panel(axis, data, optimiser, "gradient_cosine")
