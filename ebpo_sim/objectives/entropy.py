"""An entropy bonus: the policy's own entropy as a term of the objective."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ebpo_sim.objectives.base import Formula, Push, Tokens, library, require
from ebpo_sim.part import Draw, Need


@dataclass(frozen=True)
class EntropyBonus(Formula):
    """J = coef H(pi(. | prefix)) at every token, nats, differentiated exactly: push 0 on log pi, coef on H.

    coef < 0 takes entropy away. Source: Williams and Peng 1991; PPO arXiv 1707.06347 eq. 9.
    """

    coef: float = 0.001

    needs: ClassVar[frozenset[Need]] = frozenset({"entropy"})
    zero_at_zero: ClassVar[bool] = False

    def push(self, state: Any, tokens: Tokens, draw: Draw | None = None) -> Push:
        xp = library(tokens.log_prob_NT)
        none = xp.zeros_like(tokens.log_prob_NT)
        return Push(none, xp.where(tokens.mask_NT, none + self.coef, 0.0))

    def value(self, state: Any, tokens: Tokens, held: Tokens) -> Any:
        xp = library(tokens.log_prob_NT)
        return xp.where(tokens.mask_NT, self.coef * require(tokens, "entropy", "entropy"), 0.0)
