"""What the four kinds of parts of a method share: needs, a mergeable state, and randomness as a value.

A part is a frozen dataclass of settings with pure functions. `needs` names what a batch must carry for it; a rung names
what it provides, and a pairing that cannot work is refused before anything runs.
"""

from __future__ import annotations

import hashlib
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import numpy as np

from ebpo_sim import typed

Need = Literal[
    "binary_rewards",
    "lengths",
    "prompt_ids",
    "clusters",
    "log_probs",
    "reference",
    "entropy",
    "behaviour",
    "true_prior",
    "prompt_choice",
    "batch_choice",
    "pass_rates",
    "score_norms",
    "token_weights",
    "answers",
    "components",
    "greedy_reward",
    "rollout_order",
]
REMEDIES: dict[Need, str] = {
    "binary_rewards": "threshold the rewards at 0 and 1",
    "lengths": "pass lengths=, the tokens of every rollout",
    "prompt_ids": "pass prompt_ids=, one stable id a prompt",
    "clusters": "pass clusters=, one topic a prompt",
    "log_probs": "use a rung with a policy of tokens",
    "reference": "keep a copy of the starting policy",
    "entropy": "compute every token's entropy, not its log-probability alone",
    "behaviour": "keep the sampler's own log-probabilities",
    "true_prior": "build it in Python from the true prior",
    "prompt_choice": "use a rung where the method chooses the prompts, chains or llm",
    "batch_choice": "use a rung where the method chooses what is trained on, chains or llm",
    "pass_rates": "measure the prompts before training",
    "score_norms": "pass score_norms=, |grad log pi|^2 of every rollout; weights=length needs only lengths",
    "token_weights": "set the host's own aggregation of tokens",
    "answers": "pass answers=, a label of every rollout's answer, equal where the answers are",
    "components": "pass components=, the reward of every reward function",
    "greedy_reward": "pass greedy=, the reward of each prompt's greedy answer",
    "rollout_order": "use a rung that keeps rollouts in the order in which they were drawn, chains or llm",
}

OF_WEIGHTS: dict[str, frozenset[Need]] = {  # what a weight of rollouts needs
    "none": frozenset(),
    "length": frozenset({"lengths"}),
    "score": frozenset({"score_norms"}),
}


class Draw(NamedTuple):
    """A random stream as a value: the same (seed, purpose, step) gives the same numbers, in a resumed run too."""

    seed: int
    purpose: str
    step: int

    def number(self) -> int:
        """A seed of 63 bits."""
        text = f"{self.seed} {self.purpose} {self.step}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1

    def generator(self) -> np.random.Generator:
        """NumPy's generator of this stream, at its beginning."""
        return np.random.default_rng(self.number())


class Part(Protocol):
    """What every part has: a mergeable state, () where there is none, and pure methods."""

    def init(self) -> Any:
        """The empty state, the identity of `merge`."""

    def observe(self, seen: Any) -> Any:
        """Sufficient statistics of one batch alone."""

    def forget(self, state: Any) -> Any:
        """The state as the next batch finds it."""

    def merge(self, a: Any, b: Any) -> Any:
        """Both states' evidence: commutative, associative up to rounding."""


class NoMemory:
    """The memory of a part that has none: its state is the empty tuple."""

    def init(self) -> tuple[()]:
        return ()

    def observe(self, seen: Any) -> tuple[()]:
        return ()

    def forget(self, state: tuple[()]) -> tuple[()]:
        return state

    def merge(self, a: tuple[()], b: tuple[()]) -> tuple[()]:
        return a


class Stateless(typed.Settings, NoMemory):
    """A part without memory, whose settings are held to their declared types."""

    needs: ClassVar[frozenset[Need]] = frozenset()
