"""All claims, run over one context."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from scipy.stats import t as student

from ebpo_sim.claims import baseline_error, entropy, failure, gradient, history
from ebpo_sim.claims.base import Claim, Context, Finding, to_row
from ebpo_sim.claims.hidden import hidden_claims
from ebpo_sim.errors import unknown_name

FAMILY_WISE = 1e-3
ORDER = ("T1", "T2", "R2", "R3", "C1", "P1", "P2", "O1", "O2", "O3", "O4")


def claims() -> dict[str, Claim]:
    """Every claim by id: EBPO's in the paper's order, ours, then the second paper's."""
    found = {c.id: c for m in (baseline_error, failure, entropy, gradient, history) for c in m.CLAIMS}
    return {name: found[name] for name in ORDER} | {c.id: c for c in hidden_claims()}


def choose(names: Iterable[str]) -> list[Claim]:
    """The named claims (all without names). Raises InputError with near names for an unknown id."""
    known = claims()
    for name in names:
        if name not in known:
            raise unknown_name("claim", name, known)
    return [known[name] for name in (names or known)]


def run_ledger(
    context: Context, names: Sequence[str] = (), advance: Callable[[], object] = lambda: None
) -> list[tuple[Claim, list[Finding]]]:
    """Every chosen claim with its findings; `advance` is called after each."""
    found = []
    for claim in choose(names):
        found.append((claim, claim.check(context)))
        advance()
    return found


def rows(ledger: Sequence[tuple[Claim, list[Finding]]]) -> list[dict[str, Any]]:
    """The ledger as a table."""
    return [to_row(claim, finding) for claim, findings in ledger for finding in findings]


def agreement(ledger: Sequence[tuple[Claim, list[Finding]]], replicates: int) -> dict[str, Any]:
    """All Monte Carlo confirmations at once: largest |z| and its Bonferroni limit (Student, the fewest replicates)."""
    z = {
        f"{claim.id} {f.variant}": f.check.z
        for claim, findings in ledger
        for f in findings
        if f.check and f.check.se > 0
    }
    exact = [f.check.z for _, findings in ledger for f in findings if f.check and f.check.se <= 0]
    if not z:
        return {"comparisons": 0, "max_abs_z": None, "where": None, "limit": None, "passes": all(x == 0 for x in exact)}
    where = max(z, key=lambda k: abs(z[k]))
    limit = float(student.isf(FAMILY_WISE / (2 * len(z)), df=replicates - 1))
    passes = abs(z[where]) <= limit and all(x == 0 for x in exact)
    return {"comparisons": len(z), "max_abs_z": abs(z[where]), "where": where, "limit": limit, "passes": passes}


COLUMNS = {"idealised": "as in the proof", "algorithm-1": "Algorithm 1", "released": "released code"}


def markdown(ledger: Sequence[tuple[Claim, list[Finding]]]) -> str:
    """The ledger as the README shows it: a line a claim, verdicts by variant, what it means, how to reproduce it."""
    lines = [
        f"| id | claim | {' | '.join(COLUMNS.values())} | repaired, other | in practice | reproduce |",
        "|---" * (len(COLUMNS) + 5) + "|",
    ]
    for claim, findings in ledger:
        if claim.id.startswith("HB-"):
            continue
        cells: dict[str, list[str]] = {column: [] for column in (*COLUMNS, "other")}
        for f in findings:
            base, _, option = f.variant.partition(", ")
            known = base in COLUMNS
            label = option if known else f.variant
            word = f.verdict.word.replace("_", " ") + (f" {f.verdict.condition}" if f.verdict.condition else "")
            cells[base if known else "other"].append(f"{label}: {word}" if label else word)
        joined = " | ".join("; ".join(texts) or "-" for texts in cells.values())
        command = f"`python -m ebpo_sim.claims {claim.id}`"
        statement = claim.statement.replace("|", "\\|")
        lines.append(f"| {claim.id} | {statement} | {joined} | {claim.meaning} | {command} |")
    return "\n".join(lines)
