"""Skipping prompts whose last groups were silent, the more surely the more of them in a row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ebpo_sim import typed
from ebpo_sim.errors import InputError
from ebpo_sim.estimators.memory import State, empty, keys, table
from ebpo_sim.groups import Groups
from ebpo_sim.numbers import Array
from ebpo_sim.sampling.base import Pool
from ebpo_sim.sampling.ranked import Ranked
from ebpo_sim.sampling.recall import Recall, Weighing

BITS = 8  # by which a visit divides what is remembered of live groups


@dataclass(frozen=True)
class SkipSilent(Ranked, Recall):
    """The pool in a fresh random order; prompt i is skipped with probability 1 - explore^z_i, z_i the visits in a row,
    up to the last, at which all its rewards were equal. If too few are left, those skipped follow in their order.

    The rule of GRESO (arXiv 2506.02177), which also moves `explore` towards a wished share of silent groups, apart for
    those that all pass and all fail: that schedule is left out, so this is a name of ours, and explore 0.5 too. No
    prompt is ever left out for good. D_i = u if not skipped, else 1 + u, u uniform on (0, 1) (`ranked`). omega_i is
    proportional to explore^z_i. z is read from the memory: live groups l <- l/2^8 + (live groups now), so that
    z = -floor(log2(l)/8); up to 2^8 groups of one prompt in a batch, and z counts all visits beyond about 130.
    """

    explore: float = 0.5
    weights: Weighing = "none"

    retention = 2.0**-BITS

    def __post_init__(self) -> None:
        typed.check_fields(self)
        if not 0 < self.explore <= 1:
            raise InputError(f"skip_silent explore must lie in (0, 1], got {self.explore}: 1 skips nothing")

    def observe(self, groups: Groups) -> State:
        """Groups and live groups of every prompt."""
        assert groups.prompt_P is not None  # since `needs`
        there_P = groups.size_P > 0
        live_P = there_P & ~groups.degenerate_P
        return empty(), table(keys(groups.prompt_P), there_P.astype(np.float64), live_P.astype(np.float64))

    def silent_visits(self, state: State, pool: Pool) -> Array:
        """z of every prompt, at least 0."""
        _, live_P, visits_P = self.of_pool(state, pool)
        _, exponent_P = np.frexp(live_P)  # 2^(exponent - 1) <= live < 2^exponent
        since_P = np.maximum(-((exponent_P - 1) // BITS), 0)
        return np.where(live_P > 0, since_P, visits_P)

    def knowledge(self, state: State, pool: Pool) -> Array:
        """The probability that a prompt is not skipped."""
        return np.asarray(self.explore ** self.silent_visits(state, pool))

    def ranks(self, known: Array, rng: np.random.Generator) -> Array:
        """Those not skipped lie in (0, 1), the others in (1, 2)."""
        place_P, luck_P = rng.random((2, len(known)))
        return np.asarray(place_P + (luck_P >= known))

    def below(self, known: Array, tau: float) -> Array:
        """known x tau up to 1, then the skipped ones."""
        return known * min(tau, 1.0) + (1 - known) * max(tau - 1.0, 0.0)
