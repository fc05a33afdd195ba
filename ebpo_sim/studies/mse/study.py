"""How far is each baseline from the prompt's true success probability?

For every world, group size and estimator: the exact long-run error E (baseline - p)^2, the same simulated with
the stateful estimator on a stream of batches, both relative to GRPO's group mean, and on real counts a
model-free check. Below 1 the baseline beats the group mean, above 1 it loses to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scipy.special import stdtrit

from ebpo_sim import cli, rungs
from ebpo_sim.counts.streams import Design
from ebpo_sim.numbers import formulas
from ebpo_sim.studies import costs
from ebpo_sim.studies.base import Rows, Settings, Study, run
from ebpo_sim.studies.mse.plots import FIGURE, plot
from ebpo_sim.studies.mse.simulate import simulate
from ebpo_sim.studies.mse.text import FAMILY_WISE, show

SETTINGS = Settings(
    worlds=(
        "beta:5,5",
        "beta:2,3",
        "beta:0.5,0.7",
        "beta:0.1,0.1",
        "observed:Qwen2.5-1.5B",
        "observed:Qwen2.5-7B",
        "observed:Qwen2-1.5B",
        "observed:Qwen2.5-Math-1.5B",
        "observed:Qwen2-1.5B-Instruct",
        "observed:Qwen2.5-1.5B-Instruct",
        "observed:Qwen2.5-Math-7B-Instruct",
        "observed:Qwen2.5-Math-1.5B-Instruct/MATH",
        "observed:CodeLlama-7b-Base/LiveCodeBench",
        "observed:GPT-4-0613/LiveCodeBench",
        "observed:Claude-2/LiveCodeBench",
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


def agreement(rows: Sequence[dict[str, Any]], replicates: int) -> dict[str, Any]:
    """All simulated ratios against the exact ones at once: the largest |z| and the Bonferroni limit for it.

    z = (ratio_mc - ratio_exact)/ratio_mc_se with `replicates` - 1 degrees of freedom; estimators that share a
    baseline share a z, so the limit is conservative.
    """
    z = [
        (row["ratio_mc"] - row["ratio_exact"]) / row["ratio_mc_se"]
        for row in rows
        if row["ratio_exact"] is not None and row["ratio_mc_se"]
    ]
    if not z:
        return {"comparisons": 0, "max_abs_z": None, "limit": None, "passes": None}
    limit = float(stdtrit(replicates - 1, 1 - FAMILY_WISE / (2 * len(z))))
    worst = max(abs(x) for x in z)
    return {"comparisons": len(z), "max_abs_z": worst, "limit": limit, "passes": worst <= limit}


def score(settings: Settings, rows: Rows) -> dict[str, Any]:
    """Each G's critical intra-class correlation, and the joint test of exact against simulated."""
    return {
        "critical_icc": {str(g): formulas.critical_icc(g) for g in settings.group_sizes},
        "agreement": agreement(rows, settings.design.replicates),
    }


STUDY = Study(
    "mse_study", __doc__ or "", SETTINGS, QUICK, costs.mse, simulate, score, show, lambda rows: {FIGURE: plot(rows)}
)


def main(argv: Sequence[str]) -> None:
    run(STUDY, argv)


if __name__ == "__main__":
    cli.run(main)
