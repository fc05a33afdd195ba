"""The selection that selects nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ebpo_sim.groups import Groups
from ebpo_sim.numbers import Array
from ebpo_sim.part import Draw, Stateless
from ebpo_sim.sampling.base import Kept


@dataclass(frozen=True)
class Everything(Stateless):
    """Every rollout stays, with weight 1."""

    after: ClassVar = False
    batches: ClassVar = 1

    def weigh(self, state: object, groups: Groups, advantage_PG: Array | None, draw: Draw) -> Kept:
        """All of them."""
        return Kept(np.broadcast_to(groups.mask_PG, groups.rewards_PG.shape))
