"""The clipped surrogate of PPO, asymmetric (DAPO), dual (verl), or off (REINFORCE with a ratio)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import log
from typing import Any

from ebpo_sim.errors import InputError
from ebpo_sim.objectives.base import Formula, Push, Tokens, between, check_bounds, library, log_ratio, widths
from ebpo_sim.part import Draw


@dataclass(frozen=True)
class Clip(Formula):
    """J = min(r A, clip(r, 1 - low, 1 + high) A), r = exp(log pi - log old); with `dual` and A < 0, at least dual A.

    push = r A, and 0 where the clip holds it: A > 0 and r > 1 + high, A < 0 and r < 1 - low, or A < 0 and r > dual.
    low, high: half-widths, None for no bound on that side (both None: REINFORCE with a ratio). dual: above 1, verl's
    clip_ratio_c (3 there), None for none (TRL, PPO). limit: nats beyond which the log-ratio is held and pushes nothing,
    so that exp cannot overflow; verl's 20. Source: PPO arXiv 1707.06347 eq. 7; DAPO arXiv 2503.14476 eq. 8 (high 0.28);
    dual clip arXiv 1912.09729 eq. 5.
    """

    low: float | None = 0.2
    high: float | None = 0.2
    dual: float | None = None
    limit: float = 20.0

    def check_settings(self) -> None:
        check_bounds("clip", self.limit, self.low, self.high)
        if self.dual is not None and self.dual <= 1:
            raise InputError(f"clip dual must be above 1, got {self.dual}: 3 is usual, none for no dual clip")

    def push(self, state: Any, tokens: Tokens, draw: Draw | None = None) -> Push:
        xp = library(tokens.log_prob_NT)
        difference, inside = log_ratio(tokens, self.limit)
        ratio, advantage = xp.exp(difference), tokens.advantage_NT
        free = ratio * advantage
        if tokens.log_ratio is not None and tokens.log_ratio.largest <= self._idle:
            return Push(xp.where(inside, free, 0.0), counts={"clipped": 0})
        bounded = between(ratio, *widths(self.low, self.high)) * advantage
        held = bounded < free
        if self.dual is not None:
            held = held | ((advantage < 0) & (ratio > self.dual))
        moving = inside & ~held  # off the mask the ratio is 1, which nothing holds
        return Push(xp.where(moving, free, 0.0), counts={"clipped": xp.count_nonzero(held)})

    @cached_property
    def _idle(self) -> float:
        """The log-ratio up to which, in size, no bound holds anything."""
        bounds = (*widths(self.low, self.high), self.dual or float("inf"))
        return min(self.limit, *((1 - 1e-9) * abs(log(bound)) for bound in bounds if bound > 0))

    def value(self, state: Any, tokens: Tokens, held: Tokens) -> Any:
        xp = library(tokens.log_prob_NT)
        difference, _ = log_ratio(tokens, self.limit)
        ratio, advantage = xp.exp(difference), tokens.advantage_NT
        surrogate = xp.minimum(ratio * advantage, between(ratio, *widths(self.low, self.high)) * advantage)
        if self.dual is not None:
            surrogate = xp.where(advantage < 0, xp.maximum(surrogate, self.dual * advantage), surrogate)
        return xp.where(tokens.mask_NT, surrogate, 0.0)
