"""Rung 3: curves of the tiny language model, from a table that `python -m llm.compare --publish` writes.

Where the table is there, its runs stand beside SGD and Adam of the training study, as a third column.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from scipy.special import stdtr

from ebpo_sim.errors import InputError
from paper_figures.data import Data

TABLE = Path(__file__).parent / "llm_curves.csv"
OPTIMISER, WORLD = "lm", "tiny language model"  # what names its rows among those of the training study
WHOLE, REAL = ("group_size", "step", "seeds"), ("learning_rate", "value", "se", "difference", "difference_se", "p_holm")
COLUMNS = {*WHOLE, *REAL, "estimator", "order", "metric"}
INSTEAD = {"maj16": "pass1", "gradient_cosine": "zero_signal"}  # what it shows of what it has not
RECORDS = "A record is a mean over the steps since the one before."
NOTES = {
    "scoreboard": "; “tiny LM” is rung 3.",
    "figure3": f"The norm is taken before clipping. Below, instead of the cosine: groups without a signal. {RECORDS}",
    "figure4": f"The KL is estimated on one answer a prompt. {RECORDS}",
    "figure5": RECORDS,
    "figure6": "Its validations draw too few answers for maj@16 and pass@16: shown is pass@1, without a verdict.",
    "figure7": RECORDS,
    "figure8": "",
    "table_methods": "It has no row here.",
    "table_group_sizes": "Its group sizes share one number of rollouts a step.",
    "table_order": "It has no row here.",
}


def load(path: Path) -> list[dict[str, Any]]:
    """Rows in the shape of the training study's table, none where there is no file. Raises InputError."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if {*(reader.fieldnames or ()), "p_holm"} != COLUMNS:  # tables without a family have no p_holm
            raise InputError(f"{path.name} has columns {reader.fieldnames}: write it with llm.compare --publish")
        try:
            return [_row(row) for row in reader]
        except (TypeError, ValueError) as error:
            raise InputError(f"{path.name} is damaged ({error}): write it with llm.compare --publish") from error


def _row(row: dict[str, str]) -> dict[str, Any]:
    whole = {name: int(row[name]) for name in WHOLE}
    real = {name: float(row[name]) if row.get(name) else None for name in REAL}
    return {**row, **whole, **real, "world": WORLD, "optimiser": OPTIMISER, "tuning": "own"}


def note(name: str, data: Data) -> str:
    """What a caption says of the rung: which runs, how many seeds, what differs; nothing where there are none."""
    if not data.llm:
        return ": no language model." if name == "scoreboard" else ""
    if name not in NOTES:
        return ""
    if name == "scoreboard":
        return NOTES[name]
    rows = data.llm
    seeds, steps = min(r["seeds"] for r in rows), max(r["step"] for r in rows)
    covered = f", so that 2 standard errors cover {100 * (2 * stdtr(seeds - 1, 2) - 1):.0f} %" if seeds > 1 else ""
    if name == "figure8" and "easy_to_hard" not in {r["order"] for r in rows}:
        return " The tiny LM was not run easy to hard."
    return (
        f" Tiny LM: rung 3, a tiny language model under AdamW (llm.compare), {seeds} seeds a method{covered}, {steps} "
        f"steps, each at its own best learning rate. {NOTES[name]}"
    ).rstrip()
