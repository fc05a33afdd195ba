"""The paper's second table: averages by group size, ours beside the reported ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ebpo_sim import labels
from ebpo_sim.compare.contrasts import Contrast, contrast, last, select
from paper_figures import curves, language_model, reported, style, tables
from paper_figures.data import TRAINING, Data, Rows, steps
from paper_figures.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "table_group_sizes"
TITLE = "Table 2. Group sizes"
CAPTION = (
    f"{curves.RUNG}, shuffled. Ours: pass@1 in percent at the end, ± 2 standard errors, each method at its own best "
    "learning rate for its group size, same number of prompts a step. Paper: Qwen3-8B, average of five benchmarks as "
    f"printed, topic order, single runs; ‡ from a {reported.DRAFT}."
)
NEEDS = (TRAINING,)
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


def all_tables(data: Data) -> list[Table]:
    return [table(data)]


def records(data: Data) -> Rows:
    """The long table: ours at the end of training, and the paper's averages."""
    found: Rows = []
    ends = {
        optimiser: steps([r for r in data.rows if r["optimiser"] == optimiser]) for optimiser in curves.columns(data)
    }
    for r in data.rows:
        if (r["metric"], r["order"], r["step"]) == (METRIC, "shuffled", ends[r["optimiser"]]):
            found.append({
                "source": "ours", "world_or_model": r["world"], "method": r["estimator"], "optimiser": r["optimiser"],
                "tuning": r["tuning"], "group_size": r["group_size"],
                "percent": None if r["value"] is None else 100 * r["value"],
                "half_width": None if r["se"] is None else 200 * r["se"], "caveat": "",
            })  # fmt: skip
    for method, by_size in reported.BY_GROUP_SIZE.items():
        for size, value in by_size.items():
            draft = method == "EBPO" and size in reported.DRAFT_SIZES
            found.append({
                "source": "paper", "world_or_model": "Qwen3-8B", "method": method, "optimiser": "", "tuning": "",
                "group_size": size, "percent": value, "half_width": None,
                "caveat": reported.DRAFT if draft else "single run, as printed",
            })  # fmt: skip
    return found


def draw(data: Data) -> Figure:
    """The table as a picture."""
    caption = (
        f"{CAPTION} {data.scale}, {steps(data.training)} steps, {data.world_text}.{language_model.note(NAME, data)}"
    )
    return tables.draw(TITLE, table(data), reported.CLAIMS[NAME].text, verdicts(data), caption)
