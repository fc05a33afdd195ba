"""The paper's main table: methods by tasks at G = 4, ours beside the reported averages."""

from __future__ import annotations

from ebpo_sim import labels
from ebpo_sim.compare.contrasts import Contrast, contrast, last
from paper_figures import curves, reported, style, tables
from paper_figures.data import Data, Rows, steps
from paper_figures.tables import Table

NAME = "table_methods"
TITLE = "Table 1. Methods × tasks (G = 4, topic order)"
CAPTION = (
    f"{curves.RUNG}. The paper's tasks are five mathematics benchmarks; ours are three metrics of the learned policy, "
    "in percent at the end, ± 2 standard errors, each method at its own best learning rate: compare orders of methods, "
    "not numbers. Paper: average of five benchmarks, recomputed from its rows († printed otherwise), single runs; ‡ "
    f"from a {reported.DRAFT}."
)
METRICS = ("pass1", "maj16", "pass16")
ORDER = "blocked"
METHODS = {  # ours -> the paper's name
    "grpo": "GRPO",
    "dr_grpo": "Dr. GRPO",
    "rloo": "",
    "grpo_batch_norm": "",
    "ebpo": "EBPO",
    "ebpo_released": "",
    "ebpo_debiased": "",
}
ONLY_PAPER = ("DAPO", "EntropyMech")


def verdicts(data: Data) -> list[Contrast]:
    """EBPO minus GRPO in each metric, in points."""
    return [
        contrast(
            data.training, reported.CLAIMS[NAME].sign, f"{style.METRICS[metric]}, {label}, EBPO − GRPO, points",
            unit=100, **curves.cell(data, optimiser, metric, order=ORDER),
        )
        for optimiser, label in style.OPTIMISERS.items()
        for metric in METRICS
    ]  # fmt: skip


def table(data: Data) -> Table:
    """Our metrics under both optimisers, then the paper's averages for its three models."""
    rows = []
    for name in data.trained(METHODS):
        ours = [
            tables.percent(last(data.training, estimator=name, **curves.cell(data, optimiser, metric, order=ORDER)))
            for optimiser in style.OPTIMISERS
            for metric in METRICS
        ]
        rows.append((labels.label(name).name, *ours, *(_average(model, METHODS[name]) for model in reported.MODELS)))
    rows += [
        (method, *["–"] * 2 * len(METRICS), *(_average(model, method) for model in reported.MODELS))
        for method in ONLY_PAPER
    ]
    headers = ("method", *[style.METRICS[m] for m in METRICS] * 2, *reported.MODELS)
    groups = (("", 1), ("ours, SGD", 3), ("ours, Adam", 3), ("the paper, average", 3))
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
    place = (ORDER, curves.GROUP_SIZE, steps(data.training))
    found = [
        {**tables.measured(r), "task": r["metric"], "order": ORDER, "caveat": ""}
        for r in data.training
        if r["metric"] in METRICS and (r["order"], r["group_size"], r["step"]) == place
    ]
    for p in reported.G4:
        note = reported.DRAFT if p.draft else "single run"
        for task, score in zip(reported.TASKS, p.scores, strict=True):
            found.append(tables.printed(p.model, p.method, score, task=task, order=p.order, caveat=note))
    return found


PAGE = tables.page(NAME, TITLE, CAPTION, table, verdicts, records, (as_reported(),))
