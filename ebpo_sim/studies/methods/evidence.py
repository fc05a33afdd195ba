"""What the ledger's claims about recipes rest on: a small table of a full run of this study.

The ledger reads the committed copy: `cp results/methods_study/evidence.csv ebpo_sim/claims/recipes.csv` renews it.
"""

from __future__ import annotations

from typing import Any

from ebpo_sim.studies.methods.shares import OBJECTIVE, REST

Rows = list[dict[str, Any]]


def evidence(shares: Rows, gained: Rows) -> Rows:
    """By regime the objective's share of variance less every other part's, in the design; and what GRPO and the placebo
    gain in pass@1, by world."""
    rows: Rows = []
    for r in shares:
        if r["arms"] == "design" and r["part"] not in (OBJECTIVE, REST):
            place = {"quantity": "objective's share less", "name": r["part"], "world": "", "regime": r["regime"]}
            rows.append({**place, "noise_ratio": r["noise_ratio"], "value": r["objective_less"],
                         "se": r["objective_less_se"], "seeds": r["seeds"]})  # fmt: skip
    for r in gained:
        place = {"quantity": "gain of pass@1", "name": r["estimator"], "world": r["world"], "regime": r["regime"]}
        rows.append({**place, **{k: r[k] for k in ("noise_ratio", "value", "se", "seeds")}})
    return rows
