"""The paper's main table: methods by tasks at G = 4, ours beside the reported averages."""

from __future__ import annotations

from ebpo_sim import labels
from ebpo_sim.compare.contrasts import Contrast, contrast, corrected, last
from paper_figures import curves, reported, style, tables
from paper_figures.data import Data, Rows, at_end
from paper_figures.tables import Table

NAME = "table_methods"
TITLE = "Table 1. Methods × tasks (G = 4)"
CAPTION = (
    f"{curves.RUNG}, shuffled. The paper's tasks are five mathematics benchmarks; ours are three metrics of the "
    "learned policy in three regimes under Adam, in percent at the end, ± 2 standard errors, each method at its own "
    "best learning rate: compare orders of methods, not numbers. Differences: 95 % intervals, words after Holm's "
    "correction within the regime. Paper: topic order, average of five benchmarks, recomputed from its rows († "
    f"printed otherwise), single runs; ‡ from a {reported.DRAFT}."
)
METRICS = ("pass1", "maj16", "pass16")
METHODS = {  # ours -> the paper's name
    "grpo": "GRPO",
    "dr_grpo": "Dr. GRPO",
    "grpo_batch_norm": "",
    "ebpo": "EBPO",
    "ebpo_released": "",
    "ebpo_debiased": "",
    "loo_table:weights=score,memory=0.95": "",
    "reinforce": "",
}
ONLY_PAPER = ("DAPO", "EntropyMech")


def verdicts(data: Data) -> list[Contrast]:
    """EBPO minus GRPO in each metric, in points."""
    return corrected([
        contrast(
            data.of(metric), reported.CLAIMS[NAME].sign, f"{regime}, {style.METRICS[metric]}, {label}, points",
            unit=100, **curves.cell(data, regime, optimiser, metric),
        )
        for regime in data.regimes
        for optimiser, label in style.OPTIMISERS.items()
        for metric in METRICS
    ])  # fmt: skip


def table(data: Data) -> Table:
    """Methods by regime and metric, then the paper's three models."""
    rows = []
    for name in data.trained(METHODS):
        cells = [
            tables.percent(last(data.of(metric), estimator=name, **curves.cell(data, r, curves.MAIN_OPTIMISER, metric)))
            for r in data.regimes
            for metric in METRICS
        ]
        rows.append((labels.label(name).name, *cells, *(_average(model, METHODS[name]) for model in reported.MODELS)))
    for name in ONLY_PAPER:
        dashes = ("–",) * len(data.regimes) * len(METRICS)
        rows.append((name, *dashes, *(_average(model, name) for model in reported.MODELS)))
    headers = ("method", *(style.METRICS[m] for _ in data.regimes for m in METRICS), *reported.MODELS)
    groups = (("", 1), *((text, len(METRICS)) for text in data.regimes.values()), ("paper", len(reported.MODELS)))
    return Table(TITLE, headers, rows, groups)


def _average(model: str, method: str) -> str:
    row = reported.result(model, method)
    if row is None:
        return "–"
    return f"{row.mean:.2f}" + ("†" if (model, method) in reported.SLIPS else "") + ("‡" if row.draft else "")


def as_reported() -> Table:
    """The paper's rows in full."""
    rows = [
        (
            r.model, r.method + ("‡" if r.draft else ""), r.order, *(f"{x:.2f}" for x in r.scores),
            "–" if r.average is None else f"{r.average:.2f}", f"{r.mean:.2f}",
        )
        for r in reported.G4
    ]  # fmt: skip
    headers = ("model", "method", "order", *reported.TASKS, "average as printed", "recomputed")
    return Table(f"As reported ({reported.SOURCE}; ‡ {reported.DRAFT})", headers, rows)


def records(data: Data) -> Rows:
    """The long table: ours and the paper's, one value a line."""
    found = [
        {**tables.measured(r), "task": r["metric"], "order": r["order"], "caveat": ""}
        for r in at_end(data.training)
        if r["metric"] in METRICS and (r["order"], r["group_size"]) == ("shuffled", curves.GROUP_SIZE)
    ]
    for p in reported.G4:
        note = reported.DRAFT if p.draft else "single run"
        for task, score in zip(reported.TASKS, p.scores, strict=True):
            found.append(tables.printed(p.model, p.method, score, task=task, order=p.order, caveat=note))
    return found


PAGE = tables.page(NAME, TITLE, CAPTION, table, verdicts, records, (as_reported(),))
