"""Clip-Cov and KL-Cov: the few tokens that take most of the entropy away are left out, or held to the old policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ebpo_sim.errors import InputError
from ebpo_sim.objectives.base import Formula, Push, Scope, Tokens, check_bounds, library, log_ratio
from ebpo_sim.objectives.clip import Clip
from ebpo_sim.part import Draw


def covariance(tokens: Tokens) -> Any:
    """(N, T) (log pi - its mean) (A - its mean), means over the batch's tokens; minus infinity where no token is. Its
    mean is the rate at which a natural gradient step takes entropy away (arXiv 2505.22617, theorem 2)."""
    xp, mask = library(tokens.log_prob_NT), tokens.mask_NT
    count = max(int(mask.sum()), 1)
    columns = xp.where(mask, tokens.log_prob_NT, 0.0), xp.where(mask, tokens.advantage_NT, 0.0)
    log_prob, advantage = (x - x.sum() / count for x in columns)
    return xp.where(mask, log_prob * advantage, -float("inf"))


def _flags(like_NT: Any, places: Any) -> Any:
    """(N, T) True at these places of the flattened array."""
    flags = np.zeros(tuple(like_NT.shape), dtype=bool)
    flags.reshape(-1)[places] = True
    xp = library(like_NT)
    return flags if xp is np else xp.as_tensor(flags, device=like_NT.device)


def _flat(x_NT: Any) -> Any:
    return x_NT.reshape(-1) if library(x_NT) is np else x_NT.reshape(-1).cpu().numpy()


@dataclass(frozen=True)
class ClipCov(Formula):
    """Clip, but for max(1, floor(share * tokens)) tokens that push nothing, drawn among the unclipped ones whose
    `covariance` lies between `least` and `most`.

    share 2e-4, least 1, most 5, and the ratio within [0, 1 + high] = [0, 2], in the released script. Without a draw the
    choice depends on the number of candidates alone. verl: loss_mode clip_cov. counts "clipped": those of the clip,
    "held_back": those that were drawn. Source: arXiv 2505.22617.
    """

    share: float = 2e-4
    least: float = 1.0
    most: float = 5.0
    low: float | None = None
    high: float | None = 1.0
    limit: float = 20.0

    scope: ClassVar[Scope] = "batch"
    zero_at_zero: ClassVar[bool] = False  # a row counts in the means

    def check_settings(self) -> None:
        check_bounds("clip_cov", self.limit, self.low, self.high)
        if not 0 < self.share <= 1 or self.least > self.most:
            raise InputError(
                f"clip_cov needs share in (0, 1] and least <= most, got {self.share}, {self.least}, {self.most}: "
                "0.0002, 1, 5 are usual"
            )

    def push(self, state: Any, tokens: Tokens, draw: Draw | None = None) -> Push:
        push, left = self._clip.push((), tokens), self._left(tokens, draw)
        kept = library(tokens.log_prob_NT).where(left, 0.0, push.log_prob_NT)
        return Push(kept, counts={**push.counts, "held_back": left.sum()})

    @property
    def _clip(self) -> Clip:
        return Clip(self.low, self.high, limit=self.limit)

    def _left(self, tokens: Tokens, draw: Draw | None) -> Any:
        """Where a token is left out; one that pushes nothing anyway is no candidate."""
        cov, moving = _flat(covariance(tokens)), _flat(self._clip.push((), tokens).log_prob_NT) != 0
        candidates = np.flatnonzero((cov > self.least) & (cov < self.most) & moving)
        number = max(1, int(self.share * int(tokens.mask_NT.sum())))
        rng = (draw or Draw(0, "clip_cov", len(candidates))).generator()
        return _flags(tokens.mask_NT, rng.permutation(candidates)[:number])

    def value(self, state: Any, tokens: Tokens, held: Tokens) -> Any:
        worth = self._clip.value((), tokens, held)
        return library(tokens.log_prob_NT).where(self._left(held, None), 0.0, worth)


@dataclass(frozen=True)
class KLCov(Formula):
    """J = r A - coef |log r| at the max(1, floor(share * tokens)) tokens of the largest `covariance`, r A elsewhere,
    r = exp(log pi - log old).

    push = r A, minus coef sign(log r) at those tokens. No clip. share 2e-3 (7B) and 2e-4 (32B and verl's default),
    coef 1. limit: nats beyond which the log-ratio is held and pushes nothing. verl: loss_mode kl_cov.
    Source: arXiv 2505.22617, which writes KL(old, pi) for |log r|.
    """

    share: float = 2e-3
    coef: float = 1.0
    limit: float = 20.0

    scope: ClassVar[Scope] = "batch"
    zero_at_zero: ClassVar[bool] = False

    def check_settings(self) -> None:
        check_bounds("kl_cov", self.limit)
        if not 0 < self.share <= 1 or not 0 <= self.coef <= 1e6:
            raise InputError(
                f"kl_cov needs share in (0, 1] and coef at least 0, got {self.share} and {self.coef}: "
                "0.002 and 1 are usual"
            )

    def push(self, state: Any, tokens: Tokens, draw: Draw | None = None) -> Push:
        xp = library(tokens.log_prob_NT)
        difference, inside = log_ratio(tokens, self.limit)
        pulled = xp.where(self._chosen(tokens), self.coef * xp.sign(difference), 0.0)
        return Push(xp.where(inside, xp.exp(difference) * tokens.advantage_NT - pulled, 0.0))

    def _chosen(self, tokens: Tokens) -> Any:
        cov, count = _flat(covariance(tokens)), int(tokens.mask_NT.sum())
        number = min(max(1, int(self.share * count)), count)
        return _flags(tokens.mask_NT, np.argsort(-cov, kind="stable")[:number])

    def value(self, state: Any, tokens: Tokens, held: Tokens) -> Any:
        xp = library(tokens.log_prob_NT)
        difference, _ = log_ratio(tokens, self.limit)
        held_back = xp.where(self._chosen(held), self.coef * xp.abs(difference), 0.0)
        return xp.where(tokens.mask_NT, xp.exp(difference) * tokens.advantage_NT - held_back, 0.0)
