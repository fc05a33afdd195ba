"""The steps of an estimator's chain: subtract a baseline, centre, scale, whiten, rank, re-weigh."""

from ebpo_sim.estimators.transforms.base import Advantages as Advantages
from ebpo_sim.estimators.transforms.base import Evaluation as Evaluation
from ebpo_sim.estimators.transforms.base import Memoryless as Memoryless
from ebpo_sim.estimators.transforms.base import Transform as Transform
from ebpo_sim.estimators.transforms.centre import Centre as Centre
from ebpo_sim.estimators.transforms.rank import Rank as Rank
from ebpo_sim.estimators.transforms.reweigh import Reweigh as Reweigh
from ebpo_sim.estimators.transforms.scale import Scale as Scale
from ebpo_sim.estimators.transforms.subtract import Baseline as Baseline
from ebpo_sim.estimators.transforms.subtract import StatelessBaseline as StatelessBaseline
from ebpo_sim.estimators.transforms.subtract import Subtract as Subtract
from ebpo_sim.estimators.transforms.whiten import Whiten as Whiten
