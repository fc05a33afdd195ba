"""MHPO: the log-ratio is bounded smoothly and a detached hazard damps what has moved far, either way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ebpo_sim.errors import InputError
from ebpo_sim.objectives.base import Formula, Push, Tokens, check_bounds, library, log_ratio, sech_squared
from ebpo_sim.part import Draw


@dataclass(frozen=True)
class MHPO(Formula):
    """J = exp(psi - sg(zeta)) A, psi = bound tanh(log r / bound), log r = log pi - log old, with the hazard

    zeta = (softplus(psi)/up_scale)^up_power + (softplus(-psi)/down_scale)^down_power.
    push = M(r) A, M = exp(psi - zeta) sech^2(log r / bound): 0.265 at r = 1, at most 0.396 (r = 1.78) by the defaults,
    so an update is a quarter of the unclipped one even on-policy. Huge scales: no hazard; a huge bound too: the
    unclipped Clip. limit: nats beyond which the log-ratio is held and pushes nothing.
    Source: arXiv 2603.16929, formula and defaults second-hand (two digests agree); no released code was found.
    """

    bound: float = 1.5
    up_power: float = 1.5
    up_scale: float = 1.0
    down_power: float = 2.0
    down_scale: float = 0.8
    limit: float = 20.0

    def check_settings(self) -> None:
        check_bounds("mhpo", self.limit)
        for name in ("bound", "up_scale", "down_scale"):
            if getattr(self, name) < 1e-3:
                raise InputError(f"mhpo {name} must be at least 0.001, got {getattr(self, name)}: about 1 is usual")
        for name in ("up_power", "down_power"):
            if not 0 < getattr(self, name) <= 10:
                raise InputError(f"mhpo {name} must lie in (0, 10], got {getattr(self, name)}: 1.5 and 2 are usual")

    def push(self, state: Any, tokens: Tokens, draw: Draw | None = None) -> Push:
        xp = library(tokens.log_prob_NT)
        difference, inside = log_ratio(tokens, self.limit)
        psi = self._bounded(difference)
        weight = xp.exp(psi - self._hazard(psi)) * sech_squared(difference / self.bound)
        return Push(xp.where(inside, weight * tokens.advantage_NT, 0.0))

    def _bounded(self, difference: Any) -> Any:
        return self.bound * library(difference).tanh(difference / self.bound)

    def _hazard(self, psi: Any) -> Any:
        xp = library(psi)
        up, down = xp.log1p(xp.exp(psi)), xp.log1p(xp.exp(-psi))
        return (up / self.up_scale) ** self.up_power + (down / self.down_scale) ** self.down_power

    def value(self, state: Any, tokens: Tokens, held: Tokens) -> Any:
        xp = library(tokens.log_prob_NT)
        psi, at = (self._bounded(log_ratio(t, self.limit)[0]) for t in (tokens, held))
        return xp.where(tokens.mask_NT, xp.exp(psi - self._hazard(at)) * tokens.advantage_NT, 0.0)
