"""The findings for a reader: tables, sentences computed from them, and both as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from ebpo_sim import labels, report
from ebpo_sim.compare import text as shared
from llm import compare_measures as measures
from llm.compare_runner import Cell, clock_arm

Row = Mapping[str, Any]
Findings = Sequence[Row]
Table = tuple[Sequence[str], list[tuple[str, ...]]]
OUTCOMES = ("arm", "lr", "final", "− GRPO [95 %]", "mean of curve", "equal time", "− GRPO [95 %]", "fastest's end")
COSTS = ("arm", "ms/step", "steps", "rows", "silent", "S", "entropy", "grad norm", "no end")


def name(arm: str) -> str:
    """The arm for readers."""
    return labels.label(arm).short


def cells(found: Findings) -> list[Cell]:
    """(group size, order) in the order of the findings."""
    return list(dict.fromkeys(map(measures.cell_of, found)))


def pick(found: Findings, cell: Cell, arm: str, measure: str, reference: str = "") -> Row | None:
    """The row of a measure, or of a difference to the reference."""
    wanted = {"group_size": cell[0], "order": cell[1], "arm": arm, "measure": measure, "reference": reference}
    return next((r for r in found if all(r[k] == v for k, v in wanted.items())), None)


def outcomes(found: Findings, cell: Cell) -> list[tuple[str, ...]]:
    """Pass@1 in percent ± one standard error at equal steps and equal seconds, a line an arm."""
    lines: list[tuple[str, ...]] = []
    for arm, rate, edge in arms(found, cell):
        level, gap = partial(pick, found, cell, arm), partial(pick, found, cell, arm, reference=labels.REFERENCE)
        lines.append((
            name(arm), shared.rate(rate, edge), _percent(level("final")), interval(gap("final")),
            _percent(level("mean")), _percent(level("equal_time")), interval(gap("equal_time")),
            _percent(level("common_time")),
        ))  # fmt: skip
    return lines


def costs(found: Findings, cell: Cell) -> list[tuple[str, ...]]:
    """Seconds, and what explains them and the outcomes: means over training, entropy and the rest over its end."""
    lines: list[tuple[str, ...]] = []
    for arm, _, _ in arms(found, cell):
        row = partial(pick, found, cell, arm)
        lines.append((
            name(arm), _plain(row("seconds_per_step"), 1000, 0), _value(row("equal_time_steps"), 0),
            *(_value(row(m), 2) for m in ("rows_trained", "zero_signal", "shrinkage")), _plain(row("entropy")),
            _value(row("grad_norm"), 2), _value(row("missing_eos"), 3),
        ))  # fmt: skip
    return lines


def arms(found: Findings, cell: Cell) -> Iterator[tuple[str, float, bool]]:
    """(arm, its learning rate, whether that is at the edge of the grid) of a cell."""
    rows = [r for r in found if (r["group_size"], r["order"], r["measure"], r["reference"]) == (*cell, "final", "")]
    return ((r["arm"], r["learning_rate"], r["edge"]) for r in rows)


def _percent(row: Row | None) -> str:
    if row is None:
        return "-"
    return f"{100 * row['value']:.2f}" + ("" if row["se"] is None else f" ± {100 * row['se']:.2f}")


def _value(row: Row | None, digits: int) -> str:
    return report.number(None if row is None else row["value"], digits)


def _plain(row: Row | None, unit: float = 1, digits: int = 3) -> str:
    if row is None or row["se"] is None:
        return _value(row and {"value": unit * row["value"]}, digits)
    return f"{unit * row['value']:.{digits}f} ± {unit * row['se']:.{digits}f}"


def interval(row: Row | None) -> str:
    """A difference in points with its interval; ! 0 excluded after correction, (!) before it only."""
    if row is None:
        return "-"
    if row["low"] is None:
        return _points(row["value"])
    mark = {"appears": " !", "the opposite": " !", "before correction only": " (!)"}.get(row["verdict"], "")
    return f"{_points(row['value'])} [{_points(row['low'])}, {_points(row['high'])}]{mark}"


def _points(share: float) -> str:
    return f"{100 * share:+.2f}".replace("-", "−")


def sentence(row: Row, where: str) -> str:
    """One difference in words, with its interval and its verdict."""
    pair = f"{name(row['arm'])} − {name(row['reference'])} {where}: {_points(row['value'])} points"
    if row["low"] is None:
        return f"{pair} (one seed: no interval)."
    told = f"{pair} (95 % interval {_points(row['low'])} to {_points(row['high'])}, {row['seeds']} seeds)"
    return f"{told}: {row['verdict']} (Holm's correction for {row['comparisons']} comparisons)."


def verdicts(found: Findings, cell: Cell) -> list[str]:
    """What the runs of a cell say about EBPO and its repair, null results included, as sentences."""
    said = []
    for arm, _, _ in arms(found, cell):
        if labels.NO_SHRINKAGE not in measures.references(arm):
            continue
        for reference in measures.references(arm):
            for measure, where in (("final", "at equal steps"), ("equal_time", "at equal seconds")):
                row = pick(found, cell, arm, measure, reference)
                if row is not None:
                    said.append(sentence(row, where))
    return [*said, *_pace(found, cell), *shared.edges(name(arm) for arm, _, edge in arms(found, cell) if edge)]


def _pace(found: Findings, cell: Cell) -> list[str]:
    pace = {arm: pick(found, cell, arm, "seconds_per_step") for arm in (labels.REFERENCE, labels.SUBJECT)}
    rows = pick(found, cell, labels.REFERENCE, "rows_trained")
    mine, plain = pace[labels.SUBJECT], pace[labels.REFERENCE]
    if mine is None or plain is None or rows is None:
        return []
    share = plain["value"] / mine["value"]
    return [
        f"A step of GRPO takes {share:.2f} of the time of EBPO's, since only {100 * rows['value']:.0f} % of its rows "
        "have a gradient to compute."
    ]


def nulls(found: Findings) -> str:
    """How many of the differences of pass@1 stand: what is left of many comparisons."""
    lines = []
    for measure, where in (("final", "equal steps"), ("equal_time", "equal seconds")):
        family = [r for r in found if r["measure"] == measure and r["p"] is not None]
        kept = [r for r in family if r["verdict"] in ("appears", "the opposite")]
        if family:
            names = "; ".join(
                f"{name(r['arm'])} − {name(r['reference'])} at G = {r['group_size']}, {r['order']} "
                f"({_points(r['value'])})"
                for r in kept
            )
            lines.append(
                f"{where}: {len(kept)} of {len(family)} differences exclude 0 after correction"
                f"{': ' + names if names else ''}."
            )
    return "\n".join(lines)


def about(found: Findings, runs: Sequence[Row]) -> str:
    """What the numbers are, in one paragraph."""
    plain = [r for r in runs if r["stage"] == "evaluation"]
    seeds = {r["seeds"] for r in found if r["measure"] == "final" and not r["reference"]}
    tuning = {r["seed"] for r in runs if r["stage"] == "tuning"}
    others = "one other seed" if len(tuning) == 1 else f"{len(tuning)} other seeds"
    longer = sum(r["stage"] == "equal_time" for r in runs)
    tuned = (
        f"each at the learning rate with the highest mean final pass@1 over {others}, the same grid "
        "for all (* the grid's edge; the interval does not cover this choice, and the validation problems are the same)"
        if tuning else "all at one learning rate"
    )  # fmt: skip
    machines = sorted({r["machine"] for r in plain})
    return (
        f"Validation pass@1 in percent ± one standard error over {_range(seeds)} paired seeds of {plain[0]['steps']} "
        f"steps, {tuned}. Intervals: 95 %, Student's t on paired differences, one at a time; ! 0 excluded after Holm's "
        "correction over all differences of the same measure, those without runs counted, (!) before it only. "
        "equal time: schedules that last as long as "
        f"{name(clock_arm([r['arm'] for r in plain]))}'s (medians over seeds), at the same rates; "
        f"{longer} longer runs of it are there, and a dash is a cell without. "
        "fastest's end: all curves read when the fastest arm has finished, so the others' schedules are not complete. "
        "Seconds are of training alone. steps: those of equal time; rows: share with a gradient to compute; silent: "
        "share of groups without a signal; S: shrinkage; no end: answers without their end token. One warm start: its "
        f"variance is not in any interval. Timed on: {' | '.join(machines)}."
    )


def _range(seeds: set[int]) -> str:
    if len(seeds) == 1:
        return str(*seeds)
    return f"{min(seeds)} to {max(seeds)}" if seeds else "0"


def sections(found: Findings) -> Iterator[tuple[str, list[Table], list[str]]]:
    """A title, two tables and sentences for each cell."""
    for cell in cells(found):
        tables: list[Table] = [(OUTCOMES, outcomes(found, cell)), (COSTS, costs(found, cell))]
        yield f"G = {cell.group_size}, {cell.order}", tables, verdicts(found, cell)


def text(found: Findings, runs: Sequence[Row]) -> str:
    """All of it for a terminal."""
    parts = []
    for title, tables, lines in sections(found):
        drawn = [report.text_table(*table, ("left", *("right",) * (len(table[0]) - 1))) for table in tables]
        parts.append("\n\n".join([f"{title}\n{drawn[0]}", *drawn[1:], "\n".join(lines)]))
    return "\n\n".join([*parts, nulls(found), about(found, runs)])


def markdown(found: Findings, runs: Sequence[Row]) -> str:
    """All of it as Markdown."""
    parts = ["# Estimators compared on the tiny language model\n", about(found, runs) + "\n", nulls(found) + "\n"]
    for title, tables, lines in sections(found):
        parts += [f"## {title}\n", *(shared.markdown_table(*table) for table in tables)]
        parts.append("\n".join(f"- {line}" for line in lines) + "\n")
    return "\n".join(parts)
