"""Objectives: from advantages and log-probabilities to a coefficient on every token's score. NumPy and torch alike."""

from collections.abc import Callable

from ebpo_sim.objectives.aggregation import PUBLISHED as PUBLISHED
from ebpo_sim.objectives.aggregation import Aggregation as Aggregation
from ebpo_sim.objectives.aggregation import Rule
from ebpo_sim.objectives.bapo import BAPO as BAPO
from ebpo_sim.objectives.base import Objective as Objective
from ebpo_sim.objectives.base import Push as Push
from ebpo_sim.objectives.base import Tokens as Tokens
from ebpo_sim.objectives.cispo import CISPO as CISPO
from ebpo_sim.objectives.clip import Clip as Clip
from ebpo_sim.objectives.corrections import MIS as MIS
from ebpo_sim.objectives.corrections import TIS as TIS
from ebpo_sim.objectives.corrections import IcePop as IcePop
from ebpo_sim.objectives.covariance import ClipCov as ClipCov
from ebpo_sim.objectives.covariance import KLCov as KLCov
from ebpo_sim.objectives.disco import DisCO as DisCO
from ebpo_sim.objectives.dppo import DPPO as DPPO
from ebpo_sim.objectives.dppo import DPPOKL as DPPOKL
from ebpo_sim.objectives.dppo import IPO as IPO
from ebpo_sim.objectives.entropy import EntropyBonus as EntropyBonus
from ebpo_sim.objectives.entropy_target import EntropyTarget as EntropyTarget
from ebpo_sim.objectives.gbpo import GBPO as GBPO
from ebpo_sim.objectives.gmpo import GMPO as GMPO
from ebpo_sim.objectives.gspo import GSPO as GSPO
from ebpo_sim.objectives.kl import KL as KL
from ebpo_sim.objectives.kl import estimate as estimate
from ebpo_sim.objectives.kl_old import KLOld as KLOld
from ebpo_sim.objectives.mhpo import MHPO as MHPO
from ebpo_sim.objectives.minpro import MinPRO as MinPRO
from ebpo_sim.objectives.r2vpo_fixed import R2VPOFixed as R2VPOFixed
from ebpo_sim.objectives.real import REAL as REAL
from ebpo_sim.objectives.sapo import SAPO as SAPO
from ebpo_sim.objectives.topr import TOPR as TOPR
from ebpo_sim.objectives.total import learnt as learnt
from ebpo_sim.objectives.total import needs as needs
from ebpo_sim.objectives.total import remember as remember
from ebpo_sim.objectives.total import total_push as total_push
from ebpo_sim.objectives.total import zero_at_zero as zero_at_zero
from ebpo_sim.objectives.vespo import VESPO as VESPO
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
