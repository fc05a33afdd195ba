"""The ledger as one HTML page: verdicts that sort and filter, each claim's picture, the commands to retype."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from ebpo_sim import html
from ebpo_sim.claims.base import Claim, Finding, meaning
from ebpo_sim.claims.ledger import COLUMNS, rows

HEADERS = ("id", "claim", "as", "verdict", "holds / equal / fails", "smallest counterexample", "source")
MARKS = (("holds if", "mixed"), ("holds", "good"), ("fails", "bad"))


def ledger_page(ledger: Sequence[tuple[Claim, list[Finding]]], pictures: Mapping[str, bytes]) -> bytes:
    """All findings in one table, what each claim means in practice, and a picture a claim (pictures: PNG by id)."""
    counts = Counter(finding.verdict.word.replace("_", " ") for _, findings in ledger for finding in findings)
    lead = ", ".join(f"{number} {word}" for word, number in counts.most_common())
    statements = {claim.id: claim.statement for claim, _ in ledger}
    table = [
        (
            r["id"], statements[r["id"]], COLUMNS.get(r["variant"], r["variant"]),
            f"{r['verdict'].replace('_', ' ')} {r['condition'] or ''}".strip(),
            f"{r['above']} / {r['equal']} / {r['below']}",
            f"python -m ebpo_sim.{r['counterexample']}" if r["counterexample"] else "", r["source"],
        )
        for r in rows(ledger)
    ]  # fmt: skip
    practice = [
        (claim.id, claim.statement, meaning(claim, findings), f"python -m ebpo_sim.claims {claim.id}")
        for claim, findings in ledger
    ]
    shown = [
        html.Picture(name, png, statements.get(name, "T2's ratio of errors over the intra-class correlation and G"))
        for name, png in pictures.items()
    ]
    note = "Decided over all worlds and group sizes of the search; click a heading to sort, type words to filter."
    return html.page(
        "Which claims hold",
        f"{len(table)} verdicts on {len(ledger)} claims: {lead}.",
        (
            html.Table("Verdicts", HEADERS, table, note, MARKS),
            html.Table("In practice", ("id", "claim", "what follows", "reproduce"), practice),
            *shown,
        ),
    )
