"""Long tables of a comparison: means over seeds, with the difference to the reference paired by seed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from ebpo_sim.compare.differences import Difference, holm, mean_of, paired
from ebpo_sim.compare.plan import Series
from ebpo_sim.compare.sigmoid import fit_sigmoid
from ebpo_sim.compare.verdicts import Verdict, judge
from ebpo_sim.labels import REFERENCE

Row = Mapping[str, Any]
Rows = list[dict[str, Any]]
Curves = Mapping[int, Sequence[Row]]  # seed -> the records of its run


def curve_rows(listed: Collection[Series], metrics: Iterable[str]) -> Rows:
    """One row a series, metric and recorded step, keys: estimator, those of `place`, learning_rate, edge, metric, step,
    value, se, difference and difference_se (to the reference; None for itself), seeds (those that have the quantity).
    """
    plain = {tuple(s.place.values()): s for s in listed if s.arm == REFERENCE}
    rows: Rows = []
    for series in listed:
        other = plain.get(tuple(series.place.values())) if series.arm != REFERENCE else None
        name = {"estimator": series.arm, **series.place, "learning_rate": series.rate, "edge": series.edge}
        for metric in metrics:
            theirs = by_step(other.curves, metric) if other else {}
            for step, mine in by_step(series.curves, metric).items():
                mean, gap = mean_of(mine.values()), paired(mine, theirs.get(step, {}))
                rows.append({
                    **name, "metric": metric, "step": step, "value": mean.value, "se": mean.se,
                    "difference": gap and gap.value, "difference_se": gap and gap.se, "seeds": mean.seeds,
                })  # fmt: skip
    return rows


def by_step(curves: Curves, metric: str) -> dict[int, dict[int, float]]:
    """step -> seed -> value, where the quantity exists."""
    found: dict[int, dict[int, float]] = {}
    for seed, curve in curves.items():
        for row in curve:
            if row[metric] is not None:
                found.setdefault(row["step"], {})[seed] = row[metric]
    return found


def final(rows: Rows, metric: str) -> Rows:
    """The rows of a metric at the last step of their regime, where there are regimes."""
    mine, last = [r for r in rows if r["metric"] == metric], dict[Any, int]()
    for r in mine:
        last[r.get("regime")] = max(r["step"], last.get(r.get("regime"), 0))
    return [r for r in mine if r["step"] == last[r.get("regime")]]


def _plain(found: Difference, p_holm: float | None) -> Verdict:
    return judge(found, p_holm=p_holm)


def judge_family(family: Rows, planned: int, word: Callable[[Difference, float | None], Verdict] = _plain) -> None:
    """Holm's p, the family's size and the verdict, into rows that hold a Difference's fields.

    planned: how many differences the family has; those whose runs are missing count as p = 1. word: of a difference and
    its corrected p.
    """
    with_p = [row for row in family if row["p"] is not None]
    corrected = holm([row["p"] for row in with_p] + [1.0] * (planned - len(with_p)))
    for row in family:
        row |= {"p_holm": None, "comparisons": None}
    for row, p in zip(with_p, corrected, strict=False):
        row |= {"p_holm": p, "comparisons": planned}
    for row in family:
        found = Difference(*(row[name] for name in Difference._fields))
        row["verdict"] = word(found, row["p_holm"])


def learning_curves(rows: Rows, metric: str) -> Rows:
    """The sigmoid of each series' mean curve of a metric: asymptote and midpoint (in steps), or why there is none."""
    lines: dict[tuple[Any, ...], Rows] = {}
    measured = ("metric", "step", "value", "se", "difference", "difference_se", "seeds")
    for r in rows:
        if r["metric"] == metric:
            lines.setdefault(tuple((k, v) for k, v in r.items() if k not in measured), []).append(r)
    found: Rows = []
    for name, line in lines.items():
        start, *rest = sorted(line, key=lambda r: r["step"])
        if start["step"] == 0:
            fit = fit_sigmoid([r["step"] for r in rest], [r["value"] for r in rest], start["value"])
            found.append({**dict(name), "metric": metric, "start": start["value"], **fit._asdict()})
    return found
