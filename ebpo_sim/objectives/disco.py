"""DisCO: right answers against the likeliest wrong ones, and a divergence that is held below a bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from ebpo_sim.errors import InputError
from ebpo_sim.objectives.base import Push, Scope, Tokens, between, check_bounds, library, log_ratio
from ebpo_sim.objectives.rows import Members, Scored, row_log_ratio, row_mean, side_N
from ebpo_sim.part import Draw


@dataclass(frozen=True)
class DisCO(Scored):
    """J = mean over right answers of s - tau log mean over wrong ones of exp(s/tau), of each group that has both, less
    beta max(0, K - delta)^2/2 of the batch; K = mean over answers, then tokens, of log old - log pi.

    s: the mean over tokens of log pi ("log_prob") or of the ratio ("ratio"). push = rows of the group times (1/rights,
    or minus the wrong one's share of the sum of exp(s/tau)), times the ratio for "ratio", plus beta max(0, K - delta):
    sequence_mean weights give the mean over groups. tau to infinity: DisCO-b, plain means. Right and wrong is the sign
    of the advantage (0: neither). Defaults: delta 1e-4, beta 1e3, tau 10 for "log_prob" and 1 for "ratio". The
    released K is a mean over tokens; here over answers first. limit: nats within which a token's log-ratio is held.
    Source: arXiv 2505.12366 and its code.
    """

    tau: float = 10.0
    score: Literal["log_prob", "ratio"] = "log_prob"
    delta: float = 1e-4
    beta: float = 1e3
    limit: float = 20.0

    scope: ClassVar[Scope] = "batch"
    zero_at_zero: ClassVar[bool] = False

    def check_settings(self) -> None:
        check_bounds("disco", self.limit)
        if not 1e-3 <= self.tau <= 1e12:
            raise InputError(f"disco tau must lie in [0.001, 1e12], got {self.tau}: 10 is usual, 1 for ratios")
        if self.delta < 0 or not 0 <= self.beta <= 1e9:
            raise InputError(f"disco delta and beta must be at least 0, got {self.delta} and {self.beta}")

    def push(self, state: Any, tokens: Tokens, draw: Draw | None = None) -> Push:
        xp, mask, side = library(tokens.log_prob_NT), tokens.mask_NT, side_N(tokens)
        groups, one = Members(tokens.group_N), xp.ones_like(side)
        ratio = xp.exp(log_ratio(tokens, self.limit)[0]) if self.score == "ratio" else xp.ones_like(tokens.log_prob_NT)
        score = row_mean(ratio if self.score == "ratio" else tokens.log_prob_NT, mask)[:, 0] / self.tau
        logit = xp.where(side < 0, score, -float("inf"))
        top = groups.largest(logit)
        mass = xp.where(side < 0, xp.exp(between(score - xp.where(side < 0, top, score), -700.0, 0.0)), 0.0)
        right, wrong = groups.sums(xp.where(side > 0, one, 0.0)), groups.sums(mass)
        share = xp.where(side > 0, one, 0.0) / (right + (right == 0)) - mass / (wrong + (wrong == 0))
        live = (right > 0) & (wrong > 0)
        pulled = xp.where(live, share * groups.sums(one), 0.0)[:, None] * ratio
        over = -row_log_ratio(tokens, self.limit).mean() - self.delta
        return Push(xp.where(mask, pulled + self.beta * between(over, 0.0, float("inf")), 0.0))
