"""A divergence to the previous policy as a term of the objective: mirror descent's proximal term."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ebpo_sim.errors import InputError
from ebpo_sim.objectives.base import Formula, Push, Tokens, check_bounds, library, log_ratio
from ebpo_sim.part import Draw


@dataclass(frozen=True)
class KLOld(Formula):
    """J = -coef (r log r - r + 1), r = exp(log pi - log old); push = -coef r log r.

    Over answers of the old policy E[r log r - r + 1] = KL(pi, old), and its gradient is the true one; it is 0 at r = 1,
    where r log r alone, of the same expectation, would be noise. With the unclipped Clip and coef = 1/t this is Mirror
    Descent Policy Optimization's step t, whose end is pi = old exp(t A)/its sum. limit: nats beyond which the
    log-ratio is held and pushes nothing. Source: arXiv 2005.09814.
    """

    coef: float = 1.0
    limit: float = 20.0

    zero_at_zero: ClassVar[bool] = False

    def check_settings(self) -> None:
        check_bounds("kl_old", self.limit)
        if not 0 <= self.coef <= 1e6:
            raise InputError(f"kl_old coef must lie in [0, 1e6], got {self.coef}: 1 is usual")

    def push(self, state: Any, tokens: Tokens, draw: Draw | None = None) -> Push:
        xp = library(tokens.log_prob_NT)
        difference, inside = log_ratio(tokens, self.limit)
        return Push(xp.where(inside, -self.coef * xp.exp(difference) * difference, 0.0))

    def value(self, state: Any, tokens: Tokens, held: Tokens) -> Any:
        xp = library(tokens.log_prob_NT)
        difference, _ = log_ratio(tokens, self.limit)
        excess = xp.exp(difference) * difference - xp.expm1(difference)
        return xp.where(tokens.mask_NT, -self.coef * excess, 0.0)
