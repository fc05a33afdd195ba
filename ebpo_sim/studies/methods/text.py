"""The methods study in words: leaderboards, shares, controls, a conclusion a regime."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ebpo_sim import report
from ebpo_sim.compare import text
from ebpo_sim.labels import REFERENCE
from ebpo_sim.studies.methods.arms import Left
from ebpo_sim.studies.methods.cells import PLACEBO
from ebpo_sim.studies.methods.outcomes import MATCHED
from ebpo_sim.studies.methods.shares import REST
from ebpo_sim.studies.training.outcomes import ASYMPTOTE, END, MIDPOINT

Rows = list[dict[str, Any]]
Row = Mapping[str, Any]
COLUMNS = {
    ("rollouts", "far"): "rollouts", ("rows", "far"): "rows", ("seconds 1:1", "far"): "seconds 1:1",
    ("seconds 4:1", "far"): "seconds 4:1", ("seconds 1:4", "far"): "seconds 1:4", (MATCHED, "far"): "matched step",
    (END, ""): END, (ASYMPTOTE, ""): ASYMPTOTE, (MIDPOINT, ""): MIDPOINT,
}  # fmt: skip
Place = tuple[str, int, float]


def places(told: Rows) -> list[Place]:
    """(regime, mini-batches, mismatch) of the leaderboards, as they were asked for."""
    return list(dict.fromkeys((r["regime"], r["minibatches"], r["mismatch"]) for r in told))


def select(told: Rows, place: Place) -> Rows:
    """The rows of one place."""
    return [r for r in told if (r["regime"], r["minibatches"], r["mismatch"]) == place]


def ranked(told: Rows, place: Place, quantity: str = "rollouts", target: str = "far") -> Rows:
    """One leaderboard, cheapest first, those without a number last, by how many runs had one."""
    mine = [r for r in select(told, place) if (r["quantity"], r["target"]) == (quantity, target)]

    def order(r: Row) -> tuple[float, float]:
        at = 0.0 if r["estimator"] == REFERENCE else r["value"]
        return (math.inf, -r["met"]) if at is None else (at, 0.0)

    return sorted(mine, key=order)


def effect(row: Row) -> str:
    """A ratio or difference with its interval, ! where it is a direction after correction; how many runs reach it."""
    if row["estimator"] == REFERENCE:
        return "+0.00" if row["quantity"] in (END, ASYMPTOTE) else "1.00"
    if row["value"] is None:
        return f"{row['met']} of {row['runs']}" if row["met"] < row["runs"] else "-"
    plain = row["quantity"] in (END, ASYMPTOTE)
    value, low, high = (row[k] if plain else math.exp(row[k]) for k in ("value", "low", "high"))
    sign = "+" if plain else ""
    mark = "!" if row["verdict"] in ("appears", "the opposite") else " "
    return f"{value:{sign}.2f} [{low:{sign}.2f}, {high:{sign}.2f}]{mark}"


def title(rows: Rows, place: Place) -> str:
    """What a leaderboard is of."""
    first = select(rows, place)[0]
    noise = f", sampler's logits off by {place[2]:g}" if place[2] else ""
    return (
        f"{place[0]}: nu/N = {first['noise_ratio']:.2g}, {place[1]} mini-batch{'es' * (place[1] > 1)} a batch{noise}, "
        f"{first['worlds']} world{'s' if first['worlds'] > 1 else ''}"
    )


def show(tables: Mapping[str, Rows], sentence: str, left: Sequence[Left]) -> str:
    """Leaderboards, shares and effects of parts, the placebo, what is left out, the conclusion."""
    told, found = tables["leaderboard"], list[str]()
    for place in places(told):
        at = {(r["estimator"], r["quantity"], r["target"]): r for r in select(told, place)}
        lines = [
            (str(i + 1), r["estimator"], r["verdict"] or "-", *(effect(at[r["estimator"], *key]) for key in COLUMNS))
            for i, r in enumerate(ranked(told, place))
        ]
        headers = ("", "method", "after correction", *COLUMNS.values())
        about = "ratios to GRPO, the asymptote's difference; 95 %, ! a direction after correction; n of m: runs that do"
        found.append(f"{title(told, place)}: {about}\n{report.text_table(headers, lines)}")
        edge = [r for r in select(tables["table"], place) if r["edge"]]
        found += text.edges(f"{r['estimator']}, {r['world']}" for r in edge)
    if tables["shares"]:
        lines = [
            (r["regime"], r["arms"], str(r["count"]), r["part"], str(r["levels"] or "-"),
             f"{r['share']:.0%} [{r['low']:.0%}, {r['high']:.0%}]") for r in tables["shares"]
        ]  # fmt: skip
        headers = ("regime", "arms", "of them", "part", "levels", "share, 95 %")
        found.append(f"Which parts matter: shares of variance of log rollouts\n{report.text_table(headers, lines)}")
        lines = [
            (r["regime"], r["part"], r["level"], r["against"], effect({**r, "estimator": "", "quantity": "rollouts"}),
             r["verdict"]) for r in tables["effects"]
        ]  # fmt: skip
        headers = ("regime", "part", "level", "against", "rollouts, ratio", "after correction")
        found.append(f"Levels of the design\n{report.text_table(headers, lines)}")
    lines = [
        (r["regime"], r["world"], r["estimator"], f"{r['value']:+.3f} [{r['low']:+.3f}, {r['high']:+.3f}]")
        for r in tables["gains"]
    ]
    found.append("Placebo: gain of pass@1\n" + report.text_table(("regime", "world", "arm", "gain, 95 %"), lines))
    found += [f"Left out: {x.recipe}: {x.reason}" for x in left]
    return "\n\n".join([*found, sentence])


def conclusion(told: Rows, shares: Rows, gained: Rows) -> str:
    """A computed line a regime: who is cheaper or dearer than GRPO after correction, the part that matters most; and
    the placebo's largest gain."""
    lines, first = [], places(told)[0][1:]
    for place in [p for p in places(told) if p[1:] == first]:
        rows = [r for r in ranked(told, place) if r["estimator"] not in (REFERENCE, PLACEBO)]
        better, worse = ([r for r in rows if r["verdict"] == word] for word in ("appears", "the opposite"))
        missed = [r for r in rows if r["met"] < r["runs"]]
        named = ", ".join(f"{r['estimator']} {effect(r).rstrip('!')}" for r in better[:3])
        line = (
            f"{place[0]} (nu/N = {rows[0]['noise_ratio']:.2g}): of {len(rows)} methods {len(better)} need fewer "
            f"rollouts than GRPO{f' ({named})' if named else ''}, {len(worse)} more, {len(missed)} miss the target in "
            "some run"
        ) if rows else place[0]  # fmt: skip
        mine = [r for r in shares if (r["regime"], r["arms"]) == (place[0], "design") and r["part"] != REST]
        if mine:
            top = max(mine, key=lambda r: r["share"])
            line += (
                f"; the part that matters most: {top['part']}, {top['share']:.0%} [{top['low']:.0%}, {top['high']:.0%}]"
            )
        lines.append(line)
    worst = max((r for r in gained if r["estimator"] == PLACEBO), key=lambda r: r["value"])
    lines.append(f"with rewards in random order pass@1 gains at most {worst['value']:+.3f} ({worst['regime']})")
    return ". ".join(line[0].upper() + line[1:] for line in lines) + "."
