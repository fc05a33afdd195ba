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

FILES = METRICS, LINES, ROLLOUTS, SAMPLES = "metrics.csv", "metrics.jsonl", "rollouts.csv", "samples.jsonl"
NEEDED = {"step", "reward", "seconds_sample"}
Row = Mapping[str, Any]


class RunLog:
    """Appends rows to the files of a folder; a quantity that does not exist is None: an empty cell, null in JSON."""

    def __init__(self, folder: Path, resume_at: Mapping[str, int] | None = None, steps: int = 0) -> None:
        """Start empty files, or cut existing ones to the lengths `resume_at`, which they had after `steps` steps.

        Raises InputError, before any file is cut, where one is missing or shorter than the checkpoint says, and where
        metrics.jsonl does not hold the metrics of the steps.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._paths = {name: folder / name for name in FILES}
        if resume_at is None:
            for path in self._paths.values():
                path.write_bytes(b"")
        else:
            self._cut(resume_at, steps)
        self._board = _board(folder / "tensorboard", steps)

    def _cut(self, resume_at: Mapping[str, int], steps: int) -> None:
        for name, path in self._paths.items():
            length = path.stat().st_size if path.exists() else -1
            if length < resume_at[name]:
                raise InputError(
                    f"log {str(path)!r} has {max(length, 0)} bytes, the checkpoint was written at {resume_at[name]}: "
                    "restore the file or start again without --resume"
                )
        found = _rows(self._paths[LINES], resume_at[LINES])
        if [row["step"] for row in found] != list(range(1, steps + 1)):
            raise _damaged(self._paths[LINES], f"it holds {len(found)} steps, the checkpoint {steps}")
        for name, path in self._paths.items():
            with path.open("r+b") as file:
                file.truncate(resume_at[name])

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
        return _rows(self._paths[LINES])

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


def _rows(path: Path, length: int | None = None) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl, of its first `length` bytes. Raises InputError for any other content."""
    found: list[dict[str, Any]] = []
    for number, line in enumerate(path.read_bytes()[:length].splitlines(), 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _damaged(path, f"line {number} is no JSON: {type(error).__name__}") from error
        whole = isinstance(row, dict) and all(_measured(value) for value in row.values())
        if not whole or any(row.get(name) is None for name in NEEDED):
            raise _damaged(path, f"line {number} holds no metrics of a step")
        if found and set(row) != set(found[0]):
            raise _damaged(path, f"line {number} holds other metrics than the first")
        found.append(row)
    return found


def _measured(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and abs(value) <= 1e300)


def _damaged(path: Path, why: str) -> InputError:
    return InputError(f"log {str(path)!r} is damaged ({why}): restore the file or start again without --resume")


def _board(folder: Path, steps: int) -> Any:
    """TensorBoard's writer, events after `steps` of an earlier run hidden; None where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=steps + 1)
