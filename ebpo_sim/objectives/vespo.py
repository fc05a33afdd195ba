"""VESPO: the whole answer's importance weight, reshaped smoothly and detached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ebpo_sim.errors import InputError
from ebpo_sim.objectives.base import Push, Scope, Tokens, between, check_bounds, library
from ebpo_sim.objectives.rows import Scored, row_log_ratio
from ebpo_sim.part import Draw

SMALLEST = -18.420680743952367  # log 1e-8, where the released code holds the weight


@dataclass(frozen=True)
class VESPO(Scored):
    """J = sg(phi(w)) A log pi, phi(w) = w^k exp(rate (1 - w)), w = pi(answer)/old(answer), not its root.

    push = phi A: A on-policy, largest at w = k/rate. (k, rate) is (up_power, up_rate) where A >= 0, else
    (down_power, down_rate): (2, 3) and (3, 2) in TRL. limit: nats within which a token's log-ratio is held, and log w
    from above; from below it is at least log 1e-8. TRL: loss_type="vespo", under token_mean weights.
    Source: arXiv 2602.10693 (abstract) and TRL's implementation of it.
    """

    up_power: float = 2.0
    up_rate: float = 3.0
    down_power: float = 3.0
    down_rate: float = 2.0
    limit: float = 20.0

    scope: ClassVar[Scope] = "sequence"

    def check_settings(self) -> None:
        check_bounds("vespo", self.limit)
        for name in ("up_power", "down_power", "up_rate", "down_rate"):
            if not 1e-4 <= getattr(self, name) <= 100:
                raise InputError(f"vespo {name} must lie in [0.0001, 100], got {getattr(self, name)}: 2 is usual")

    def push(self, state: Any, tokens: Tokens, draw: Draw | None = None) -> Push:
        xp, up = library(tokens.log_prob_NT), tokens.advantage_NT >= 0
        log_weight = between(row_log_ratio(tokens, self.limit, mean=False), SMALLEST, self.limit)
        excess = 1 - xp.exp(log_weight)
        rise, fall = (k * log_weight + rate * excess for k, rate in (
            (self.up_power, self.up_rate), (self.down_power, self.down_rate)))  # fmt: skip
        weight = xp.exp(xp.where(up, rise, fall))
        return Push(xp.where(tokens.mask_NT, weight * tokens.advantage_NT, 0.0))
