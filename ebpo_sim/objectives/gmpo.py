"""GMPO: the geometric mean of token ratios that are clipped one by one, in logarithms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ebpo_sim.errors import InputError
from ebpo_sim.objectives.base import Formula, Push, Scope, Tokens, between, check_bounds, library, log_ratio
from ebpo_sim.objectives.rows import row_mean
from ebpo_sim.part import Draw


@dataclass(frozen=True)
class GMPO(Formula):
    """J = s A, s = exp(mean over the answer's tokens of c), c = log r held at most at `high` where A > 0, at least at
    -`low` where A < 0, log r = log pi - log old.

    push = s A, and 0 at tokens that are held; under sequence_mean weights. Nothing held: GSPO without a clip.
    low, high: in nats, 0.4 and 0.4 in the paper. verl: loss_mode geo_mean, whose clip_ratio are these; TRL:
    experimental.gmpo. limit: nats within which a log-ratio is held either way.
    Source: arXiv 2507.20673; verl's and TRL's code.
    """

    low: float = 0.4
    high: float = 0.4
    limit: float = 20.0

    scope: ClassVar[Scope] = "sequence"

    def check_settings(self) -> None:
        check_bounds("gmpo", self.limit)
        for name in ("low", "high"):
            if getattr(self, name) < 0:
                raise InputError(f"gmpo {name} must be at least 0 nats, got {getattr(self, name)}: 0.4 is usual")

    def push(self, state: Any, tokens: Tokens, draw: Draw | None = None) -> Push:
        xp = library(tokens.log_prob_NT)
        bounded, moving = self._bounded(tokens)
        push = xp.where(moving, xp.exp(row_mean(bounded, tokens.mask_NT)) * tokens.advantage_NT, 0.0)
        live = (tokens.advantage_NT != 0) & tokens.mask_NT
        return Push(push, counts={"clipped": (live & ~moving).sum()})

    def _bounded(self, tokens: Tokens) -> tuple[Any, Any]:
        """(c of every token, where it moves with log pi)."""
        xp, advantage = library(tokens.log_prob_NT), tokens.advantage_NT
        difference, inside = log_ratio(tokens, self.limit)
        below = xp.where(advantage > 0, between(difference, -self.limit, self.high), difference)
        bounded = xp.where(advantage < 0, between(below, -self.low, self.limit), below)
        return bounded, inside & (bounded == difference)

    def value(self, state: Any, tokens: Tokens, held: Tokens) -> Any:
        """Each token's share: s at `held` times the change of its own c, of which the push is the derivative."""
        xp = library(tokens.log_prob_NT)
        (now, _), (at, _) = self._bounded(tokens), self._bounded(held)
        worth = xp.exp(row_mean(at, tokens.mask_NT) + now - at) * tokens.advantage_NT
        return xp.where(tokens.mask_NT, worth, 0.0)
