"""The steps of an estimator's chain: subtract a baseline, centre, scale, whiten, rank, re-weigh."""

from ebpo_sim.estimators.transforms.base import Advantages, Evaluation, Memoryless, Transform
from ebpo_sim.estimators.transforms.centre import Centre
from ebpo_sim.estimators.transforms.rank import Rank
from ebpo_sim.estimators.transforms.reweigh import Reweigh
from ebpo_sim.estimators.transforms.scale import Scale
from ebpo_sim.estimators.transforms.subtract import Baseline, StatelessBaseline, Subtract
from ebpo_sim.estimators.transforms.whiten import Whiten

__all__ = [
    "Advantages",
    "Baseline",
    "Centre",
    "Evaluation",
    "Memoryless",
    "Rank",
    "Reweigh",
    "Scale",
    "StatelessBaseline",
    "Subtract",
    "Transform",
    "Whiten",
]
