"""A method on the rungs that know success counts alone: its estimator, learning from what its selection keeps."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ebpo_sim import rungs
from ebpo_sim.estimators import Estimator, Info, needs_prior
from ebpo_sim.groups import Groups, masked
from ebpo_sim.methods.method import estimator_of, parse_method
from ebpo_sim.numbers.mixing import Prior
from ebpo_sim.part import Draw
from ebpo_sim.sampling import Everything, Selection

DRAW = Draw(0, "selection", 0)


@dataclass(frozen=True)
class Selected(Estimator):
    """The same rule, whose memory and batch statistics see what is kept (`after`: all of it); a rollout that is left
    out has advantage 0. A group counts as often as its multiplicity, so the selection must be of whole groups or of
    rollouts by their reward. The baseline is known for every group, kept or not."""

    selection: Selection = Everything()  # noqa: RUF009 - a frozen value

    @property
    def learns(self) -> tuple[Hashable, ...]:
        """See `Estimator.learns`."""
        return (*super().learns, self.selection)

    def update(self, state: Any, groups: Groups) -> Any:
        """The state after a batch; that before it where nothing was kept."""
        shown = self._shown(groups)
        return self.forget(state) if shown is None else super().update(state, shown)

    def score(self, state: Any, groups: Groups) -> tuple[Any, Info]:
        """Advantages, 0 for what is left out."""
        shown = self._shown(groups)
        advantages, info = super().score(state, groups if shown is None else shown)
        keep_PG = self.selection.weigh((), groups, None, DRAW).keep_PG
        return np.where(keep_PG, advantages, 0.0), info

    def _shown(self, groups: Groups) -> Groups | None:
        if self.selection.after:
            return groups
        keep_PG = self.selection.weigh((), groups, None, DRAW).keep_PG
        kept_P = groups.multiplicity_P * keep_PG.any(axis=-1)
        return masked(groups, keep_PG) if np.all(kept_P.sum(axis=-1) > 0) else None


def is_oracle(text: str) -> bool:
    """Whether the method's estimator needs the true prior. Raises InputError for unknown names."""
    return needs_prior(estimator_of(text))


def counted(text: str, prior: Prior | None) -> Estimator:
    """The method for streams of counts; an oracle is given the true prior. Raises InputError where it cannot stand
    there."""
    method = parse_method(text, prior, rungs.COUNTS)
    if isinstance(method.selection, Everything):
        return method.estimator
    known = method.estimator
    return Selected(text, known.chain, known.order, method.selection)
