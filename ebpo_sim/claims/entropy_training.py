"""Proposition 3.6 in training: does EBPO keep more entropy than GRPO, by regime? Read from entropy_training.csv: the
rows "higher entropy" of EBPO in findings.csv of `python -m ebpo_sim.training_study` (8 paired seeds, G = 4)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ebpo_sim import tables
from ebpo_sim.claims.base import Case, Context, Finding, claim

TABLE = Path(__file__).with_name("entropy_training.csv")
MEASURES = {
    ("higher entropy", "own"): "own rates",
    ("higher entropy", "shared"): "one rate",
    ("higher entropy at equal pass@1", "own"): "own rates, at equal pass@1",
}


@claim(
    "E9",
    "EBPO Proposition 3.6",
    "EBPO keeps more entropy than GRPO in training",
    "skill chains, SGD and Adam, three starts; entropy a token, mean over the run or at one pass@1",
    "Under SGD at its own lower rate on some starts; at one rate, and under Adam, it mostly loses more.",
    tuple((f"{regime}, {name}", "fails") for regime in ("plateau", "balanced", "noisy") for name in MEASURES.values()),
)
def entropy_kept(context: Context) -> list[Finding]:
    """E9: EBPO's entropy less GRPO's, nats a token, with its standard error: a tie is what that leaves open."""
    rows = [row for _, row in tables.rows(TABLE)]
    findings = []
    for regime in dict.fromkeys(r["regime"] for r in rows):
        for (finding, tuning), name in MEASURES.items():
            cases = [
                Case(
                    f"training_study --world {r['world']} --regime {regime} --optimiser {r['optimiser']} "
                    f"--estimator ebpo: {finding}, {tuning}",
                    float(r["value"]), x=float(r["noise_ratio"]), se=float(r["se"]),
                )
                for r in rows if (r["regime"], r["finding"], r["tuning"]) == (regime, finding, tuning)
            ]  # fmt: skip
            mean = float(np.mean([case.effect for case in cases]))
            findings.append(Finding(f"{regime}, {name}", cases, "", "mean difference of entropy, nats a token", mean))
    return findings
