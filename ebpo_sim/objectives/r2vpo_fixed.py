"""R2VPO with a fixed multiplier: the ratio's variance as a penalty that pulls back in the place of a clip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ebpo_sim.errors import InputError
from ebpo_sim.objectives.base import Formula, Push, Tokens, library, log_ratio
from ebpo_sim.part import Draw


@dataclass(frozen=True)
class R2VPOFixed(Formula):
    """J = r A - penalty (r - 1)^2, r = exp(log pi - log old); push = r (A - 2 penalty (r - 1)).

    0 at r = 1 + A/(2 penalty), and towards it on both sides. penalty 0: the unclipped Clip. The paper bounds
    E[(r - 1)^2] and adapts the multiplier; its rule and defaults are not public, so this is the method with the
    multiplier held, at a reimplementation's 0.04. limit: nats beyond which the log-ratio is held and pushes nothing.
    Source: arXiv 2601.03320 and 2605.26784 (abstracts).
    """

    penalty: float = 0.04
    limit: float = 20.0

    def check_settings(self) -> None:
        if not 0 <= self.penalty <= 1e6:
            raise InputError(f"r2vpo penalty must lie in [0, 1e6], got {self.penalty}: 0.04 is usual, 0 for none")
        if not 0 < self.limit <= 300:  # the ratio is squared
            raise InputError(f"r2vpo limit must lie in (0, 300] nats, got {self.limit}: 20 is usual")

    @property
    def zero_at_zero(self) -> bool:  # type: ignore[override]
        """An answer of advantage 0 is pulled back too."""
        return self.penalty == 0

    def push(self, state: Any, tokens: Tokens, draw: Draw | None = None) -> Push:
        xp = library(tokens.log_prob_NT)
        difference, inside = log_ratio(tokens, self.limit)
        ratio = xp.exp(difference)
        slope = ratio * (tokens.advantage_NT - 2 * self.penalty * (ratio - 1))
        return Push(xp.where(inside, slope, 0.0))

    def value(self, state: Any, tokens: Tokens, held: Tokens) -> Any:
        xp = library(tokens.log_prob_NT)
        ratio = xp.exp(log_ratio(tokens, self.limit)[0])
        return xp.where(tokens.mask_NT, ratio * tokens.advantage_NT - self.penalty * (ratio - 1) ** 2, 0.0)
