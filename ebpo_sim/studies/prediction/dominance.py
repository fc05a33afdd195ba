"""Which method is best where: least noise at the start, least rollouts, rows and seconds to the far target."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ebpo_sim.compare.differences import Difference, Term, independent, interval
from ebpo_sim.labels import label

Rows = list[dict[str, Any]]
WORTH = ("ratio of nu, start", "ratio of rollouts", "ratio of rows", "ratio of seconds 1:1")


def dominance(rows: Sequence[Mapping[str, Any]], setup: str) -> Rows:
    """A row a regime, group size and quantity of WORTH: the method whose geometric mean over worlds is least, its value
    and 95 % interval, and "within", those whose mean lies in that interval. A world counts where any method has a
    number, and a method if it has one in every world that counts."""
    listed: dict[tuple[str, int, str], dict[str, dict[str, Mapping[str, Any]]]] = {}
    for r in rows:
        if r["setup"] == setup and r["quantity"] in WORTH and r["target"] in (None, "far") and r["value"] is not None:
            place = listed.setdefault((r["regime"], r["group_size"], r["quantity"]), {})
            place.setdefault(r["estimator"], {})[r["world"]] = r
    made: Rows = []
    for (regime, size, quantity), methods in listed.items():
        worlds = {world for cells in methods.values() for world in cells}
        means = {name: _mean(list(cells.values())) for name, cells in methods.items() if cells.keys() == worlds}
        if not means:
            continue
        best = min(means, key=lambda name: means[name].value)
        found = means[best]
        within = [n for n, m in means.items() if n != best and found.high is not None and m.value <= found.high]
        values = {k: math.exp(v) for k, v in (("value", found.value), ("low", found.low), ("high", found.high)) if v}
        where = {"regime": regime, "group_size": size, "quantity": quantity, "worlds": len(worlds), "best": best}
        made.append({**where, **values, "within": sorted(within, key=lambda name: means[name].value)})
    return made


def _mean(cells: Sequence[Mapping[str, Any]]) -> Difference:
    """Of log ratios; those of noise, from many redraws, with a normal interval."""
    terms = [Term(1 / len(cells), math.log(r["value"]), r["se"], r["seeds"] or 0) for r in cells]
    if not all(term.seeds for term in terms):
        sums = sum(t.weight * t.value for t in terms), math.hypot(*(t.weight * t.se for t in terms))
        return interval(*sums, 0, math.inf)
    return independent(terms)


def table(found: Rows) -> list[tuple[str, ...]]:
    """A line a regime and group size: the best by each quantity of WORTH, its interval, those within it."""
    by = {(r["regime"], r["group_size"], r["quantity"]): r for r in found}
    lines = []
    for place in dict.fromkeys(key[:2] for key in by):
        shown = [by.get((*place, quantity)) for quantity in WORTH]
        lines.append((place[0], str(place[1]), *("-" if r is None else _shown(r) for r in shown)))
    return lines


def _shown(r: Mapping[str, Any]) -> str:
    also = f"; {', '.join(_name(n) for n in r['within'])}" if r["within"] else ""
    return f"{_name(r['best'])} {r['value']:.2f} [{r['low']:.2f}, {r['high']:.2f}]{also}"


def _name(method: str) -> str:
    estimator, plus, rest = method.partition(" + ")
    preset, _, settings = estimator.partition(":")
    told = ", ".join(s.replace("=", " ") for s in settings.split(",") if s and not s.startswith("memory"))
    return label(preset).name + (f" ({told})" if told else "") + (f" + {rest}" if plus else "")
