"""What an objective is: a coefficient on the score function of every token.

    J climbs   sum over tokens  alpha * push * grad log pi(token)  +  sum  alpha * entropy_push * grad H(token)

with alpha the weights of an aggregation rule (`aggregation.py`). One array function serves every rung: arrays are
NumPy's or torch's, and come back in their library. A torch host descends -(alpha * push.detach() * log_prob).sum().
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import numpy as np

from ebpo_sim.errors import InputError
from ebpo_sim.part import REMEDIES, Draw, Need, Part, Stateless

Scope = Literal["token", "sequence", "group", "batch"]


class LogRatio(NamedTuple):
    """log pi - log old, nats, 0 where the mask is False, and its largest size. (1, 1), to be broadcast, where it is the
    same everywhere: on-policy, where all that is computed of it is computed once."""

    value_NT: Any
    largest: float


class Tokens(NamedTuple):
    """Rollouts of one batch as rows, N rollouts by T tokens; arrays of ONE library. Log-probabilities in nats.

    Objectives of scope "token" may be handed tokens in any other arrangement of rows and columns.

    log_prob_NT: of the policy now. old_NT: of the policy that the ratio starts from. mask_NT: True where a token
    counts; elsewhere the others may hold anything finite. advantage_NT: (N, T), or (N, 1) for one a rollout.
    group_N: number of each row's group. reference_NT: of the reference policy. entropy_NT: of the policy's whole
    distribution at the token. behaviour_NT: of the sampler itself, where it is not the old policy. log_ratio: of
    log_prob_NT and old_NT, from hosts that have computed it already; ask for it by `log_ratio()`.
    """

    log_prob_NT: Any
    old_NT: Any
    mask_NT: Any
    advantage_NT: Any
    group_N: Any = None
    reference_NT: Any = None
    entropy_NT: Any = None
    behaviour_NT: Any = None
    log_ratio: LogRatio | None = None


class Push(NamedTuple):
    """log_prob_NT: the coefficient on grad log pi of every token, 0 where the mask is False. entropy_NT: the one on the
    gradient of its entropy, None where there is none. counts: how many tokens each named thing happened to."""

    log_prob_NT: Any
    entropy_NT: Any = None
    counts: Mapping[str, Any] = {}


class Objective(Part, Protocol):
    """A frozen dataclass of settings. scope: what the coefficient of one token depends on. zero_at_zero: an advantage
    of 0 gives push 0, so such rows may be left out exactly. A state is for objectives that adapt; () where none does,
    else after each mini-batch merge(forget(state), observe(its tokens)); a mini-batch may be observed in parts.
    """

    needs: ClassVar[frozenset[Need]]
    scope: ClassVar[Scope]

    @property
    def zero_at_zero(self) -> bool: ...

    def push(self, state: Any, tokens: Tokens, draw: Draw | None = None) -> Push:
        """The coefficients at `tokens`; never differentiated through."""

    def value(self, state: Any, tokens: Tokens, held: Tokens) -> Any:
        """(N, T) of which the push is the derivative in log_prob_NT at tokens = held; whatever the objective detaches
        (masks, capped weights) is taken at `held`."""


class Formula(Stateless):
    """An objective without memory; of single tokens, and one that pushes no token of advantage 0, unless it says so."""

    scope: ClassVar[Scope] = "token"
    zero_at_zero: ClassVar[bool] = True


def library(x: Any) -> Any:
    """The module whose functions take `x`: numpy, or torch, which is not imported for it."""
    return np if isinstance(x, np.ndarray | np.generic) else sys.modules["torch"]


def between(x: Any, low: float, high: float) -> Any:
    """x held within [low, high]; for NumPy two plain ufuncs, which on small arrays cost a third of its clip."""
    xp = library(x)
    return np.minimum(np.maximum(x, low), high) if xp is np else xp.clip(x, low, high)


def log_ratio(tokens: Tokens, limit: float) -> tuple[Any, Any]:
    """(log pi - log old held within ±limit nats, where the mask is True and it was inside), 0 where the mask is False;
    the first may be (1, 1), to be broadcast."""
    if tokens.log_ratio is not None and tokens.log_ratio.largest <= limit:
        return tokens.log_ratio.value_NT, tokens.mask_NT
    xp = library(tokens.log_prob_NT)
    difference = xp.where(tokens.mask_NT, tokens.log_prob_NT - tokens.old_NT, 0.0)
    bounded = between(difference, -limit, limit)
    return bounded, tokens.mask_NT & (bounded == difference)


def widths(low: float | None, high: float | None) -> tuple[float, float]:
    """(1 - low, 1 + high), between which a ratio is held; 0 and infinity where there is no bound."""
    return (0.0 if low is None else 1 - low), (float("inf") if high is None else 1 + high)


def check_bounds(who: str, limit: float, low: float | None = None, high: float | None = None) -> None:
    """Raises InputError unless low lies in [0, 1) and high is at least 0, where there is one, and for nats that exp
    cannot take."""
    if low is not None and not 0 <= low < 1:
        raise InputError(f"{who} low must lie in [0, 1), got {low}: 0.2 is usual, none for no lower bound")
    if high is not None and high < 0:
        raise InputError(f"{who} high must be at least 0, got {high}: 0.2 is usual, none for no upper bound")
    if not 0 < limit <= 700:
        raise InputError(f"{who} limit must lie in (0, 700] nats, got {limit}: 20 is usual")


def sech_squared(x: Any) -> Any:
    """sech(x)^2 without overflow and with all its digits where it is small."""
    xp = library(x)
    small = xp.exp(-2 * xp.abs(x))
    return 4 * small / (1 + small) ** 2


def require(tokens: Tokens, need: Need, who: str) -> Any:
    """The field of `tokens` that `need` names. Raises InputError where the host did not fill it."""
    found = {
        "reference": tokens.reference_NT,
        "entropy": tokens.entropy_NT,
        "behaviour": tokens.behaviour_NT,
    }[need]
    if found is None:
        raise InputError(f"{who} needs {need}, which this batch does not carry: {REMEDIES[need]}")
    return found
