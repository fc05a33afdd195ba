"""The paper's figure 7: the training reward, G = 4."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpo_sim.compare.contrasts import Contrast
from paper_figures import curves
from paper_figures.data import TRAINING, Data

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "figure7"
TITLE = "Figure 7. Reward over training (G = 4)"
CAPTION = f"{curves.RUNG}. Verdict on the reward at the end."
NEEDS = (TRAINING,)


def verdicts(data: Data) -> list[Contrast]:
    """EBPO minus GRPO at the end of training."""
    return curves.judged(data, NAME, "reward")


def draw(data: Data) -> Figure:
    """The curves, the claim and the verdicts."""
    return curves.over_training(data, NAME, TITLE, CAPTION, ("reward",))
