"""The paper's second table: averages by group size, ours beside the reported ones."""

from __future__ import annotations

from itertools import chain
from typing import Any

from ebpo_sim import labels
from ebpo_sim.compare.contrasts import Contrast, contrast, corrected, last, select
from paper_figures import curves, reported, style, tables
from paper_figures.data import Data, Rows, at_end
from paper_figures.tables import Table

NAME = "table_group_sizes"
TITLE = "Table 2. Group sizes"
CAPTION = (
    f"{curves.RUNG}, shuffled. Ours: pass@1 in percent at the end, ± 2 standard errors, each method at its own best "
    "learning rate for its group size, the same number of rollouts a step. Differences: 95 % intervals, words after "
    "Holm's correction within the regime. Paper: Qwen3-8B, average of five benchmarks as printed, topic order, single "
    f"runs; ‡ from a {reported.DRAFT}."
)
METHODS = {"grpo": "GRPO", "ebpo": "EBPO", "ebpo_debiased": ""}  # ours -> the paper's name
TINY_METHODS = {  # the tiny LM's -> the row it stands in
    "grpo": "grpo", "ebpo": "ebpo", "ebpo_debiased:memory=0.95": "ebpo_debiased", "ebpo:shrinkage=0": "",
    "ebpo:shrinkage=1": "",
}  # fmt: skip
METRIC = "pass1"


def _sizes(data: Data, column: str) -> list[int]:
    """The group sizes of a column, ascending."""
    where = curves.cell(data, column, curves.MAIN_OPTIMISER, METRIC)
    del where["group_size"]
    return sorted({r["group_size"] for r in select(data.of(METRIC), **where)})


def _cell(data: Data, column: str, optimiser: str, size: int) -> dict[str, Any]:
    return {**curves.cell(data, column, optimiser, METRIC), "group_size": size}


def verdicts(data: Data) -> list[Contrast]:
    """EBPO minus GRPO at each group size, in points."""
    return corrected([
        contrast(
            data.of(METRIC), reported.CLAIMS[NAME].sign, f"{label}, G = {size}, points", unit=100,
            **_cell(data, column, optimiser, size),
        )
        for column, optimiser, label in curves.places(data)
        for size in _sizes(data, column)
        if select(data.of(METRIC), **_cell(data, column, optimiser, size))
    ])  # fmt: skip


def table(data: Data) -> Table:
    """A group of columns for each regime, the tiny LM and the paper, in each a column a group size."""
    columns = {column: _sizes(data, column) for column in curves.columns(data)}
    rows: list[tuple[str, ...]] = []
    for optimiser, label in reversed(style.OPTIMISERS.items()):
        for name in METHODS:
            cells = []
            for column, sizes in columns.items():
                tiny = column not in data.regimes
                arm = next(k for k, row in TINY_METHODS.items() if row == name) if tiny else name
                there = not tiny or optimiser == curves.MAIN_OPTIMISER
                cells += [_shown(data, column, optimiser, size, arm if there else "") for size in sizes]
            cells += _printed(METHODS[name] if optimiser == curves.MAIN_OPTIMISER else "")
            rows.append((f"{labels.label(name).name}, {label}", *cells))
    for arm in (k for k, row in TINY_METHODS.items() if not row and data.llm):
        cells = [_shown(data, c, curves.MAIN_OPTIMISER, g, "" if c in data.regimes else arm)
                 for c, sizes in columns.items() for g in sizes]  # fmt: skip
        rows.append((labels.label(arm).name, *cells, *_printed("")))
    rows.append(("DAPO", *("–" for sizes in columns.values() for _ in sizes), *_printed("DAPO")))
    printed = list(reported.BY_GROUP_SIZE["EBPO"])
    groups = [(text, len(columns[column])) for column, text in curves.columns(data).items()]
    headers = ("method", *(f"G = {g}" for g in [*chain(*columns.values()), *printed]))
    return Table(TITLE, headers, rows, (("", 1), *groups, ("paper, Qwen3-8B", len(printed))))


def _shown(data: Data, column: str, optimiser: str, size: int, arm: str) -> str:
    return tables.percent(last(data.of(METRIC), estimator=arm, **_cell(data, column, optimiser, size)))


def _printed(method: str) -> list[str]:
    """The paper's averages of a method by group size."""
    known, drafts = reported.BY_GROUP_SIZE.get(method, {}), reported.DRAFT_SIZES if method == "EBPO" else ()
    sizes = reported.BY_GROUP_SIZE["EBPO"]
    return [f"{known[g]:.2f}" + ("‡" if g in drafts else "") if g in known else "–" for g in sizes]


def records(data: Data) -> Rows:
    """The long table: ours at the end of training, and the paper's averages."""
    found = [
        {**tables.measured(r), "group_size": r["group_size"], "caveat": ""}
        for r in at_end(data.rows)
        if (r["metric"], r["order"]) == (METRIC, "shuffled")
    ]
    for method, by_size in reported.BY_GROUP_SIZE.items():
        for size, value in by_size.items():
            draft = method == "EBPO" and size in reported.DRAFT_SIZES
            caveat = reported.DRAFT if draft else "single run, as printed"
            found.append(tables.printed("Qwen3-8B", method, value, group_size=size, caveat=caveat))
    return found


PAGE = tables.page(NAME, TITLE, CAPTION, table, verdicts, records)
