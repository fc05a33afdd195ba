"""The paper's main table: methods by tasks at G = 4, ours beside the reported averages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpo_sim import labels
from ebpo_sim.compare.contrasts import Contrast, contrast, last
from paper_figures import curves, language_model, reported, style, tables
from paper_figures.data import TRAINING, Data, Rows, steps
from paper_figures.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "table_methods"
TITLE = "Table 1. Methods × tasks (G = 4, topic order)"
CAPTION = (
    f"{curves.RUNG}. The paper's tasks are five mathematics benchmarks; ours are three metrics of the learned policy, "
    "in percent at the end, ± 2 standard errors, each method at its own best learning rate: compare orders of methods, "
    "not numbers. Paper: average of five benchmarks, recomputed from its rows († printed otherwise), single runs; ‡ "
    f"from a {reported.DRAFT}."
)
NEEDS = (TRAINING,)
METRICS = ("pass1", "maj16", "pass16")
ORDER = "topic"
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


def all_tables(data: Data) -> list[Table]:
    """Ours beside the paper's averages, and the paper's rows in full."""
    rows = [
        (
            r.model, r.method + ("‡" if r.draft else ""), r.order, *(f"{x:.2f}" for x in r.scores),
            "–" if r.average is None else f"{r.average:.2f}", f"{r.mean:.2f}",
        )
        for r in reported.G4
    ]  # fmt: skip
    headers = ("model", "method", "order", *reported.TASKS, "average as printed", "recomputed")
    return [table(data), Table(f"As reported ({reported.SOURCE}; ‡ {reported.DRAFT})", headers, rows)]


def records(data: Data) -> Rows:
    """The long table: ours and the paper's, one value a line."""
    found = []
    for r in data.training:
        if (
            r["metric"] in METRICS
            and r["order"] == ORDER
            and r["group_size"] == 4
            and r["step"] == steps(data.training)
        ):
            found.append(_record("ours", r["world"], r["estimator"], r["metric"], r["optimiser"], r["tuning"]) | {
                "percent": None if r["value"] is None else 100 * r["value"],
                "half_width": None if r["se"] is None else 200 * r["se"],
            })  # fmt: skip
    for p in reported.G4:
        note = reported.DRAFT if p.draft else "single run"
        for task, score in zip(reported.TASKS, p.scores, strict=True):
            found.append(_record("paper", p.model, p.method, task, "", p.order) | {"percent": score, "caveat": note})
    return found


def _record(source: str, where: str, method: str, task: str, optimiser: str, setting: str) -> dict[str, object]:
    named = {"source": source, "world_or_model": where, "method": method, "task": task, "optimiser": optimiser}
    return {**named, "setting": setting, "percent": None, "half_width": None, "caveat": ""}


def draw(data: Data) -> Figure:
    """The table as a picture."""
    caption = f"{CAPTION} {curves.seeds(data)}.{language_model.note(NAME, data)}"
    return tables.draw(TITLE, table(data), reported.CLAIMS[NAME].text, verdicts(data), caption)
