"""Colours that share a picture stay apart for a deuteranope too."""

from __future__ import annotations

import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from colour_vision import distance, lab, rgb, seen
from ebpo_sim import labels
from ebpo_sim.studies.mse.plots import APART, CURVES
from ebpo_sim.studies.training.study import SETTINGS

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # these run from the checkout; they are not installed

from paper_figures.curves import MAIN
from paper_figures.style import STAMPS

LEAST, MAIN_LEAST, WORDED = 15.0, 30.0, 10.0  # CIELAB 1976, where 2 is just noticeable; stamps carry their word
ARMS = ("grpo", "dr_grpo", "rloo", "ebpo", labels.NO_SHRINKAGE, labels.FULL_SHRINKAGE, "ebpo_debiased:memory=0.95")
PICTURES = {
    "mse_study": {name: labels.label(name).colour for name in CURVES if name not in APART},
    "training_study": labels.colours(SETTINGS.estimators),
    "llm.compare": labels.colours(ARMS),
    "a file of one's own": labels.colours((*MAIN[:3], "mine")),
}


def test_the_simulation() -> None:
    """Guards the tools: greys stay, a red and a green come together, CIELAB is the known one of red."""
    for grey in ("#000000", "#777777", "#ffffff"):
        np.testing.assert_allclose(seen(rgb(grey)), rgb(grey), atol=2e-3)
    assert distance("#d62728", "#2ca02c") < 8 < 100 < np.linalg.norm(lab(rgb("#d62728")) - lab(rgb("#2ca02c")))
    np.testing.assert_allclose(lab(rgb("#ff0000")), [53.24, 80.09, 67.20], atol=0.05)


@pytest.mark.parametrize("picture", PICTURES)
def test_methods_of_a_picture(picture: str) -> None:
    """Guards lines: any two methods of one picture are LEAST apart, those drawn thick MAIN_LEAST."""
    shown = PICTURES[picture]
    assert not [(a, b) for a, b in combinations(shown, 2) if distance(shown[a], shown[b]) < LEAST]
    thick = {labels.label(name).colour for name in MAIN}
    assert len(thick) == 3 and min(distance(a, b) for a, b in combinations(thick, 2)) > MAIN_LEAST


def test_verdicts() -> None:
    """Guards stamps: apart from one another and, which holds without the simulation too, never a method's colour."""
    assert min(distance(a, b) for a, b in combinations(STAMPS.values(), 2)) > WORDED
    assert not set(STAMPS.values()) & {row.colour for row in labels.LABELS.values()}
    opposed = ("appears", "the opposite", "no resolving power")
    assert min(distance(STAMPS[a], STAMPS[b]) for a, b in combinations(opposed, 2)) > MAIN_LEAST
