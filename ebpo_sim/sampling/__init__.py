"""Allocation and selection: which prompts get how many rollouts, and which rollouts are learnt from."""

from ebpo_sim.sampling.base import Allocation, Ask, Kept, Plan, Pool, Selection, check_plan, weights_of
from ebpo_sim.sampling.budgeted import Knapsack, LeastVariance, dealt
from ebpo_sim.sampling.down_sampling import CPPO, PODS, MaxVariance, widest
from ebpo_sim.sampling.dynamic import Dynamic
from ebpo_sim.sampling.everything import Everything
from ebpo_sim.sampling.keep_rows import KeepRows
from ebpo_sim.sampling.mopps import MoPPS
from ebpo_sim.sampling.orders import ORDERS, Order
from ebpo_sim.sampling.proportional import VarianceProportional
from ebpo_sim.sampling.recall import PassRates
from ebpo_sim.sampling.registry import (
    ALLOCATIONS,
    SELECTIONS,
    make_allocation,
    make_selection,
    register_allocation,
    register_selection,
)
from ebpo_sim.sampling.skip_silent import SkipSilent
from ebpo_sim.sampling.variance_aware import VarianceAware

__all__ = [
    "ALLOCATIONS",
    "CPPO",
    "ORDERS",
    "PODS",
    "SELECTIONS",
    "Allocation",
    "Ask",
    "Dynamic",
    "Everything",
    "KeepRows",
    "Kept",
    "Knapsack",
    "LeastVariance",
    "MaxVariance",
    "MoPPS",
    "Order",
    "PassRates",
    "Plan",
    "Pool",
    "Selection",
    "SkipSilent",
    "VarianceAware",
    "VarianceProportional",
    "check_plan",
    "dealt",
    "make_allocation",
    "make_selection",
    "register_allocation",
    "register_selection",
    "weights_of",
    "widest",
]
