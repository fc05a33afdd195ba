"""A prompt's pass rate from its own visits: the tracker of SPO and the discounted Beta-Bernoulli of DBB."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ebpo_sim import typed
from ebpo_sim.errors import InputError
from ebpo_sim.estimators.memory import PromptMemory, State, check_retention
from ebpo_sim.estimators.transforms.base import Advantages, Domain, Evaluation, Memoryless, divided
from ebpo_sim.groups import Groups

HALF_LIFE, LEAST, MOST = 0.06, 0.875, 0.96  # nats and retentions of SPO's code


def retention_of(divergence: float) -> float:
    """SPO's retention after a policy has moved by `divergence` nats since the prompt's last visit: 2^(-D/0.06), within
    [0.875, 0.96] (arXiv 2509.13232 and its public code)."""
    if not divergence >= 0:
        raise InputError(f"divergence must be at least 0 nats, got {divergence!r}: it is a Kullback-Leibler divergence")
    return float(np.clip(2.0 ** (-divergence / HALF_LIFE), LEAST, MOST))


@dataclass(frozen=True)
class Discounted(typed.Settings, PromptMemory):
    """b = alpha/(alpha + beta); at each visit alpha <- retention alpha + successes, beta <- retention beta + failures,
    from alpha = beta = prior. Rewards in [0, 1].

    Read before the update (order "score_then_update") b is independent of the scored group: unbiased. Read after it
    ("update_then_score") b holds the group's own n rollouts with weight 1/H each, H = retention (alpha + beta) + n:
    Cov(b, mean r) = p(1-p)/H, so the expected unscaled gradient is (1 - 1/H) times the true one, of the group mean
    (1 - 1/n); H lies between n and n/(1 - retention) after a long past, and the factor differs from prompt to prompt
    only by how often it was seen. A scale made of b changes the gradient further.
    """

    retention: float = LEAST
    prior: float = 1.0

    domain: ClassVar[Domain] = "unit"

    def check_settings(self) -> None:
        check_retention(self.retention)
        if not self.prior > 0:
            raise InputError(f"prior must be above 0, got {self.prior!r}: 1 is the uniform one")

    def evaluate(self, state: State, groups: Groups) -> Evaluation:
        n_P, r_P, visits_P = self.past(state, groups)
        weight_P = self.prior * self.retention**visits_P
        # A weight that has underflowed leaves the past alone, which then is there.
        return Evaluation(((weight_P + r_P) / (2 * weight_P + n_P))[..., None])


@dataclass(frozen=True)
class BernoulliScale(Memoryless):
    """Divide by sqrt(b (1 - b)), b the baseline at the head of the chain; where that is 0, so is the advantage."""

    def apply(self, state: tuple[()], advantages: Advantages, groups: Groups) -> Advantages:
        assert advantages.evaluation is not None
        b_PG = np.clip(advantages.evaluation.baseline_PG, 0.0, 1.0)
        variance_PG = np.broadcast_to(b_PG * (1 - b_PG), advantages.values_PG.shape)
        return divided(advantages, advantages.values_PG, np.sqrt(variance_PG), variance_PG > 0, groups)
