"""The ledger: every claim decided, with effect sizes, Monte Carlo checks and counterexamples."""

from ebpo_sim.claims.base import Case as Case
from ebpo_sim.claims.base import Check as Check
from ebpo_sim.claims.base import Claim as Claim
from ebpo_sim.claims.base import Context as Context
from ebpo_sim.claims.base import Finding as Finding
from ebpo_sim.claims.base import Verdict as Verdict
from ebpo_sim.claims.base import decide as decide
from ebpo_sim.claims.base import to_row as to_row
from ebpo_sim.claims.family import default_context as default_context
from ebpo_sim.claims.ledger import agreement as agreement
from ebpo_sim.claims.ledger import claims as claims
from ebpo_sim.claims.ledger import run_ledger as run_ledger
