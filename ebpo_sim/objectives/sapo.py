"""SAPO: a smooth gate on the ratio in the place of the clip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ebpo_sim.errors import InputError
from ebpo_sim.objectives.base import Formula, Push, Tokens, check_bounds, library, log_ratio, sech_squared
from ebpo_sim.part import Draw


@dataclass(frozen=True)
class SAPO(Formula):
    """J = (4/tau) sigmoid(tau (r - 1)) A, r = exp(log pi - log old), tau = positive where A > 0, else negative.

    push = r sech^2(tau (r - 1)/2) A: A at r = 1 whatever tau, largest at r > 1, never exactly 0 before rounding is.
    positive, negative: 1 and 1.05 in the paper, TRL and verl. tau to 0: the unclipped Clip. limit: nats beyond which
    the log-ratio is held and pushes nothing (verl: 20; TRL: none). Source: arXiv 2511.20347 eq. 5 and 6.
    """

    positive: float = 1.0
    negative: float = 1.05
    limit: float = 20.0

    def check_settings(self) -> None:
        check_bounds("sapo", self.limit)
        for name, tau in (("positive", self.positive), ("negative", self.negative)):
            if not 1e-6 <= tau <= 100:
                raise InputError(f"sapo {name} must lie in [1e-6, 100], got {tau}: about 1 is usual")

    def push(self, state: Any, tokens: Tokens, draw: Draw | None = None) -> Push:
        xp = library(tokens.log_prob_NT)
        difference, inside = log_ratio(tokens, self.limit)
        ratio = xp.exp(difference)
        gate = sech_squared(self._by_sign(tokens, ratio - 1) / 2)
        return Push(xp.where(inside, ratio * gate * tokens.advantage_NT, 0.0))

    def _by_sign(self, tokens: Tokens, x: Any) -> Any:
        """tau x."""
        return library(x).where(tokens.advantage_NT > 0, self.positive * x, self.negative * x)

    def value(self, state: Any, tokens: Tokens, held: Tokens) -> Any:
        xp = library(tokens.log_prob_NT)
        ratio = xp.exp(log_ratio(tokens, self.limit)[0])
        sigmoid = 1 / (1 + xp.exp(-self._by_sign(tokens, ratio - 1)))
        gate = 4 * sigmoid / self._by_sign(tokens, xp.ones_like(ratio))
        return xp.where(tokens.mask_NT, gate * tokens.advantage_NT, 0.0)
