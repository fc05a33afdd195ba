"""MinPRO: the ratio of a token times the smallest before it, in the place of the product of all before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ebpo_sim.objectives.base import Push, Scope, Tokens, between, check_bounds, library, log_ratio, widths
from ebpo_sim.objectives.rows import Scored
from ebpo_sim.part import Draw


@dataclass(frozen=True)
class MinPRO(Scored):
    """J = sg(clip(m r, 1 - low, 1 + high)) A log pi, r = exp(log pi - log old), m the least r of the tokens before.

    push = clip(m r, 1 - low, 1 + high) A; m is 1 at an answer's first token, which the sources leave open. Unbiased
    would be the product of all r so far. Answers of one token: CISPO. low, high: the paper's are not in what was read;
    CISPO's stand here. limit: nats within which a token's log-ratio is held.
    Source: arXiv 2601.22718, formula second-hand (abstract and a digest agree).
    """

    low: float | None = None
    high: float | None = 0.2
    limit: float = 20.0

    scope: ClassVar[Scope] = "sequence"

    def check_settings(self) -> None:
        check_bounds("minpro", self.limit, self.low, self.high)

    def push(self, state: Any, tokens: Tokens, draw: Draw | None = None) -> Push:
        xp = library(tokens.log_prob_NT)
        difference, _ = log_ratio(tokens, self.limit)
        seen = xp.where(tokens.mask_NT, difference, self.limit)  # what no token is cannot be the least
        least = np.minimum.accumulate(seen, -1) if xp is np else xp.cummin(seen, -1).values
        first = tokens.mask_NT & (tokens.mask_NT.cumsum(-1) == 1)
        before = xp.where(first, 0.0, _shifted(xp, least))
        ratio = xp.exp(between(xp.where(tokens.mask_NT, difference + before, 0.0), -700.0, 700.0))
        weight = between(ratio, *widths(self.low, self.high))
        push = xp.where(tokens.mask_NT, weight * tokens.advantage_NT, 0.0)
        return Push(push, counts={"clipped": ((weight != ratio) & tokens.mask_NT).sum()})


def _shifted(xp: Any, x_NT: Any) -> Any:
    """Each column's left neighbour; 0 in the first."""
    left = xp.zeros_like(x_NT)
    left[:, 1:] = x_NT[:, :-1]
    return left
