"""Advantage estimators: the one module that the studies, `llm/` and the trainers share. Never imports numba."""

from ebpo_sim.estimators.base import Estimator as Estimator
from ebpo_sim.estimators.base import Info as Info
from ebpo_sim.estimators.base import baseline_table as baseline_table
from ebpo_sim.estimators.checkpoint import dump_state as dump_state
from ebpo_sim.estimators.checkpoint import fingerprint as fingerprint
from ebpo_sim.estimators.checkpoint import load_state as load_state
from ebpo_sim.estimators.registry import make as make
from ebpo_sim.estimators.registry import names as names
from ebpo_sim.estimators.registry import needs_prior as needs_prior
from ebpo_sim.estimators.registry import register as register
from ebpo_sim.estimators.transforms import Baseline as Baseline
from ebpo_sim.estimators.transforms import Centre as Centre
from ebpo_sim.estimators.transforms import Evaluation as Evaluation
from ebpo_sim.estimators.transforms import Rank as Rank
from ebpo_sim.estimators.transforms import Reweigh as Reweigh
from ebpo_sim.estimators.transforms import Scale as Scale
from ebpo_sim.estimators.transforms import StatelessBaseline as StatelessBaseline
from ebpo_sim.estimators.transforms import Subtract as Subtract
from ebpo_sim.estimators.transforms import Transform as Transform
from ebpo_sim.estimators.transforms import Whiten as Whiten
