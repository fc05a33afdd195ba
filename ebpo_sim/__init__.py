"""A wind tunnel for advantage estimators in RLVR, centred on EBPO (arXiv 2602.05165)."""

from ebpo_sim.errors import InputError
from ebpo_sim.estimators import make, names
from ebpo_sim.groups import Groups, count_groups, group_rewards
from ebpo_sim.numbers.mixing import Prior

__all__ = ["Groups", "InputError", "Prior", "count_groups", "group_rewards", "make", "names"]
