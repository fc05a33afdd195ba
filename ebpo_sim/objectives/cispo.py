"""CISPO: the importance weight is capped and detached, so no token is ever dropped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ebpo_sim.objectives.base import Push, Tokens, between, check_bounds, library, log_ratio, widths
from ebpo_sim.objectives.rows import Scored
from ebpo_sim.part import Draw


@dataclass(frozen=True)
class CISPO(Scored):
    """J = sg(clip(r, 1 - low, 1 + high)) A log pi, r = exp(log pi - log old); push = clip(r, 1 - low, 1 + high) A.

    low, high: half-widths, None for no bound on that side; both 0: REINFORCE without a ratio; both None: with one,
    the gradient of an unclipped Clip. The paper turns low off and does not print high; verl's example has 0.2. verl
    computes the same, with both bounds on; TRL has no lower bound and takes the cap 1 + high itself as its
    epsilon_high (5 is advised there). counts "clipped": tokens whose weight a bound changed. limit: nats within which
    the log-ratio is held before exp; the weight is held there, log pi still moves.
    Source: arXiv 2506.13585 eq. 4 and 5.
    """

    low: float | None = None
    high: float | None = 0.2
    limit: float = 20.0

    def check_settings(self) -> None:
        check_bounds("cispo", self.limit, self.low, self.high)

    def push(self, state: Any, tokens: Tokens, draw: Draw | None = None) -> Push:
        xp = library(tokens.log_prob_NT)
        ratio = xp.exp(log_ratio(tokens, self.limit)[0])
        weight = between(ratio, *widths(self.low, self.high))
        push = xp.where(tokens.mask_NT, weight * tokens.advantage_NT, 0.0)
        return Push(push, counts={"clipped": ((weight != ratio) & tokens.mask_NT).sum()})
