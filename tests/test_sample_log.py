"""The sample log: small, made by the command in its head, and rich enough for every answer of diagnose."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from ebpo_sim import diagnose, sample_log
from ebpo_sim.diagnose.__main__ import read

SAMPLE = Path(diagnose.__file__).with_name("sample.csv")


def test_the_sample_is_what_its_command_makes() -> None:
    """Guards the shipped file: head, size, and its first two steps, made anew; norms to their printed digit."""
    text = SAMPLE.read_text(encoding="utf-8")
    assert text.startswith(f"{sample_log.HEAD}{sample_log.COLUMNS}\n") and len(text) < 200_000
    rows = [*csv.reader(text.splitlines()[2:])]
    assert len(rows) == 32 * 32 * 8
    made = [*csv.reader(sample_log.lines(2))]
    for mine, shipped in zip(made, rows[: len(made)], strict=True):
        assert mine[:-1] == shipped[:-1] and abs(float(mine[-1]) - float(shipped[-1])) < 0.011
    assert len(made) == 512 and made[0][0] == "0" and made[-1][0] == "1"


def test_the_sample_has_what_diagnose_asks_for() -> None:
    """Guards the columns: steps, prompts that recur, clusters, lengths and score norms; both rewards in most groups."""
    columns, (population,) = read([str(SAMPLE)])
    assert {"prompt", "step", "cluster", "length", "score_norm"} <= columns.role.keys()
    assert (population.prompts, population.groups, set(population.n)) == (128, 1024, {8.0})
    assert population.norms_P2 is not None and np.isfinite(population.norms_P2).all()
    assert population.flat.mean() < 0.5
