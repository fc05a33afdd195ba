"""The paper's figure 4: how far one step moves the policy, as a KL divergence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpo_sim.compare.contrasts import Contrast
from paper_figures import curves
from paper_figures.data import TRAINING, Data

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "figure4"
TITLE = "Figure 4. KL of one step over training"
CAPTION = f"{curves.RUNG}. KL between the policies before and after a step; verdict on the mean over all steps."
NEEDS = (TRAINING,)


def verdicts(data: Data) -> list[Contrast]:
    """EBPO minus GRPO averaged over training."""
    return curves.judged(data, NAME, "kl", measure="mean")


def draw(data: Data) -> Figure:
    """The curves, the claim and the verdicts."""
    return curves.over_training(data, NAME, TITLE, CAPTION, ("kl",), measure="mean")
