"""DPPO: a token is dropped once its probability, not its ratio, has moved too far the way its advantage points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ebpo_sim.errors import InputError
from ebpo_sim.objectives.base import Formula, Push, Tokens, between, check_bounds, library, log_ratio
from ebpo_sim.part import Draw


@dataclass(frozen=True)
class DPPO(Formula):
    """J = sg(M) r A, r = exp(log pi - log old), M = 0 where A (r - 1) > 0 and |pi - old| > divergence, else 1.

    |pi - old| on the sampled token is the total variation of "this token or another", at most that of the whole
    distributions; DPPOKL has the paper's binary KL, its top-K is not here. push = M r A. divergence: 0.15 in verl; at 1
    nothing is dropped, the unclipped Clip. cap: None as in the paper, above 0 as in the released code, which climbs
    sg(M min(r, cap)) A log pi: push = M min(r, cap) A (cap 10 in Stable-RL, 20 in verl). The paper's old policy is the
    sampler itself: a host that keeps the sampler's log-probabilities hands them over as old. counts "clipped": tokens
    dropped. limit: nats beyond which the log-ratio is held and pushes nothing, but for the cap, whose weight is held.
    Source: arXiv 2602.04879.
    """

    divergence: float = 0.15
    cap: float | None = None
    limit: float = 20.0

    def check_settings(self) -> None:
        check_bounds("dppo", self.limit)
        if not 0 <= self.divergence <= 1:
            raise InputError(
                f"dppo divergence must lie in [0, 1], got {self.divergence}: 0.15 is usual, 1 drops nothing"
            )
        if self.cap is not None and not 1 <= self.cap <= 1e6:
            raise InputError(f"dppo cap must lie in [1, 1e6], got {self.cap}: 10 is usual, none for no cap")

    def push(self, state: Any, tokens: Tokens, draw: Draw | None = None) -> Push:
        xp = library(tokens.log_prob_NT)
        difference, inside = log_ratio(tokens, self.limit)
        dropped = self._dropped(tokens, difference)
        ratio = xp.exp(difference)
        if self.cap is not None:
            ratio, inside = between(ratio, 0.0, self.cap), tokens.mask_NT
        moving = inside & ~dropped
        return Push(xp.where(moving, ratio * tokens.advantage_NT, 0.0), counts={"clipped": dropped.sum()})

    def _dropped(self, tokens: Tokens, difference: Any) -> Any:
        xp = library(tokens.log_prob_NT)
        held = (xp.where(tokens.mask_NT, x, 0.0) for x in (tokens.log_prob_NT, tokens.old_NT))
        now, old = (xp.exp(between(x, -float("inf"), 0.0)) for x in held)  # rounding may leave a log above 0
        far = self._divergence(now, old) > self.divergence
        return far & self._away(difference * tokens.advantage_NT) & tokens.mask_NT

    def _divergence(self, now: Any, old: Any) -> Any:
        """Between "this token" and "another" under both policies."""
        return library(now).abs(now - old)

    def _away(self, worth: Any) -> Any:
        """Whether the update would lead further off."""
        return worth > 0

    def value(self, state: Any, tokens: Tokens, held: Tokens) -> Any:
        xp = library(tokens.log_prob_NT)
        now, at = (log_ratio(t, self.limit)[0] for t in (tokens, held))
        worth = xp.exp(now)
        if self.cap is not None:
            worth = between(xp.exp(at), 0.0, self.cap) * xp.where(tokens.mask_NT, tokens.log_prob_NT, 0.0)
        return xp.where(tokens.mask_NT & ~self._dropped(held, at), worth * tokens.advantage_NT, 0.0)


@dataclass(frozen=True)
class DPPOKL(DPPO):
    """DPPO with KL(old, pi) of "this token or another" in the place of the total variation, nats.

    old log(old/pi) + (1 - old) log((1 - old)/(1 - pi)) > divergence, 0.05 in verl (loss_mode dppo_kl), which has both
    complements plus 1e-8, as here. At least twice the squared total variation (Pinsker).
    """

    divergence: float = 0.05

    def _divergence(self, now: Any, old: Any) -> Any:
        log, tiny = library(now).log, 1e-8
        either = library(now).where(old > 0, old * (log(old + 1e-300) - log(now + 1e-300)), 0.0)
        return either + (1 - old) * log((1 - old + tiny) / (1 - now + tiny))


@dataclass(frozen=True)
class IPO(DPPO):
    """DPPO that drops a token whichever way it has moved: M = 0 where |pi - old| > divergence, 0.3 in prime-rl.

    A token that has gone too far is not pulled back either. prime-rl, whose default loss this is, has the sampler as
    old, and adds a penalty on the squared log-ratio.
    """

    divergence: float = 0.3

    def _away(self, worth: Any) -> Any:
        return worth == worth
