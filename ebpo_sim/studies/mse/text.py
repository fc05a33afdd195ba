"""The mse study for a reader: the overview by intra-class correlation, every row, and what to know of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ebpo_sim import labels, report
from ebpo_sim.methods.selected import is_oracle
from ebpo_sim.numbers import formulas
from ebpo_sim.studies.base import Rows, Settings, agreement_text
from ebpo_sim.worlds import observed_source

PAIR = (labels.SUBJECT, "ebpo_debiased")  # EBPO and its repair, side by side in the overview


def show(settings: Settings, rows: Rows, summary: Mapping[str, Any]) -> str:
    """The overview when EBPO and its repair are among several estimators, every row otherwise; then the notes."""
    whole = set(PAIR) <= set(settings.estimators) and len(settings.estimators) > 3
    return "\n".join([overview(rows) if whole else long_table(rows), *notes(settings, summary), conclusion(rows)])


def conclusion(rows: Sequence[dict[str, Any]]) -> str:
    """Against the group mean, in how many cells: EBPO and its repair, or where either lacks all rules; and the best."""
    known = [r for r in rows if r["ratio_exact"] is not None]
    names = dict.fromkeys(r["estimator"] for r in known)
    wins = {n: [r["verdict"] == "wins" for r in known if r["estimator"] == n] for n in names}
    shown = PAIR if wins.keys() >= set(PAIR) else tuple(names)
    learnt = [n for n in names if not is_oracle(n)]
    if not learnt:
        return "Conclusion: no rule here learns from data and has a baseline."
    best = max(learnt, key=lambda n: sum(wins[n]))
    counted = ", ".join(f"{name} in {sum(wins[name])} of {len(wins[name])} cells" for name in shown)
    most = f"most often of those that learn from data: {best}, {sum(wins[best])} of {len(wins[best])}"
    return f"Conclusion: nearer to the pass rate than the group mean is {counted}; {most}."


def notes(settings: Settings, summary: Mapping[str, Any]) -> list[str]:
    """What a reader of the table has to know: what the numbers are, whether they agree, where the data are from."""
    lines = [
        "",
        "Error E (baseline - p)^2 relative to the group mean's: exact long-run value; simulated over "
        f"{settings.design.replicates} streams; model-free split of real rollouts; ± one standard error.",
    ]
    lines += agreement_text("Exact", summary["agreement"])
    observed = [w.partition(":")[2] for w in settings.worlds if w.startswith("observed:")]
    lines += [f"Source of {source}." for source in dict.fromkeys(map(observed_source, observed))]
    return lines


def overview(rows: Sequence[dict[str, Any]]) -> str:
    """For each G, worlds by intra-class correlation, a rule at rho*(G); EBPO, its repair, and the best learnable."""
    parts = []
    headers = (
        "world",
        "ICC",
        "ebpo",
        "simulated",
        "model-free",
        "ebpo",
        "debiased",
        "simulated",
        "best learnt from data",
    )
    for group_size in dict.fromkeys(row["group_size"] for row in rows):
        cells: dict[str, dict[str, dict[str, Any]]] = {}
        for row in rows:
            if row["group_size"] == group_size:
                cells.setdefault(row["world"], {})[row["estimator"]] = row
        lines, crossed = [], False
        for world, cell in sorted(cells.items(), key=lambda item: by_icc(item[1][PAIR[0]]["icc"])):
            ebpo, repaired = (cell[name] for name in PAIR)
            if not crossed and by_icc(ebpo["icc"]) > formulas.critical_icc(group_size):
                lines.append(
                    ("", f"-- {formulas.critical_icc(group_size):.3f}", "-- critical ICC") + ("",) * (len(headers) - 3)
                )
                crossed = True
            learnt = (r for r in cell.values() if not is_oracle(r["estimator"]) and r["mse_exact"] is not None)
            best = min(learnt, key=lambda r: r["mse_exact"])
            lines.append(
                (
                    world,
                    report.number(ebpo["icc"]),
                    *_three(ebpo),
                    ebpo["verdict"].upper() if ebpo["verdict"] == "loses" else ebpo["verdict"],
                    *_three(repaired)[:2],
                    f"{report.number(best['ratio_exact'])} {best['estimator']}",
                )
            )
        align = ("left", "right", "right", "right", "right", "left", "right", "right", "left")
        parts.append(f"G = {group_size}\n{report.text_table(headers, lines, align, ('simulated', 'model-free'))}")
    return "\n\n".join(parts)


def long_table(rows: Sequence[dict[str, Any]]) -> str:
    """Every row, as it stands in table.csv."""
    columns: report.Columns = (
        "world", ("ICC", "icc"), ("G", "group_size"), "estimator", ("S", "shrinkage"),
        ("ratio", "ratio_exact"), ("simulated", "±ratio_mc"), ("model-free", "±ratio_split"),
        ("verdict", lambda r: r["verdict"] or "-"),
    )  # fmt: skip
    return report.columns_table(rows, columns, ("model-free", "simulated"))


def _three(row: dict[str, Any]) -> tuple[str, str, str]:
    return (
        report.number(row["ratio_exact"]),
        report.with_error(row["ratio_mc"], row["ratio_mc_se"]),
        report.with_error(row["ratio_split"], row["ratio_split_se"]),
    )


def by_icc(icc: float | None) -> float:
    return 2.0 if icc is None else icc
