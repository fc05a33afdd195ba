"""Advantage estimators: the one module that the studies, `llm/` and the trainers share. Never imports numba."""

from ebpo_sim.estimators.base import Estimator, Info, baseline_table
from ebpo_sim.estimators.checkpoint import dump_state, fingerprint, load_state
from ebpo_sim.estimators.registry import make, names, needs_prior, register
from ebpo_sim.estimators.transforms import (
    Baseline,
    Centre,
    Evaluation,
    Rank,
    Reweigh,
    Scale,
    StatelessBaseline,
    Subtract,
    Transform,
    Whiten,
)

__all__ = [
    "Baseline",
    "Centre",
    "Estimator",
    "Evaluation",
    "Info",
    "Rank",
    "Reweigh",
    "Scale",
    "StatelessBaseline",
    "Subtract",
    "Transform",
    "Whiten",
    "baseline_table",
    "dump_state",
    "fingerprint",
    "load_state",
    "make",
    "names",
    "needs_prior",
    "register",
]
