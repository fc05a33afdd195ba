"""The paper's third table: prompts by topic against shuffled."""

from __future__ import annotations

from ebpo_sim import labels
from ebpo_sim.compare.contrasts import Contrast, between_orders, corrected, last
from paper_figures import curves, reported, style, tables
from paper_figures.data import Data, Rows, at_end
from paper_figures.tables import Table

NAME = "table_order"
TITLE = "Table 3. Topic order against shuffled (G = 4)"
CAPTION = (
    f"{curves.RUNG}. Ours: pass@1 in percent at the end, ± 2 standard errors, each method at its own best learning "
    "rate. Blocked (topic after topic) − shuffled compares runs on differently ordered prompts, intervals as if "
    "independent, 95 % intervals, words after Holm's correction within the regime. Paper: average of five "
    "benchmarks recomputed from its rows, single runs."
)
ORDERS = ("blocked", "shuffled")
PRINTED = ("topic", "shuffled")  # the paper's names
METHODS = ("grpo", "ebpo", "ebpo_debiased")
METRIC = "pass1"
MODELS = ("Qwen3-8B", "Qwen3-14B")  # those reported in both orders


def _difference(data: Data, regime: str, optimiser: str, name: str, what: str) -> Contrast:
    cell = curves.cell(data, regime, optimiser, METRIC)
    del cell["order"]
    return between_orders(data.of(METRIC), reported.CLAIMS[NAME].sign, what, 100, ORDERS, estimator=name, **cell)


def verdicts(data: Data) -> list[Contrast]:
    """Topic minus shuffled for EBPO, in points (the table has GRPO's, which has no prior to gain by it)."""
    return corrected([
        _difference(data, regime, optimiser, "ebpo", f"{regime}, EBPO, {label}, blocked − shuffled, points")
        for regime in data.regimes
        for optimiser, label in style.OPTIMISERS.items()
    ])  # fmt: skip


def table(data: Data) -> Table:
    """Methods by regime and order, then the paper's two models."""
    rows = []
    for optimiser, label in reversed(style.OPTIMISERS.items()):
        for name in data.trained(METHODS):
            cells = []
            for regime in data.regimes:
                for order in ORDERS:
                    cell = curves.cell(data, regime, optimiser, METRIC, order=order)
                    cells.append(tables.percent(last(data.of(METRIC), estimator=name, **cell)))
                cells.append(_difference(data, regime, optimiser, name, "").numbers or "–")
            method = {"grpo": "GRPO", "ebpo": "EBPO"}.get(name, "") if optimiser == curves.MAIN_OPTIMISER else ""
            for model in MODELS:
                cells += _reported(model, method)
            rows.append((f"{labels.label(name).name}, {label}", *cells))
    headers = ("method", *[*ORDERS, "difference"] * len(data.regimes), *[*PRINTED, "difference"] * len(MODELS))
    groups = [(text, 3) for text in data.regimes.values()] + [(f"paper, {model}", 3) for model in MODELS]
    return Table(TITLE, headers, rows, (("", 1), *groups))


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
        for r in at_end(data.training)
        if r["metric"] == METRIC and r["order"] in ORDERS and r["group_size"] == curves.GROUP_SIZE
    ]
    for p in reported.G4:
        if p.method == "EBPO" and p.model in MODELS:
            for task, score in zip(reported.TASKS, p.scores, strict=True):
                found.append(tables.printed(p.model, p.method, score, order=p.order, task=task))
    return found


PAGE = tables.page(NAME, TITLE, CAPTION, table, verdicts, records)
