"""Advantage estimators: the one module that the studies, `llm/` and the trainers share. Never imports numba."""

from ebpo_sim.estimators.base import (
    Baseline,
    Estimator,
    Evaluation,
    Info,
    StatelessBaseline,
    baseline_table,
)
from ebpo_sim.estimators.checkpoint import dump_state, fingerprint, load_state
from ebpo_sim.estimators.normalise import Normalise
from ebpo_sim.estimators.registry import make, names, needs_prior, register

__all__ = [
    "Baseline",
    "Estimator",
    "Evaluation",
    "Info",
    "Normalise",
    "StatelessBaseline",
    "baseline_table",
    "dump_state",
    "fingerprint",
    "load_state",
    "make",
    "names",
    "needs_prior",
    "register",
]
