"""What the contract battery runs on: every preset, some settings of them, an example batch, states compared."""

from __future__ import annotations

from typing import Any

from ebpo_sim import names
from ebpo_sim.check.batches import (
    PRIOR,
    assert_close,
    assert_same,
    batch,
    build,
    full,
    history,
    leaves,
    rows,
)
from ebpo_sim.estimators import Estimator

__all__ = [
    "CASES", "PRIOR", "VARIANTS", "assert_close", "assert_same", "batch", "build", "full", "history", "leaves", "rows",
]  # fmt: skip
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "ebpo-forgetting": ("ebpo", {"memory": 0.9}),
    "ebpo-lagged": ("ebpo", {"order": "score_then_update", "ddof": 1}),
    "ebpo_beta_binomial-cluster": ("ebpo_beta_binomial", {"per_cluster": True}),
    "ebpo_debiased-cluster": ("ebpo_debiased", {"per_cluster": True, "memory": 0.7}),
    "ebpo_debiased-loo": ("ebpo_debiased", {"leave_one_out": True}),
    "ebpo_debiased-prior": ("ebpo_debiased", {"prior": PRIOR}),
    "ebpo_nonparametric-forgetting": ("ebpo_nonparametric", {"memory": 0.9}),
    "grpo-verl": ("grpo", {"singleton": "raw"}),
    "loo_table-score-cluster": ("loo_table", {"weights": "score", "per_cluster": True, "memory": 0.9}),
    "loo_table-length": ("loo_table", {"weights": "length"}),
    "optimal-cluster": ("optimal", {"per_cluster": True, "others": True, "memory": 0.9, "history": 0.8}),
    "regression-score": ("regression", {"weights": "score", "per_cluster": True, "memory": 0.9, "history": 0.8}),
    "opo-verl": ("opo", {"singleton": "raw"}),
    "spo-slow": ("spo", {"divergence": 0.01}),
    "dbb-plain": ("dbb", {"retention": 0.75, "scale": "none"}),
    "anchor-soft": ("anchor", {"temperature": 0.5}),
    "v05-given": ("v05", {"value": 0.3, "values": (("100", 0.9), ("201", 0.1))}),
    "raft-rollouts": ("raft", {"divisor": "rollouts"}),
    "maxrl-order-G": ("maxrl", {"all_fail": -1.0}),
    "passk-fewer": ("passk", {"k": 3, "baseline": "fewer"}),
    "gpg-verl": ("gpg", {"counted": "nonzero", "singleton": "raw"}),
    "gdpo-trl": ("gdpo", {"weights": "1/0.5", "over": "rollouts", "eps": 1e-4, "batch_eps": 1e-4}),
    "riskpo-code": ("riskpo", {"form": "code", "prompts": 2}),
    "ha_dw-window": ("ha_dw", {"eta": 0.5, "window": 2}),
}


CASES: dict[str, Estimator] = {name: build(name) for name in names()}
CASES.update({label: build(name, **settings) for label, (name, settings) in VARIANTS.items()})
