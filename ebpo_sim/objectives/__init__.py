"""Objectives: from advantages and log-probabilities to a coefficient on every token's score. NumPy and torch alike."""

from ebpo_sim.objectives.aggregation import PUBLISHED, Aggregation
from ebpo_sim.objectives.base import Objective, Push, Tokens
from ebpo_sim.objectives.clip import Clip
from ebpo_sim.objectives.entropy import EntropyBonus
from ebpo_sim.objectives.kl import KL, estimate
from ebpo_sim.objectives.total import needs, total_push, zero_at_zero

__all__ = [
    "KL",
    "PUBLISHED",
    "Aggregation",
    "Clip",
    "EntropyBonus",
    "Objective",
    "Push",
    "Tokens",
    "estimate",
    "needs",
    "total_push",
    "zero_at_zero",
]
