"""The paper's third table: prompts by topic against shuffled."""

from __future__ import annotations

from ebpo_sim import labels
from ebpo_sim.compare.contrasts import Contrast, between_orders, last
from paper_figures import curves, reported, style, tables
from paper_figures.data import Data, Rows, steps
from paper_figures.tables import Table

NAME = "table_order"
TITLE = "Table 3. Topic order against shuffled (G = 4)"
CAPTION = (
    f"{curves.RUNG}. Ours: pass@1 in percent at the end, ± 2 standard errors, each method at its own best learning "
    "rate. Blocked (topic after topic) − shuffled compares runs on differently ordered prompts, intervals as if "
    "independent. Paper: average of five benchmarks recomputed from its rows, single runs."
)
ORDERS = ("blocked", "shuffled")
PRINTED = ("topic", "shuffled")  # the paper's names
METHODS = ("grpo", "ebpo", "ebpo_released", "ebpo_debiased")
METRIC = "pass1"
MODELS = ("Qwen3-8B", "Qwen3-14B")  # those reported in both orders


def _difference(data: Data, optimiser: str, name: str, what: str) -> Contrast:
    cell = curves.cell(data, optimiser, METRIC)
    del cell["order"]
    return between_orders(data.training, reported.CLAIMS[NAME].sign, what, 100, ORDERS, estimator=name, **cell)


def verdicts(data: Data) -> list[Contrast]:
    """Topic minus shuffled for EBPO, in points (the table has GRPO's, which has no prior to gain by it)."""
    return [
        _difference(data, optimiser, "ebpo", f"EBPO, {label}, blocked − shuffled, points")
        for optimiser, label in style.OPTIMISERS.items()
    ]


def table(data: Data) -> Table:
    """Methods by optimiser and order, then the paper's two models."""
    rows = []
    for name in data.trained(METHODS):
        cells = []
        for optimiser in style.OPTIMISERS:
            for order in ORDERS:
                cell = curves.cell(data, optimiser, METRIC, order=order)
                cells.append(tables.percent(last(data.training, estimator=name, **cell)))
            cells.append(_difference(data, optimiser, name, "").numbers or "–")
        for model in MODELS:
            cells += _reported(model, {"grpo": "GRPO", "ebpo": "EBPO"}.get(name, ""))
        rows.append((labels.label(name).name, *cells))
    headers = ("method", *[*ORDERS, "difference"] * 2, *[*PRINTED, "difference"] * 2)
    groups = (("", 1), ("ours, SGD", 3), ("ours, Adam", 3), *((f"paper, {model}", 3) for model in MODELS))
    return Table(TITLE, headers, rows, groups)


def _reported(model: str, method: str) -> list[str]:
    """The paper's averages in both orders and their difference."""
    means = [None if r is None else r.mean for r in (reported.result(model, method, order) for order in PRINTED)]
    both = [m for m in means if m is not None]
    shown = ["–" if m is None else f"{m:.2f}" for m in means]
    return [*shown, f"{both[0] - both[1]:+.2f}" if len(both) == 2 else "–"]


def records(data: Data) -> Rows:
    """The long table: ours at the end of training, and the paper's tasks."""
    found = [
        {**tables.measured(r), "order": r["order"], "task": METRIC}
        for r in data.training
        if r["metric"] == METRIC and r["order"] in ORDERS and (r["group_size"], r["step"]) == (4, steps(data.training))
    ]
    for p in reported.G4:
        if p.method == "EBPO" and p.model in MODELS:
            for task, score in zip(reported.TASKS, p.scores, strict=True):
                found.append(tables.printed(p.model, p.method, score, order=p.order, task=task))
    return found


PAGE = tables.page(NAME, TITLE, CAPTION, table, verdicts, records)
