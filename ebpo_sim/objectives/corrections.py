"""Corrections for a sampler that is not the old policy: the others' advantages are weighed by old/sampler, bounded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from ebpo_sim.errors import InputError
from ebpo_sim.objectives.base import Formula, Objective, Push, Scope, Tokens, between, check_bounds, library, require
from ebpo_sim.part import Draw, Need

Level = Literal["token", "sequence"]


@dataclass(frozen=True)
class TIS(Formula):
    """Truncated: weight min(w, high), w = exp(log old - log sampler) of a token, or of the whole answer.

    The correction pushes nothing itself: it multiplies the advantages that the method's other objectives see, and so
    no divergence or bonus, as in TRL. In expectation w makes the sampler's answers the old policy's; what is cut off
    is the bias. high: 2. verl: algorithm.rollout_correction.rollout_is; TRL: vllm_importance_sampling_mode.
    limit: nats within which log w is held. Source: Yao et al., "Your Efficient RL Framework Secretly Brings You
    Off-Policy RL Training" (2025).
    """

    high: float = 2.0
    level: Level = "token"
    limit: float = 20.0

    needs: ClassVar[frozenset[Need]] = frozenset({"behaviour"})
    low: ClassVar[float] = 0.0
    scope: ClassVar[Scope] = "sequence"

    def check_settings(self) -> None:
        check_bounds("tis", self.limit)
        if not 0 <= self.low <= 1 <= self.high <= 1e6:
            raise InputError(f"{type(self).__name__.lower()} needs low in [0, 1] and high in [1, 1e6], got {self.high}")

    def weight(self, tokens: Tokens) -> Any:
        """(N, T) or (N, 1): what advantages are multiplied by."""
        return between(self._ratio(tokens), self.low, self.high)

    def _ratio(self, tokens: Tokens) -> Any:
        xp = library(tokens.log_prob_NT)
        sampler = require(tokens, "behaviour", type(self).__name__.lower())
        difference = xp.where(tokens.mask_NT, tokens.old_NT - sampler, 0.0)
        if self.level == "sequence":
            difference = difference.sum(-1)[:, None]
        return xp.exp(between(difference, -self.limit, self.limit))

    def push(self, state: Any, tokens: Tokens, draw: Draw | None = None) -> Push:
        ratio, xp = self._ratio(tokens), library(tokens.log_prob_NT)
        changed = (self.weight(tokens) != ratio) & tokens.mask_NT
        return Push(xp.zeros_like(tokens.log_prob_NT), counts={"corrected": changed.sum()})

    def value(self, state: Any, tokens: Tokens, held: Tokens) -> Any:
        require(tokens, "behaviour", type(self).__name__.lower())
        return 0.0 * library(tokens.log_prob_NT).where(tokens.mask_NT, tokens.log_prob_NT, 0.0)


@dataclass(frozen=True)
class IcePop(TIS):
    """Masked: weight w where it lies in [low, high], else 0; [0.5, 5] in the paper (arXiv 2510.18855, Ring-1T)."""

    high: float = 5.0
    low: float = 0.5  # type: ignore[misc]

    def weight(self, tokens: Tokens) -> Any:
        ratio = self._ratio(tokens)
        return library(ratio).where((ratio >= self.low) & (ratio <= self.high), ratio, 0.0)


@dataclass(frozen=True)
class MIS(IcePop):
    """Masked from above alone, whole answers: weight w where it is at most high, else 0; TRL's default, 3."""

    high: float = 3.0
    low: float = 0.0  # type: ignore[misc]
    level: Level = "sequence"


def corrected(objectives: Sequence[Objective], tokens: Tokens) -> Tokens:
    """The tokens with the advantages that the corrections among the objectives leave."""
    for correction in objectives:
        if isinstance(correction, TIS):
            tokens = tokens._replace(advantage_NT=tokens.advantage_NT * correction.weight(tokens))
    return tokens
