"""GBPO: every ratio is drawn to a target within bounds, by an absolute error, not pushed until it is clipped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ebpo_sim.errors import InputError
from ebpo_sim.objectives.base import Formula, Push, Scope, Tokens, check_bounds, library, log_ratio
from ebpo_sim.objectives.rows import Members
from ebpo_sim.part import Draw


@dataclass(frozen=True)
class GBPO(Formula):
    """J = -|r - target| |A|, target = 1 - low + (low + high) sigmoid((A - median of the group's A)/tau).

    push = r |A| towards the target, r = exp(log pi - log old). A is meant to be (reward - mean)/std, so that
    A - median is (reward - median)/std. tau to 0: the target is 1 + high above the median, 1 - low below it and halfway
    at it, so with 0/1 rewards of one majority that majority is only held near 1. low, high: 0.3 in the released
    script, tau 1e-4 there and 1 in its configuration, the default here. limit: nats beyond which the log-ratio is held
    and pushes nothing. Source: arXiv 2604.18578, group form, by its code; token_mean weights.
    """

    low: float = 0.3
    high: float = 0.3
    tau: float = 1.0
    limit: float = 20.0

    scope: ClassVar[Scope] = "group"
    zero_at_zero: ClassVar[bool] = False  # a row counts in its group's median

    def check_settings(self) -> None:
        check_bounds("gbpo", self.limit, self.low, self.high)
        if not 1e-6 <= self.tau <= 1e6:
            raise InputError(f"gbpo tau must lie in [1e-6, 1e6], got {self.tau}: 1 is usual")

    def push(self, state: Any, tokens: Tokens, draw: Draw | None = None) -> Push:
        xp = library(tokens.log_prob_NT)
        difference, inside = log_ratio(tokens, self.limit)
        ratio = xp.exp(difference)
        slope = xp.sign(self._target(tokens) - ratio) * ratio * xp.abs(tokens.advantage_NT)
        return Push(xp.where(inside, slope, 0.0))

    def _target(self, tokens: Tokens) -> Any:
        xp, first = library(tokens.log_prob_NT), tokens.advantage_NT[:, 0]
        above = (first - Members(tokens.group_N).medians(first))[:, None] / self.tau
        return 1 - self.low + (self.low + self.high) * (1 + xp.tanh(above / 2)) / 2

    def value(self, state: Any, tokens: Tokens, held: Tokens) -> Any:
        xp = library(tokens.log_prob_NT)
        gap = xp.abs(xp.exp(log_ratio(tokens, self.limit)[0]) - self._target(tokens))
        return xp.where(tokens.mask_NT, -gap * xp.abs(tokens.advantage_NT), 0.0)
