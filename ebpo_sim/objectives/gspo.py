"""GSPO: one ratio an answer, the geometric mean of its tokens', clipped as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ebpo_sim.objectives.base import Formula, Push, Scope, Tokens, between, check_bounds, library, widths
from ebpo_sim.objectives.rows import row_log_ratio
from ebpo_sim.part import Draw


@dataclass(frozen=True)
class GSPO(Formula):
    """J = min(s A, clip(s, 1 - low, 1 + high) A) at every token, s = (pi(answer)/old(answer))^(1/tokens).

    push = s A, and 0 where the clip holds it. With one advantage an answer the gradient is that of the sequence form,
    under sequence_mean weights; with one a token it is GSPO-token's, whose value this is: sg(s) pi/sg(pi).
    Under sequence_sum it is LUSPO (arXiv 2602.05261; TRL's luspo). Answers of one token: Clip.
    low, high: 3e-4 and 4e-4 in the paper, where Clip has 0.2 and 0.27; a host's own are those of a token's ratio.
    verl (loss_mode gspo) holds log s below 10, TRL (importance_sampling_level="sequence") nowhere; here a token's
    log-ratio is held within limit. Source: arXiv 2507.18071 section 4; settings from TRL's paper index.
    """

    low: float | None = 3e-4
    high: float | None = 4e-4
    limit: float = 20.0

    scope: ClassVar[Scope] = "sequence"

    def check_settings(self) -> None:
        check_bounds("gspo", self.limit, self.low, self.high)

    def push(self, state: Any, tokens: Tokens, draw: Draw | None = None) -> Push:
        xp = library(tokens.log_prob_NT)
        ratio = xp.exp(row_log_ratio(tokens, self.limit))
        free = ratio * tokens.advantage_NT
        held = (between(ratio, *widths(self.low, self.high)) * tokens.advantage_NT < free) & tokens.mask_NT
        return Push(xp.where(tokens.mask_NT & ~held, free, 0.0), counts={"clipped": held.sum()})

    def value(self, state: Any, tokens: Tokens, held: Tokens) -> Any:
        xp = library(tokens.log_prob_NT)
        moved = xp.where(tokens.mask_NT, tokens.log_prob_NT - held.log_prob_NT, 0.0)
        ratio = xp.exp(row_log_ratio(held, self.limit) + moved)
        bounded = between(ratio, *widths(self.low, self.high))
        surrogate = xp.minimum(ratio * tokens.advantage_NT, bounded * tokens.advantage_NT)
        return xp.where(tokens.mask_NT, surrogate, 0.0)
