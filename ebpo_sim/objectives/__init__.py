"""Objectives: from advantages and log-probabilities to a coefficient on every token's score. NumPy and torch alike."""

from ebpo_sim.objectives.aggregation import PUBLISHED, Aggregation
from ebpo_sim.objectives.base import Objective, Push, Tokens
from ebpo_sim.objectives.cispo import CISPO
from ebpo_sim.objectives.clip import Clip
from ebpo_sim.objectives.dppo import DPPO
from ebpo_sim.objectives.entropy import EntropyBonus
from ebpo_sim.objectives.kl import KL, estimate
from ebpo_sim.objectives.mhpo import MHPO
from ebpo_sim.objectives.r2vpo_fixed import R2VPOFixed
from ebpo_sim.objectives.registry import make_objective, objective_names, register_objective
from ebpo_sim.objectives.sapo import SAPO
from ebpo_sim.objectives.total import learnt, needs, remember, total_push, zero_at_zero

__all__ = [
    "CISPO",
    "DPPO",
    "KL",
    "MHPO",
    "PUBLISHED",
    "SAPO",
    "Aggregation",
    "Clip",
    "EntropyBonus",
    "Objective",
    "Push",
    "R2VPOFixed",
    "Tokens",
    "estimate",
    "learnt",
    "make_objective",
    "needs",
    "objective_names",
    "register_objective",
    "remember",
    "total_push",
    "zero_at_zero",
]
