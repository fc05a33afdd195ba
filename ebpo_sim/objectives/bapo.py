"""BAPO: a clip whose bounds are widened, batch by batch, until good answers carry their share of the objective."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from ebpo_sim.errors import InputError
from ebpo_sim.objectives.base import Formula, Push, Scope, Tokens, between, check_bounds, library, log_ratio
from ebpo_sim.objectives.clip import Clip
from ebpo_sim.part import Draw


@dataclass(frozen=True)
class BAPO(Formula):
    """Clip with the ratio within [low, high], the first pair on the way from (low_from, high_from) for which

    sum over A > 0 of |J| >= share * sum of |J|, J = old min(r A, clip(r, low, high) A), or the last, (low_to, high_to).
    On the way `high` rises by high_step to its end, then `low` by low_step (order="high_first", the paper's), or the
    other way round (its code); old, the sampler's probability, is left out with weighted=false (its code).
    A larger `low` can only raise the share of A < 0 in this sum, so once `high` has met its end `low` runs to its own;
    it is the gradient's share that it lowers. Defaults: the paper's, by a digest; the README has share 0.5, the
    scripts other ranges still. Source: arXiv 2510.18927 (second-hand) and its code.
    """

    share: float = 0.4
    low_from: float = 0.6
    low_to: float = 0.9
    high_from: float = 1.2
    high_to: float = 3.0
    low_step: float = 0.02
    high_step: float = 0.05
    order: Literal["high_first", "low_first"] = "high_first"
    weighted: bool = True
    limit: float = 20.0

    scope: ClassVar[Scope] = "batch"
    zero_at_zero: ClassVar[bool] = True  # they add nothing to either sum

    def check_settings(self) -> None:
        check_bounds("bapo", self.limit)
        if not 0 <= self.share <= 1:
            raise InputError(f"bapo share must lie in [0, 1], got {self.share}: 0.4 is usual")
        if not 0 < self.low_from <= self.low_to <= 1 <= self.high_from <= self.high_to <= 100:
            raise InputError(
                f"bapo needs 0 < low_from <= low_to <= 1 <= high_from <= high_to <= 100, got {self.low_from}, "
                f"{self.low_to}, {self.high_from}, {self.high_to}: 0.6, 0.9, 1.2, 3 are usual"
            )
        if min(self.low_step, self.high_step) < 1e-3:
            raise InputError(f"bapo steps must be at least 0.001, got {self.low_step} and {self.high_step}")

    def push(self, state: Any, tokens: Tokens, draw: Draw | None = None) -> Push:
        return self._clip(tokens).push((), tokens)

    def value(self, state: Any, tokens: Tokens, held: Tokens) -> Any:
        return self._clip(held).value((), tokens, held)

    def bounds(self, tokens: Tokens) -> tuple[float, float]:
        """(low, high) for this batch."""
        xp, advantage = library(tokens.log_prob_NT), tokens.advantage_NT
        ratio = xp.exp(log_ratio(tokens, self.limit)[0])
        size = xp.where(tokens.mask_NT, xp.abs(advantage), 0.0)
        if self.weighted:
            size = size * xp.exp(xp.where(tokens.mask_NT, between(tokens.old_NT, -700.0, 0.0), 0.0))
        low, high = self.low_from, self.high_from
        order = ("high", "low") if self.order == "high_first" else ("low", "high")
        while True:
            good = float(xp.where(advantage > 0, size * between(ratio, 0.0, high), 0.0).sum())
            bad = float(xp.where(advantage < 0, size * between(ratio, low, float("inf")), 0.0).sum())
            room = {"high": self.high_to - high > 1e-9, "low": self.low_to - low > 1e-9}
            which = next((name for name in order if room[name]), None)
            if good >= self.share * (good + bad) or which is None:
                return low, high
            high = round(min(high + self.high_step, self.high_to), 9) if which == "high" else high
            low = round(min(low + self.low_step, self.low_to), 9) if which == "low" else low

    def _clip(self, tokens: Tokens) -> Clip:
        low, high = self.bounds(tokens)
        return Clip(1 - low, high - 1, limit=self.limit)
