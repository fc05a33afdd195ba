"""Objectives: from advantages and log-probabilities to a coefficient on every token's score. NumPy and torch alike."""

from ebpo_sim.objectives.aggregation import PUBLISHED, Aggregation
from ebpo_sim.objectives.bapo import BAPO
from ebpo_sim.objectives.base import Objective, Push, Tokens
from ebpo_sim.objectives.cispo import CISPO
from ebpo_sim.objectives.clip import Clip
from ebpo_sim.objectives.corrections import MIS, TIS, IcePop
from ebpo_sim.objectives.covariance import ClipCov, KLCov
from ebpo_sim.objectives.disco import DisCO
from ebpo_sim.objectives.dppo import DPPO, DPPOKL, IPO
from ebpo_sim.objectives.entropy import EntropyBonus
from ebpo_sim.objectives.entropy_target import EntropyTarget
from ebpo_sim.objectives.gbpo import GBPO
from ebpo_sim.objectives.gmpo import GMPO
from ebpo_sim.objectives.gspo import GSPO
from ebpo_sim.objectives.kl import KL, estimate
from ebpo_sim.objectives.kl_old import KLOld
from ebpo_sim.objectives.mhpo import MHPO
from ebpo_sim.objectives.minpro import MinPRO
from ebpo_sim.objectives.r2vpo_fixed import R2VPOFixed
from ebpo_sim.objectives.real import REAL
from ebpo_sim.objectives.registry import AGGREGATIONS, make_objective, objective_names, register_objective
from ebpo_sim.objectives.sapo import SAPO
from ebpo_sim.objectives.topr import TOPR
from ebpo_sim.objectives.total import learnt, needs, remember, total_push, zero_at_zero
from ebpo_sim.objectives.vespo import VESPO

__all__ = [
    "AGGREGATIONS",
    "BAPO",
    "CISPO",
    "DPPO",
    "DPPOKL",
    "GBPO",
    "GMPO",
    "GSPO",
    "IPO",
    "KL",
    "MHPO",
    "MIS",
    "PUBLISHED",
    "REAL",
    "SAPO",
    "TIS",
    "TOPR",
    "VESPO",
    "Aggregation",
    "Clip",
    "ClipCov",
    "DisCO",
    "EntropyBonus",
    "EntropyTarget",
    "IcePop",
    "KLCov",
    "KLOld",
    "MinPRO",
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
