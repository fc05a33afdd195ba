"""The paper's second table: averages by group size, ours beside the reported ones."""

from __future__ import annotations

from typing import Any

from ebpo_sim import labels
from ebpo_sim.compare.contrasts import Contrast, contrast, last, select
from paper_figures import curves, reported, style, tables
from paper_figures.data import Data, Rows, steps
from paper_figures.tables import Table

NAME = "table_group_sizes"
TITLE = "Table 2. Group sizes"
CAPTION = (
    f"{curves.RUNG}, shuffled. Ours: pass@1 in percent at the end, ± 2 standard errors, each method at its own best "
    "learning rate for its group size, same number of prompts a step. Paper: Qwen3-8B, average of five benchmarks as "
    f"printed, topic order, single runs; ‡ from a {reported.DRAFT}."
)
METHODS = ("grpo", "ebpo", "ebpo_debiased")
TINY_METHODS = ("grpo", "ebpo:shrinkage=0", "ebpo", "ebpo:shrinkage=1", "ebpo_debiased:memory=0.95")
METRIC = "pass1"


def sizes(data: Data) -> list[int]:
    """The group sizes of both, ascending."""
    ours = {r["group_size"] for r in data.rows if r["order"] == "shuffled"}
    return sorted(ours | set(reported.BY_GROUP_SIZE["EBPO"]))


def _cell(data: Data, optimiser: str, size: int) -> dict[str, Any]:
    return {**curves.cell(data, optimiser, METRIC), "group_size": size}


def verdicts(data: Data) -> list[Contrast]:
    """EBPO minus GRPO at each group size, in points."""
    return [
        contrast(
            data.rows, reported.CLAIMS[NAME].sign, f"{label}, G = {size}, EBPO − GRPO, points", unit=100,
            **_cell(data, optimiser, size),
        )
        for optimiser, label in curves.columns(data).items()
        for size in sizes(data)
        if select(data.rows, **_cell(data, optimiser, size))
    ]  # fmt: skip


def table(data: Data) -> Table:
    """A column for each group size: ours under both optimisers, then the paper's averages."""
    rows: list[tuple[str, ...]] = []
    for optimiser, label in curves.columns(data).items():
        for name in METHODS if optimiser in style.OPTIMISERS else TINY_METHODS:
            cells = (last(data.rows, estimator=name, **_cell(data, optimiser, size)) for size in sizes(data))
            rows.append((f"{labels.label(name).name}, {label}", *map(tables.percent, cells)))
    for method, by_size in reported.BY_GROUP_SIZE.items():
        draft = reported.DRAFT_SIZES if method == "EBPO" else ()
        shown = (f"{by_size[g]:.2f}" + ("‡" if g in draft else "") if g in by_size else "–" for g in sizes(data))
        rows.append((f"paper: {method}", *shown))
    return Table(TITLE, ("method", *(f"G = {g}" for g in sizes(data))), rows)


def records(data: Data) -> Rows:
    """The long table: ours at the end of training, and the paper's averages."""
    ends = {name: steps([r for r in data.rows if r["optimiser"] == name]) for name in curves.columns(data)}
    found = [
        {**tables.measured(r), "group_size": r["group_size"], "caveat": ""}
        for r in data.rows
        if (r["metric"], r["order"], r["step"]) == (METRIC, "shuffled", ends[r["optimiser"]])
    ]
    for method, by_size in reported.BY_GROUP_SIZE.items():
        for size, value in by_size.items():
            draft = method == "EBPO" and size in reported.DRAFT_SIZES
            caveat = reported.DRAFT if draft else "single run, as printed"
            found.append(tables.printed("Qwen3-8B", method, value, group_size=size, caveat=caveat))
    return found


def scale(data: Data) -> str:
    """For the caption: all group sizes are shown."""
    return f"{data.scale}, {steps(data.training)} steps, {data.world_text}"


PAGE = tables.page(NAME, TITLE, CAPTION, table, verdicts, records, scale=scale)
