"""The second paper (arXiv 2601.05002): its predictions, each beside an independent computation."""

from __future__ import annotations

from functools import lru_cache, partial

from ebpo_sim.bias.predictions import Prediction, check_predictions
from ebpo_sim.claims.base import Case, Claim, Context, Finding

TITLES = {
    "P": "weights of shared prefixes",
    "N": "expected drift, the control",
    "L": "the loss value at the first step",
    "Q": "AdamW and reward scale",
    "R": "momentum past the clip",
}


@lru_cache(maxsize=1)
def predictions() -> tuple[Prediction, ...]:
    return check_predictions()


def _margin(p: Prediction) -> float:
    """1 less the deviation in units of the tolerance, 0 at the tolerance itself."""
    gap = abs(p.computed - p.predicted)
    if p.tolerance == 0:
        return 1.0 if gap == 0 else -1.0
    return 1 - gap / p.tolerance


def _check(mine: list[Prediction], context: Context) -> list[Finding]:
    """One row: all records of a prediction; effect = tolerance less |computed - predicted|, in units of tolerance."""
    cases = [Case(p.counterexample or p.statement, _margin(p)) for p in mine]
    worst = min(mine, key=_margin)
    return [Finding("idealised", cases, "", f"computed value of: {worst.statement}", worst.computed, strict=False)]


def hidden_claims() -> tuple[Claim, ...]:
    """A claim for each prediction id, in the reference's order."""
    found: dict[str, list[Prediction]] = {}
    for p in predictions():
        found.setdefault(p.id, []).append(p)
    return tuple(
        Claim(
            f"HB-{name}",
            f"arXiv 2601.05002, {TITLES[name[0]]}",
            mine[0].statement,
            mine[0].condition,
            "See hidden_bias_study.",
            partial(_check, mine),
        )
        for name, mine in found.items()
    )
