"""Objectives by name."""

from __future__ import annotations

from collections.abc import Callable

from ebpo_sim.objectives.aggregation import Aggregation, Rule
from ebpo_sim.objectives.bapo import BAPO
from ebpo_sim.objectives.base import Objective
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
from ebpo_sim.objectives.kl import KL
from ebpo_sim.objectives.kl_old import KLOld
from ebpo_sim.objectives.mhpo import MHPO
from ebpo_sim.objectives.minpro import MinPRO
from ebpo_sim.objectives.r2vpo_fixed import R2VPOFixed
from ebpo_sim.objectives.real import REAL
from ebpo_sim.objectives.sapo import SAPO
from ebpo_sim.objectives.topr import TOPR
from ebpo_sim.objectives.vespo import VESPO
from ebpo_sim.registry import Registry

OBJECTIVES = Registry("objective", {
    "clip": Clip, "cispo": CISPO, "dppo": DPPO, "mhpo": MHPO, "r2vpo_fixed": R2VPOFixed, "sapo": SAPO, "kl": KL,
    "entropy": EntropyBonus,
    "gspo": GSPO, "gmpo": GMPO, "vespo": VESPO, "topr": TOPR, "minpro": MinPRO, "dppo_kl": DPPOKL, "ipo": IPO,
    "real": REAL, "disco": DisCO, "gbpo": GBPO, "bapo": BAPO, "clip_cov": ClipCov, "kl_cov": KLCov,
    "kl_old": KLOld, "entropy_target": EntropyTarget, "tis": TIS, "icepop": IcePop, "mis": MIS,
})  # fmt: skip


def _constant_length(length: int | None = None) -> Aggregation:
    return Aggregation("constant_length", length)


def _delta_l(power: float = 1.0, length: int | None = None) -> Aggregation:
    return Aggregation("delta_l", length, power)


def _plain(rule: Rule) -> Callable[[], Aggregation]:
    return lambda: Aggregation(rule)


AGGREGATIONS = Registry("aggregation", {
    "token_mean": _plain("token_mean"), "sequence_mean": _plain("sequence_mean"),
    "sequence_sum": _plain("sequence_sum"), "constant_length": _constant_length, "delta_l": _delta_l,
})  # fmt: skip
register_objective = OBJECTIVES.register
objective_names = OBJECTIVES.names


def make_objective(text: str) -> Objective:
    """The objective that the text spells; see `Registry.make`."""
    made: Objective = OBJECTIVES.make(text)
    return made
