"""MoPPS: prompts whose pass rate, drawn from what is known of it, is nearest to a target."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ebpo_sim.errors import InputError
from ebpo_sim.estimators.memory import State
from ebpo_sim.numbers import Array
from ebpo_sim.sampling.base import Pool
from ebpo_sim.sampling.ranked import Ranked
from ebpo_sim.sampling.recall import PassRates


@dataclass(frozen=True)
class MoPPS(Ranked, PassRates):
    """The Ask.prompts prompts of the smallest |x_i - target|, x_i ~ Beta(alpha_i, beta_i) drawn for each (Thompson).

    alpha <- retention alpha + (1 - retention) prior + successes at a visit, beta alike with failures, as in its public
    code; all prompts of the pool are candidates. target, prior: 0.5 and Beta(1, 1), the paper's; retention: ours.
    F_i(tau) = P(|x_i - target| < tau) by the incomplete beta function (`ranked`). omega is largest near the target and
    0 far from it for prompts that are well known: those are left out; "unbiased" weighs by 1/F(tau), without bound.
    Source: arXiv 2507.04632.
    """

    target: float = 0.5

    highest = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.target < 1:
            raise InputError(f"mopps target must lie in (0, 1), got {self.target}: 0.5 is the paper's")

    def knowledge(self, state: State, pool: Pool) -> tuple[Array, Array]:
        """(alpha, beta) of every prompt."""
        return self.beta(state, pool)

    def ranks(self, known: tuple[Array, Array], rng: np.random.Generator) -> Array:
        """|x - target|."""
        return np.asarray(np.abs(rng.beta(*known) - self.target))

    def below(self, known: tuple[Array, Array], tau: float) -> Array:
        """P(|x - target| < tau)."""
        from scipy.special import betainc

        ends = np.clip([self.target - tau, self.target + tau], 0, 1)
        return np.asarray(betainc(*known, ends[1]) - betainc(*known, ends[0]))
