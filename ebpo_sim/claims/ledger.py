"""All claims, run over one context."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from ebpo_sim.claims import (  # noqa: F401 - each module brings its claims
    advantages,
    allocation,
    baseline_error,
    entropy,
    entropy_training,
    failure,
    finer_cells,
    gradient,
    history,
    noise_methods,
    noise_rules,
    objectives,
    recipes,
    recorded,
    score_norms,
    silent_groups,
    skipping,
    training,
)
from ebpo_sim.claims.base import CLAIMS, Claim, Context, Finding, meaning, to_row
from ebpo_sim.claims.hidden import hidden_claims
from ebpo_sim.errors import unknown_name

FAMILY_WISE = 1e-3
FAMILIES = ("T", "R", "C", "P", "O", "N", "E", "M", "A", "J")  # EBPO's in the paper's order, then by subject


def claims() -> dict[str, Claim]:
    """Every claim by id: EBPO's in the paper's order, ours, gradient noise (N), training (E), memory (M), published
    advantages (A) and objectives (J), then the second paper's."""
    names = sorted(CLAIMS, key=lambda name: (FAMILIES.index(name[0]), int(name[1:])))
    return {name: CLAIMS[name] for name in names} | {c.id: c for c in hidden_claims()}


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
    """Every chosen claim with its findings, `advance` called after each; a premise met nowhere leaves none."""
    found = []
    for claim in choose(names):
        found.append((claim, [f for f in claim.check(context) if f.cases]))
        advance()
    return found


def rows(ledger: Sequence[tuple[Claim, list[Finding]]]) -> list[dict[str, Any]]:
    """The ledger as a table."""
    return [to_row(claim, finding, findings) for claim, findings in ledger for finding in findings]


def agreement(ledger: Sequence[tuple[Claim, list[Finding]]]) -> dict[str, Any]:
    """All Monte Carlo confirmations at once: the smallest p-value and its Bonferroni limit at `FAMILY_WISE`.

    Every check has its own degrees of freedom, so z of different checks do not compare, but their p-values do.
    Confirmations without a standard error must be equal. `where` and `max_abs_z` belong to the smallest p-value.
    """
    found = {f"{claim.id} {f.variant}": f.check for claim, findings in ledger for f in findings if f.check}
    equal = all(check.z == 0 for check in found.values() if check.se <= 0)
    uncertain = {name: check for name, check in found.items() if not check.se <= 0}  # NaN is no agreement
    if not uncertain:
        empty = dict.fromkeys(("where", "max_abs_z", "freedom", "p_value", "limit"))
        return {"comparisons": 0, **empty, "passes": equal}
    where = min(uncertain, key=lambda name: np.nan_to_num(uncertain[name].p_value, nan=-1.0))
    worst, limit = uncertain[where], FAMILY_WISE / len(uncertain)
    return {
        "comparisons": len(uncertain),
        "where": where,
        "max_abs_z": abs(worst.z),
        "freedom": worst.freedom,
        "p_value": worst.p_value,
        "limit": limit,
        "passes": equal and worst.p_value >= limit,
    }


COLUMNS = {"idealised": "as in the proof", "algorithm-1": "Algorithm 1", "released": "released code"}


def markdown(ledger: Sequence[tuple[Claim, list[Finding]]]) -> str:
    """The ledger as its README shows it, a line a claim: verdicts by variant, what it means, how to reproduce it; not
    those of the second paper."""
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
            cells[base if known else "other"].append(f"{label}: {f.verdict.text}" if label else f.verdict.text)
        joined = " | ".join("; ".join(texts) or "-" for texts in cells.values())
        command = f"`python -m ebpo_sim.claims {claim.id}`"
        statement = claim.statement.replace("|", "\\|")
        lines.append(f"| {claim.id} | {statement} | {joined} | {meaning(claim, findings)} | {command} |")
    return "\n".join(lines)
