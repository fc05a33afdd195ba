"""What a run writes a step: metrics.csv and metrics.jsonl (one row a step), rollouts.csv (one row a rollout),
samples.jsonl (some answers in full), and TensorBoard events where that is installed.

Files grow by appending; a checkpoint remembers their lengths, and a resumed run cuts them back to it.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ebpo_sim.errors import InputError

METRICS, LINES, ROLLOUTS, SAMPLES = "metrics.csv", "metrics.jsonl", "rollouts.csv", "samples.jsonl"
Row = Mapping[str, Any]


class RunLog:
    """Appends rows to the files of a folder; a quantity that does not exist is None: an empty cell, null in JSON."""

    def __init__(self, folder: Path, resume_at: Mapping[str, int] | None = None) -> None:
        """Start empty files, or cut existing ones to the lengths `resume_at`.

        Raises InputError where a file is missing or shorter than the checkpoint says.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._paths = {name: folder / name for name in (METRICS, LINES, ROLLOUTS, SAMPLES)}
        for name, path in self._paths.items():
            if resume_at is None:
                path.write_bytes(b"")
                continue
            length = path.stat().st_size if path.exists() else -1
            if length < resume_at[name]:
                raise InputError(
                    f"log {str(path)!r} has {max(length, 0)} bytes, the checkpoint was written at {resume_at[name]}: "
                    "restore the file or start again without --resume"
                )
            with path.open("r+b") as file:
                file.truncate(resume_at[name])
        self._board = _board(folder / "tensorboard", len(self.metrics()))

    def add(self, metrics: Row, rollouts: Sequence[Row]) -> None:
        """One step's metrics and rollouts."""
        self._append_csv(METRICS, [metrics])
        self._append(LINES, json.dumps(metrics, allow_nan=False) + "\n")
        self._append_csv(ROLLOUTS, rollouts)
        if self._board is not None:
            for name, value in metrics.items():
                if value is not None and name != "step":
                    self._board.add_scalar(name, value, metrics["step"])
            self._board.flush()

    def show(self, sample: Row) -> None:
        """One answer in full."""
        self._append(SAMPLES, json.dumps(sample) + "\n")

    def lengths(self) -> dict[str, int]:
        """Bytes of each file so far."""
        return {name: path.stat().st_size for name, path in self._paths.items()}

    def metrics(self) -> list[dict[str, Any]]:
        """All rows of metrics.jsonl."""
        return [json.loads(line) for line in self._paths[LINES].read_text().splitlines()]

    def _append_csv(self, name: str, rows: Sequence[Row]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
        if self._paths[name].stat().st_size == 0:
            writer.writeheader()
        writer.writerows(rows)
        self._append(name, text.getvalue())

    def _append(self, name: str, text: str) -> None:
        with self._paths[name].open("a") as file:
            file.write(text)


def _board(folder: Path, steps: int) -> Any:
    """TensorBoard's writer, events after `steps` of an earlier run hidden; None where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=steps + 1)
