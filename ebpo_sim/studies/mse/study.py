"""How far is each baseline from the prompt's true success probability?

For every world, group size and estimator: the exact long-run error E (baseline - p)^2, the same simulated with
the stateful estimator on a stream of batches, both relative to GRPO's group mean, and on real counts a
model-free check. Below 1 the baseline beats the group mean, above 1 it loses to it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from ebpo_sim import rungs
from ebpo_sim.counts.streams import Design
from ebpo_sim.numbers import formulas
from ebpo_sim.studies import costs
from ebpo_sim.studies.base import Rows, Settings, Study, agreement, run
from ebpo_sim.studies.mse.plots import FIGURE, plot
from ebpo_sim.studies.mse.simulate import simulate
from ebpo_sim.studies.mse.text import show
from ebpo_sim.worlds.observed import STUDIED

SETTINGS = Settings(
    worlds=(
        "beta:5,5",
        "beta:2,3",
        "beta:0.5,0.7",
        "beta:0.1,0.1",
        *STUDIED[:5],
        "observed:Qwen2.5-1.5B-Instruct",
        *STUDIED[5:],
    ),
    group_sizes=(2, 4, 8, 16, 32),
    estimators=rungs.standing(rungs.COUNTS),
    design=Design(prompts=16384, steps=6, burn_in=3, replicates=40),
)
QUICK = Settings(
    worlds=("beta:5,5", "beta:0.1,0.1", "observed:Qwen2.5-7B", "observed:Qwen2.5-Math-1.5B-Instruct/MATH"),
    group_sizes=(4, 8),
    estimators=rungs.standing(rungs.COUNTS),
    design=Design(prompts=8192, steps=4, burn_in=2, replicates=16),
)


def score(settings: Settings, rows: Rows) -> dict[str, Any]:
    """Each G's critical intra-class correlation, and the joint test of exact against simulated."""
    return {
        "critical_icc": {str(g): formulas.critical_icc(g) for g in settings.group_sizes},
        "agreement": agreement(rows, "ratio_mc", "ratio_exact", settings.design.replicates),
    }


STUDY = Study(
    "mse_study", __doc__ or "", SETTINGS, QUICK, costs.mse, simulate, score, show, lambda rows: {FIGURE: plot(rows)}
)
main = partial(run, STUDY)
