"""A divergence to a reference policy as a term of the objective, by one of the three usual estimates a token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from ebpo_sim.errors import InputError
from ebpo_sim.objectives.base import Formula, Push, Tokens, between, library, require
from ebpo_sim.part import Draw, Need

Kind = Literal["k1", "k2", "k3"]


@dataclass(frozen=True)
class KL(Formula):
    """J = -coef k(d), d = log reference - log pi; the estimates of KL(pi, reference) from one sampled token:

    k1 = -d, push -coef (its expected gradient is 0: a penalty in name only); k2 = d^2/2, push coef d (the gradient
    of the true divergence in expectation, on-policy); k3 = exp(d) - d - 1, push coef (exp(d) - 1), GRPO's.
    clamp: no push where |k| exceeds it (verl: 10), None for no bound (TRL). limit: d is held within ±limit nats.
    Source: Schulman, "Approximating KL divergence" (2020); GRPO arXiv 2402.03300 eq. 4.
    """

    coef: float = 0.001
    kind: Kind = "k3"
    clamp: float | None = None
    limit: float = 20.0

    needs: ClassVar[frozenset[Need]] = frozenset({"reference"})
    zero_at_zero: ClassVar[bool] = False

    def check_settings(self) -> None:
        if self.coef < 0:
            raise InputError(f"kl coef must be at least 0, got {self.coef}: 0 leaves the divergence out")
        if (self.clamp is not None and self.clamp <= 0) or not 0 < self.limit <= 700:
            raise InputError(
                f"kl clamp and limit must be positive, got {self.clamp} and {self.limit}: 10 and 20 are usual"
            )

    def push(self, state: Any, tokens: Tokens, draw: Draw | None = None) -> Push:
        xp = library(tokens.log_prob_NT)
        d, moving = self._difference(tokens)
        slope = xp.expm1(d) if self.kind == "k3" else d if self.kind == "k2" else xp.zeros_like(d) - 1.0
        if self.clamp is not None:
            value = slope - d if self.kind == "k3" else d * d / 2 if self.kind == "k2" else xp.abs(d)
            moving = moving & (value <= self.clamp)
        return Push(xp.where(moving, self.coef * slope, 0.0))

    def value(self, state: Any, tokens: Tokens, held: Tokens) -> Any:
        xp = library(tokens.log_prob_NT)
        k = estimate(self._difference(tokens)[0], self.kind)
        if self.clamp is not None:
            k = between(k, -self.clamp, self.clamp)
        return xp.where(tokens.mask_NT, -self.coef * k, 0.0)

    def _difference(self, tokens: Tokens) -> tuple[Any, Any]:
        """(log reference - log pi held within ±limit nats, where the mask is True and it was inside)."""
        d = require(tokens, "reference", "kl") - tokens.log_prob_NT
        bounded = between(d, -self.limit, self.limit)
        return bounded, tokens.mask_NT & (bounded == d)


def estimate(d: Any, kind: Kind) -> Any:
    """k1, k2 or k3 of d = log reference - log pi, nats; NumPy or torch."""
    if kind == "k1":
        return -d
    return d * d / 2 if kind == "k2" else library(d).expm1(d) - d
