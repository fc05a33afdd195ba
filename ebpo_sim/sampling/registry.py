"""Allocations and selections by name."""

from __future__ import annotations

from collections.abc import Callable

from ebpo_sim.registry import Registry
from ebpo_sim.sampling.base import Allocation, Selection
from ebpo_sim.sampling.budgeted import Knapsack, LeastVariance
from ebpo_sim.sampling.down_sampling import CPPO, PODS, MaxVariance
from ebpo_sim.sampling.dynamic import Dynamic
from ebpo_sim.sampling.everything import Everything
from ebpo_sim.sampling.keep_rows import KeepRows
from ebpo_sim.sampling.mopps import MoPPS
from ebpo_sim.sampling.orders import ORDERS, Kind, Order
from ebpo_sim.sampling.proportional import VarianceProportional
from ebpo_sim.sampling.skip_silent import SkipSilent
from ebpo_sim.sampling.variance_aware import VarianceAware


def _order(kind: Kind) -> Callable[[], Order]:
    def order() -> Order:
        return Order(kind)

    return order


ALLOCATIONS = Registry("allocation", {
    **{kind: _order(kind) for kind in ORDERS},
    "variance_aware": VarianceAware, "variance_proportional": VarianceProportional, "mopps": MoPPS,
    "skip_silent": SkipSilent, "knapsack": Knapsack, "least_variance": LeastVariance,
})  # fmt: skip
SELECTIONS = Registry("selection", {
    "everything": Everything, "dynamic": Dynamic, "keep_rows": KeepRows,
    "pods": PODS, "max_variance": MaxVariance, "cppo": CPPO,
})  # fmt: skip
register_allocation = ALLOCATIONS.register
register_selection = SELECTIONS.register


def make_allocation(text: str) -> Allocation:
    """The allocation that the text spells; see `Registry.make`."""
    made: Allocation = ALLOCATIONS.make(text)
    return made


def make_selection(text: str) -> Selection:
    """The selection that the text spells; see `Registry.make`."""
    made: Selection = SELECTIONS.make(text)
    return made
