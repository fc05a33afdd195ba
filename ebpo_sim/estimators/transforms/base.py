"""What a step of an estimator's chain is: from the advantages so far to the next, with a memory where it needs one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ebpo_sim.groups import Groups
from ebpo_sim.numbers import Array
from ebpo_sim.part import Need, Part, Stateless

Domain = Literal["real", "unit", "binary"]


class Evaluation(NamedTuple):
    """What a baseline is on a batch.

    baseline_PG: (..., P, G), or (..., P, 1) when it is the same for every rollout of a group.
    shrinkage_P: weight on the prior, None where the rule is not a line. prior_mean_P: the shrinkage target.
    raw_variance: computes what the state predicts for the batch variance of r - baseline (NaN: no prediction).
    """

    baseline_PG: Array
    shrinkage_P: Array | None = None
    prior_mean_P: Array | None = None
    raw_variance: Callable[[], Array] | None = None


class Advantages(NamedTuple):
    """values_PG: (..., P, G), 0 for masked rollouts; the rewards at the head of a chain. divisor_PG: all that they were
    divided by. evaluation: of the baseline that was subtracted, None where none was."""

    values_PG: Array
    divisor_PG: Array
    evaluation: Evaluation | None = None


class Transform(Part, Protocol):
    """A frozen dataclass of settings with pure functions; the state is mergeable, `()` where there is none.

    domain: the rewards it is defined for. needs: what a batch must carry for it.
    """

    @property
    def domain(self) -> Domain: ...

    @property
    def needs(self) -> frozenset[Need]: ...

    def apply(self, state: Any, advantages: Advantages, groups: Groups) -> Advantages:
        """The next advantages, given the state; never changes it."""


class Memoryless(Stateless):
    """A transform whose state is the empty tuple; settings are held to their declared types."""

    domain: ClassVar[Domain] = "real"


def divided(
    advantages: Advantages, values_PG: Array, divisor: Array, live: NDArray[np.bool_], groups: Groups
) -> Advantages:
    """values / divisor where `live`, else 0: what is exactly constant has no scale."""
    divisor = np.where(live, divisor, 1.0)
    found = np.where(groups.mask_PG & live, values_PG, 0.0) / divisor
    return advantages._replace(values_PG=found, divisor_PG=advantages.divisor_PG * divisor)
