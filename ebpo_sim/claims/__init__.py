"""The ledger: every claim decided, with effect sizes, Monte Carlo checks and counterexamples."""

from ebpo_sim.claims.base import Case, Check, Claim, Context, Finding, Verdict, decide, to_row
from ebpo_sim.claims.family import default_context
from ebpo_sim.claims.ledger import agreement, claims, run_ledger

__all__ = [
    "Case",
    "Check",
    "Claim",
    "Context",
    "Finding",
    "Verdict",
    "agreement",
    "claims",
    "decide",
    "default_context",
    "run_ledger",
    "to_row",
]
