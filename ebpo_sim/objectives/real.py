"""REAL: answers as examples to classify, right from wrong, by how much likelier the policy has made them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ebpo_sim.errors import InputError
from ebpo_sim.objectives.base import Push, Scope, Tokens, check_bounds, library
from ebpo_sim.objectives.rows import Members, Scored, row_log_ratio, side_N
from ebpo_sim.part import Draw


@dataclass(frozen=True)
class REAL(Scored):
    """J = - log(1 + sum over right answers exp(-s/tau)) - log(1 + sum over wrong ones exp(s/tau)) of each group,
    s = mean over the answer's tokens of log pi - log old.

    push = rows of the group times exp(-s/tau)/(tau (1 + the sum)) on right answers, minus the like on wrong ones, so
    that sequence_mean weights give the mean over groups; at most rows/tau. Right and wrong is the sign of the
    advantage (0: neither), its size is not used. tau: 0.5 is ours, the paper's was not in what was read. limit: nats
    within which a token's log-ratio is held. Source: arXiv 2602.05630, formula as the authors' README prints it.
    """

    tau: float = 0.5
    limit: float = 20.0

    scope: ClassVar[Scope] = "group"
    zero_at_zero: ClassVar[bool] = False  # a row counts among those of its group

    def check_settings(self) -> None:
        check_bounds("real", self.limit)
        if not 1e-3 <= self.tau <= 1e6:
            raise InputError(f"real tau must lie in [0.001, 1e6], got {self.tau}: 0.5 is usual")

    def push(self, state: Any, tokens: Tokens, draw: Draw | None = None) -> Push:
        xp, side, groups = library(tokens.log_prob_NT), side_N(tokens), Members(tokens.group_N)
        score = row_log_ratio(tokens, self.limit)[:, 0] / self.tau
        weight = xp.zeros_like(score)
        for sign in (1, -1):
            logit = xp.where(side == sign, -sign * score, -float("inf"))
            top = groups.largest(xp.where(logit > 0, logit, 0.0))
            mass = xp.exp(logit - top)
            weight = weight + sign * mass / (xp.exp(-top) + groups.sums(mass))
        scaled = weight * groups.sums(xp.ones_like(score)) / self.tau
        return Push(xp.where(tokens.mask_NT, scaled[:, None], 0.0))
