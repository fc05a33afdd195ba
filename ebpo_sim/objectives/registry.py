"""Objectives by name."""

from __future__ import annotations

from ebpo_sim.objectives.base import Objective
from ebpo_sim.objectives.cispo import CISPO
from ebpo_sim.objectives.clip import Clip
from ebpo_sim.objectives.dppo import DPPO
from ebpo_sim.objectives.entropy import EntropyBonus
from ebpo_sim.objectives.kl import KL
from ebpo_sim.objectives.mhpo import MHPO
from ebpo_sim.objectives.r2vpo_fixed import R2VPOFixed
from ebpo_sim.objectives.sapo import SAPO
from ebpo_sim.registry import Registry

OBJECTIVES = Registry("objective", {
    "clip": Clip, "cispo": CISPO, "dppo": DPPO, "mhpo": MHPO, "r2vpo_fixed": R2VPOFixed, "sapo": SAPO, "kl": KL,
    "entropy": EntropyBonus,
})  # fmt: skip
register_objective = OBJECTIVES.register
objective_names = OBJECTIVES.names


def make_objective(text: str) -> Objective:
    """The objective that the text spells; see `Registry.make`."""
    made: Objective = OBJECTIVES.make(text)
    return made
