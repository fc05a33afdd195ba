"""The paper's figure 6: validation by majority vote and by any success of 16."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpo_sim.compare.contrasts import Contrast
from paper_figures import curves
from paper_figures.data import TRAINING, Data

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "figure6"
TITLE = "Figure 6. Validation: majority of 16 and any of 16"
CAPTION = f"{curves.RUNG}. maj@16: the commonest of 16 answers is right; pass@16: one of 16 is. Verdict at the end."
METRICS = ("maj16", "pass16")
NEEDS = (TRAINING,)


def verdicts(data: Data) -> list[Contrast]:
    """EBPO minus GRPO at the end of training."""
    return [v._replace(what=f"{metric}, {v.what}") for metric in METRICS for v in curves.judged(data, NAME, metric)]


def draw(data: Data) -> Figure:
    """The curves, the claim and the verdicts."""
    return curves.over_training(data, NAME, TITLE, CAPTION, METRICS)
