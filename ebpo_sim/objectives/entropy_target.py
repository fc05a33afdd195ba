"""An entropy bonus whose coefficient rises while the entropy is below a target and falls while it is above."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from ebpo_sim import typed
from ebpo_sim.errors import InputError
from ebpo_sim.objectives.base import Push, Scope, Tokens, library, require
from ebpo_sim.part import Draw, Need


class Control(NamedTuple):
    """coef: after all batches but the last; total, tokens: the last batch's sum of entropies and its tokens."""

    coef: float
    total: float
    tokens: float


@dataclass(frozen=True)
class EntropyTarget(typed.Settings):
    """J = c H at every token, H the entropy of the policy there in nats; push 0 on log pi, c on H.

    After each mini-batch c moves by step, up where its mean H was below `target`, else down, within [0, most], and is
    used only while H is below the target. From c = 0. After
    Skywork-OR1's adaptive entropy control, which moves c once a training step and puts no bound on it; the defaults
    were not held against its text. Source: arXiv 2505.22312.
    """

    target: float = 0.2
    step: float = 0.005
    most: float = 0.1

    needs: ClassVar[frozenset[Need]] = frozenset({"entropy"})
    scope: ClassVar[Scope] = "token"
    zero_at_zero: ClassVar[bool] = False

    def check_settings(self) -> None:
        if min(self.target, self.step, self.most) < 0:
            raise InputError(
                f"entropy_target target, step and most must be at least 0, got {self.target}, {self.step}, {self.most}"
            )

    def init(self) -> Control:
        return Control(0.0, 0.0, 0.0)

    def observe(self, seen: Tokens) -> Control:
        xp = library(seen.log_prob_NT)
        entropy = xp.where(seen.mask_NT, require(seen, "entropy", "entropy_target"), 0.0)
        return Control(0.0, float(entropy.sum()), float(seen.mask_NT.sum()))

    def forget(self, state: Control) -> Control:
        """The state once its last batch has moved the coefficient."""
        if not state.tokens:
            return state
        step = self.step if state.total < self.target * state.tokens else -self.step
        return Control(min(max(state.coef + step, 0.0), self.most), 0.0, 0.0)

    def merge(self, a: Control, b: Control) -> Control:
        return Control(a.coef + b.coef, a.total + b.total, a.tokens + b.tokens)

    def coefficient(self, state: Control) -> float:
        """c for the next mini-batch."""
        below = state.tokens and state.total < self.target * state.tokens
        return self.forget(state).coef if below else 0.0

    def push(self, state: Control, tokens: Tokens, draw: Draw | None = None) -> Push:
        xp = library(tokens.log_prob_NT)
        none = xp.zeros_like(tokens.log_prob_NT)
        return Push(none, xp.where(tokens.mask_NT, none + self.coefficient(state), 0.0))

    def value(self, state: Control, tokens: Tokens, held: Tokens) -> Any:
        entropy = require(tokens, "entropy", "entropy_target")
        return library(entropy).where(tokens.mask_NT, self.coefficient(state) * entropy, 0.0)
