"""Contrasts read off a long table of curves: value, se, difference and difference_se to the reference, cell by cell.

The difference is shown with its 95 % t interval; its word is `verdicts.judge`'s on it, with a margin of 1 % of the
reference's value, and `in_regime` where rows have a `noise_ratio`. At the end a row's `p_holm` decides where it has
one: it comes from the family that the comparison declared. Other contrasts are judged one at a time, until `corrected`
takes those of one regime for a family.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from ebpo_sim.compare.differences import Difference, Term, holm, independent, interval
from ebpo_sim.compare.verdicts import LEVEL, Verdict, in_regime, judge, judge_exact
from ebpo_sim.labels import REFERENCE, SUBJECT

Row = dict[str, Any]
Rows = Sequence[Row]
Measure = Literal["end", "mean", "kept"]
DIRECTIONS = ("appears", "the opposite", "negligible")  # what a correction can take away
MARGIN = 0.01  # of the reference's value: smaller differences are no effect worth a claim


class Contrast(NamedTuple):
    """A word, what was compared, and the difference with half of its 95 % interval (None: exact, or nothing there).
    scale: the reference's value. regime: of its runs. p: against 0, where no family has corrected it yet."""

    word: Verdict
    what: str
    difference: float | None = None
    half_width: float | None = None
    unit: float = 1.0
    scale: float = 1.0
    regime: str = ""
    p: float | None = None

    @property
    def numbers(self) -> str:
        """The difference and its interval, to the interval's second digit."""
        if self.difference is None:
            return ""
        if self.half_width is None:
            shown = f"{self.difference * self.unit:+.3f}" if self.difference else "0"
            return f"{shown} (exact)".replace("-", "−")
        width = self.half_width * self.unit
        digits = 3 if width <= 0 else min(6, max(1, 1 - math.floor(math.log10(width))))
        return f"{self.difference * self.unit:+.{digits}f} ± {width:.{digits}f}".replace("-", "−")

    @property
    def line(self) -> str:
        """One line for a caption."""
        return f"{self.what}: {self.word}" + (f" ({self.numbers})" if self.numbers else "")


def judged(
    found: Difference | None, sign: int, reference: float, what: str, unit: float = 1, p_holm: float | None = None,
    at: Row | None = None,
) -> Contrast:  # fmt: skip
    """A simulated difference; `reference` is the reference's value, `sign` the claimed direction, `at` a row of its
    runs, for their regime."""
    word = judge(found, sign, MARGIN * abs(reference), p_holm)
    regime, ratio = (at.get(name) for name in ("regime", "noise_ratio")) if at else (None, None)
    word = word if ratio is None else in_regime(word, ratio)
    if found is None or found.se is None or found.high is None:
        return Contrast(word, what, regime=regime or "")
    p = found.p if p_holm is None else None
    return Contrast(word, what, found.value, found.high - found.value, unit, abs(reference), regime or "", p)


def corrected(found: Sequence[Contrast]) -> list[Contrast]:
    """The same, those of one regime that have a p taken for a family: Holm's correction decides what it leaves of a
    direction. One comparison under two names (an arm whose own rate is the shared one) counts once."""
    families: dict[str, dict[float, float]] = {}
    for x in found:
        if x.p is not None:
            families.setdefault(x.regime, {})[x.p] = 1.0
    families = {regime: dict(zip(ps, holm(list(ps)), strict=True)) for regime, ps in families.items()}
    listed = []
    for x in found:
        lost = x.p is not None and families[x.regime][x.p] >= LEVEL
        word: Verdict = "before correction only" if lost and x.word in DIRECTIONS else x.word
        listed.append(x._replace(word=word, p=None))
    return listed


def exact(difference: float | None, sign: int, what: str) -> Contrast:
    """A difference without sampling error; what is within rounding of 0 is 0."""
    word = judge_exact(difference, sign)
    return Contrast(word, what, 0.0 if word == "negligible" else difference)


def select(rows: Rows, **where: Any) -> list[Row]:
    """The rows with these values, in the order of their steps where they have any."""
    found = [r for r in rows if all(r.get(k) == v for k, v in where.items())]
    return sorted(found, key=lambda r: r["step"]) if found and "step" in found[0] else found


def last(rows: Rows, **where: Any) -> Row | None:
    """The row of the last step that has a value."""
    return next((r for r in reversed(select(rows, **where)) if r["value"] is not None), None)


def contrast(
    rows: Rows, sign: int, what: str, measure: Measure = "end", unit: float = 1, arm: str = SUBJECT, **cell: Any
) -> Contrast:
    """An arm less the reference in a cell, which includes the metric.

    end: at the last step, paired by seed. mean: averaged over all steps, paired; its se is the mean of the steps', an
    upper bound whatever their correlation. kept: what is left of a positive quantity from the first record to the
    last, log(last / first), free of scale; errors are added as if the four values were independent.
    """
    mine, plain = ([r for r in select(rows, estimator=n, **cell) if r["value"] is not None] for n in (arm, REFERENCE))
    found, scale = MEASURES[measure](mine, plain) if mine and plain else (None, 0.0)
    p_holm = mine[-1].get("p_holm") if mine and measure == "end" else None
    return judged(found, sign, scale, what, unit, p_holm, mine[-1] if mine else None)


def between_orders(
    rows: Rows, sign: int, what: str, unit: float = 1, orders: tuple[str, str] = ("blocked", "shuffled"), **cell: Any
) -> Contrast:
    """One arm in the first order less in the second, at the last step, by Welch: common seeds only make it better."""
    ends = [last(rows, order=order, **cell) for order in orders]
    there = [end for end in ends if end is not None and end["se"] is not None]
    terms = _terms(there, (1, -1))
    found = independent(terms) if len(terms) == 2 else None
    return judged(found, sign, terms[-1].value if terms else 0, what, unit, at=there[0] if there else None)


def _terms(rows: Rows, weights: Sequence[float]) -> list[Term]:
    return [Term(w, r["value"], r["se"], r["seeds"]) for w, r in zip(weights, rows, strict=False)]


Found = tuple[Difference | None, float]


def _end(mine: Rows, plain: Rows) -> Found:
    end = mine[-1]
    known = end["difference"] is not None and end["difference_se"] is not None
    return interval(end["difference"], end["difference_se"], end["seeds"]) if known else None, plain[-1]["value"]


def _mean(mine: Rows, plain: Rows) -> Found:
    there = [r for r in mine if r["difference"] is not None]
    if not there or any(r["difference_se"] is None for r in there):
        return None, 0.0
    value, se = (sum(r[k] for r in there) / len(there) for k in ("difference", "difference_se"))
    return interval(value, se, min(r["seeds"] for r in there)), sum(r["value"] for r in plain) / len(plain)


def _kept(mine: Rows, plain: Rows) -> Found:
    ends = [mine[-1], mine[0], plain[-1], plain[0]]
    if min(len(mine), len(plain)) < 2 or any(r["value"] <= 0 or r["se"] is None for r in ends):
        return None, 0.0
    logs = zip((1, -1, -1, 1), ends, strict=True)
    return independent([Term(w, math.log(r["value"]), r["se"] / r["value"], r["seeds"]) for w, r in logs]), 1.0


MEASURES: dict[Measure, Callable[[Rows, Rows], Found]] = {"end": _end, "mean": _mean, "kept": _kept}
