"""What an advantage estimator is: a baseline with a memory, composed with a normalisation.

    advantage = (r - baseline(state, groups) - centre) / (scale + eps)

A new estimator is a frozen dataclass with the five methods of `Baseline` (or `StatelessBaseline` and one),
registered under a name; the contract battery, the exact risk, the simulations and the trainers then take it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ebpo_sim.errors import InputError
from ebpo_sim.estimators.normalise import Normalise
from ebpo_sim.groups import Groups, count_groups

Array = NDArray[np.float64]
Order = Literal["update_then_score", "score_then_update"]
Domain = Literal["real", "unit", "binary"]


class Evaluation(NamedTuple):
    """What a baseline says about a batch.

    baseline_PG: (..., P, G), or (..., P, 1) when it is the same for every rollout of a group.
    shrinkage_P: weight on the prior, None where the rule is not a line. prior_mean_P: the shrinkage target.
    raw_variance: what the state predicts for the batch variance of r - baseline (NaN: no prediction).
    """

    baseline_PG: Array
    shrinkage_P: Array | None = None
    prior_mean_P: Array | None = None
    raw_variance: Array | None = None


class Baseline(Protocol):
    """A baseline and the memory it learns from. All methods are pure; `memory` is part of the settings.

    domain: rewards it is defined for: any real, [0, 1] ("unit") or {0, 1} ("binary").
    """

    domain: ClassVar[Domain]

    def init(self) -> Any:
        """The empty state, the identity of `merge`."""

    def observe(self, groups: Groups) -> Any:
        """Sufficient statistics of one batch alone."""

    def forget(self, state: Any) -> Any:
        """The state as the next batch finds it."""

    def merge(self, a: Any, b: Any) -> Any:
        """Both states' evidence: commutative, associative up to rounding."""

    def evaluate(self, state: Any, groups: Groups) -> Evaluation:
        """The baseline of every rollout, given the state; never changes it."""


class StatelessBaseline:
    """A baseline without memory: the state is the empty tuple."""

    domain: ClassVar[Domain] = "real"

    def init(self) -> tuple[()]:
        return ()

    def observe(self, groups: Groups) -> tuple[()]:
        return ()

    def forget(self, state: tuple[()]) -> tuple[()]:
        return state

    def merge(self, a: tuple[()], b: tuple[()]) -> tuple[()]:
        return a


class Info(NamedTuple):
    """What one plots and nothing the next step needs. Shapes as in `Evaluation`; scale broadcasts to (..., P, G)."""

    baseline_PG: Array
    shrinkage_P: Array | None
    prior_mean_P: Array | None
    scale_PG: Array
    degenerate_P: NDArray[np.bool_]


@dataclass(frozen=True)
class Estimator:
    """A named composition of baseline, normalisation and order; see `ebpo_sim.estimators.make`.

    order: "update_then_score" lets a batch into its own prior (EBPO's Algorithm 1), "score_then_update" keeps
    it out; `step` applies it. `score` and `update` are there for hosts that need them apart.
    """

    name: str
    baseline: Baseline
    normalise: Normalise
    order: Order

    def __post_init__(self) -> None:
        if self.order not in ("update_then_score", "score_then_update"):
            raise InputError(f"order must be 'update_then_score' or 'score_then_update', got {self.order!r}")

    def init(self) -> Any:
        """The state before any batch."""
        return self.baseline.init()

    def score(self, state: Any, groups: Groups) -> tuple[Any, Info]:
        """Advantages in the layout and dtype of the rewards (0 for masked rollouts), and what one plots."""
        self._check_domain(groups)
        self._check_state(state)
        said = self.baseline.evaluate(state, groups)
        raw_PG = np.where(groups.mask_PG, groups.rewards_PG - said.baseline_PG, 0.0)
        advantages_PG, scale_PG = self.normalise.apply(raw_PG, groups, said.raw_variance)
        info = Info(said.baseline_PG, said.shrinkage_P, said.prior_mean_P, scale_PG, groups.degenerate_P)
        return groups.restore(advantages_PG), info

    def update(self, state: Any, groups: Groups) -> Any:
        """merge(forget(state), the batch's statistics); never scores."""
        self._check_domain(groups)
        self._check_state(state)
        return self.baseline.merge(self.baseline.forget(state), self.baseline.observe(groups))

    def merge(self, a: Any, b: Any) -> Any:
        """Evidence of two workers that started from `init()`; see `Baseline.merge`."""
        return self.baseline.merge(a, b)

    def step(self, state: Any, groups: Groups) -> tuple[Any, Info, Any]:
        """(advantages, info, next state) of one batch, in this estimator's order."""
        if self.order == "update_then_score":
            state = self.update(state, groups)
            return (*self.score(state, groups), state)
        return (*self.score(state, groups), self.update(state, groups))

    def _check_state(self, state: Any) -> None:
        if state is None and self.init() is not None:
            raise InputError(f"state of {self.name} is None: start with init() and pass on what step() returns")

    def _check_domain(self, groups: Groups) -> None:
        if not isinstance(groups, Groups):
            raise InputError(f"groups must be what group_rewards() returns, got {type(groups).__name__}")
        domain, r = self.baseline.domain, groups.rewards_PG
        if domain == "binary" and not np.all((r == 0) | (r == 1)):
            bad = r[(r != 0) & (r != 1)][0]
            raise InputError(f"{self.name} needs rewards in {{0, 1}}, got {bad!r}: threshold them or use ebpo_debiased")
        if domain == "unit" and not np.all((r >= 0) & (r <= 1)):
            bad = r[(r < 0) | (r > 1)][0]
            raise InputError(f"{self.name} needs rewards in [0, 1], got {bad!r}: rescale them or use ebpo_debiased")


def baseline_table(baseline: Baseline, state: Any, group_size: int) -> Array:
    """The baseline of a binary group as a table, shape (..., G+1, 2): [k, r] = k of G rewarded, own reward r.

    Both columns agree unless the rule leaves the scored rollout out. Cells that cannot occur ([0, 1], [G, 0])
    repeat their neighbour. Exact risk, Monte Carlo and figures all read this table.
    """
    batch = count_groups(group_size)
    said = baseline.evaluate(state, batch).baseline_PG
    said = np.broadcast_to(said, (*said.shape[:-2], group_size + 1, group_size))
    failed, rewarded = said[..., -1], said[..., 0]  # failures are a group's last columns, successes its first
    return np.stack([failed, rewarded], axis=-1)
