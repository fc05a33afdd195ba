"""TOPR: good answers are imitated whoever gave them, bad ones count for as much as the policy still gives them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ebpo_sim.errors import InputError
from ebpo_sim.objectives.base import Push, Scope, Tokens, between, check_bounds, library
from ebpo_sim.objectives.rows import Scored, row_log_ratio
from ebpo_sim.part import Draw


@dataclass(frozen=True)
class TOPR(Scored):
    """J = A log pi where A > 0, else sg(min(w, cap)) A log pi, w = pi(answer)/old(answer); push = A, or min(w, cap) A.

    On-policy REINFORCE. A sum over tokens in the paper (sequence_sum weights), whose advantages are rewards of either
    sign less a constant. cap: 1 in the paper, [w]_0^1. limit: nats within which a token's log-ratio is held.
    Source: arXiv 2503.14286; Trinity-RFT's implementation is the same.
    """

    cap: float = 1.0
    limit: float = 20.0

    scope: ClassVar[Scope] = "sequence"

    def check_settings(self) -> None:
        check_bounds("topr", self.limit)
        if not 0 < self.cap <= 1e6:
            raise InputError(f"topr cap must lie in (0, 1e6], got {self.cap}: 1 is usual")

    def push(self, state: Any, tokens: Tokens, draw: Draw | None = None) -> Push:
        xp, advantage = library(tokens.log_prob_NT), tokens.advantage_NT
        free = row_log_ratio(tokens, self.limit, mean=False)
        weight = xp.where(advantage < 0, xp.exp(between(free, -700.0, 13.9)), 1.0)
        capped = (weight > self.cap) & (advantage < 0) & tokens.mask_NT
        push = xp.where(advantage < 0, between(weight, 0.0, self.cap), 1.0) * advantage
        return Push(xp.where(tokens.mask_NT, push, 0.0), counts={"clipped": capped.sum()})
