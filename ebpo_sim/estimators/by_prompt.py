"""Presets that know a prompt again, or are told its value: from its own history, or from outside."""

from __future__ import annotations

from typing import Literal

from ebpo_sim.estimators.anchor import Anchor
from ebpo_sim.estimators.base import Estimator
from ebpo_sim.estimators.components import Memory
from ebpo_sim.estimators.discounted import LEAST, BernoulliScale, Discounted, retention_of
from ebpo_sim.estimators.optimal import Optimal
from ebpo_sim.estimators.prior_fusion import PriorFusion
from ebpo_sim.estimators.regression import Regression
from ebpo_sim.estimators.transforms import Subtract, Whiten
from ebpo_sim.groups import Weights


def optimal(
    *, weights: Weights = "score", memory: Memory = "cumulative", history: Memory = "cumulative",
    per_cluster: bool = False, prior_weight: float = 2.0, others: bool = False,
) -> Estimator:  # fmt: skip
    """The baseline of least noise from a prompt's own history and the score norms of its pass rate's bin (ours).

    memory, history: retentions a batch of running means and of a prompt's own past. weights="none": SPO's b = p.
    """
    return Estimator("optimal", (Subtract(Optimal(weights, memory, history, per_cluster, prior_weight, others)),))


def regression(
    *, weights: Weights = "none", memory: Memory = "cumulative", history: Memory = "cumulative",
    per_cluster: bool = False, prior_weight: float = 2.0, ridge: float = 1.0,
) -> Estimator:  # fmt: skip
    """The best line in running mean, the prompt's own history and the other rollouts, by recursive least squares."""
    baseline = Regression(weights, memory, history, per_cluster, prior_weight, ridge)
    return Estimator("regression", (Subtract(baseline),))


def spo(
    *, retention: float = LEAST, divergence: float | None = None, prior: float = 0.5, eps: float = 1e-8
) -> Estimator:
    """r - tracked pass rate of the prompt, read before its update, batch z-score (arXiv 2509.13232).

    divergence: nats that the policy moves between visits, the same at each; sets the retention by the code's constants,
    2^(-D/0.06) within [0.875, 0.96]. A first visit stands for the offline rollouts, each of which counts once.
    """
    baseline = Discounted(retention if divergence is None else retention_of(divergence), prior)
    return Estimator("spo", (Subtract(baseline), Whiten(1, eps)))


def dbb(*, retention: float = 0.5, prior: float = 1.0, scale: Literal["prompt", "none"] = "prompt") -> Estimator:
    """(r - p)/sqrt(p (1-p)), p discounted over the prompt's visits, this one included (arXiv 2603.18444).

    scale="none": with Dr. GRPO. The expected gradient is biased by the own group's share, see `Discounted`.
    """
    chain = (Subtract(Discounted(retention, prior)), *((BernoulliScale(),) if scale == "prompt" else ()))
    return Estimator("dbb", chain, "update_then_score")


def anchor(*, temperature: float | None = None) -> Estimator:
    """r - value of the prompt at its first visit, frozen: PVPO (arXiv 2508.21104), at temperature=0.5 A*-PO's V*."""
    return Estimator("anchor", (Subtract(Anchor(temperature)),))


def v05(*, value: float = 0.5, values: tuple[tuple[str, float], ...] = ()) -> Estimator:
    """r - fusion of the group mean with a given prior value, one for all prompts or one a prompt (arXiv 2603.10848)."""
    return Estimator("v05", (Subtract(PriorFusion(value, values)),))
