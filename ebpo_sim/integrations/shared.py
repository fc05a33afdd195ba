"""What the adapters have in common: the version check, the method, the state beside a checkpoint, numbers for a logger.

Imports no trainer.
"""

from __future__ import annotations

import importlib.metadata
import math
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ebpo_sim import rungs
from ebpo_sim.errors import InputError
from ebpo_sim.estimators import Estimator, Info, dump_state, load_state
from ebpo_sim.groups import Groups
from ebpo_sim.methods.method import Method, parse_method
from ebpo_sim.report import write_bytes

STATE_FILE = "ebpo_state.json"
COLUMNS = {"clusters": "cluster_column", "prompt_ids": "prompt_id_column"}  # label of a row -> the adapters' option


def require(module: str, requirement: str) -> None:
    """Raise ImportError, with the remedy, unless the version installed is in `requirement`, "name>=1.14.2,<1.17"."""
    name = re.split("[<>=]", requirement)[0]
    low, high = [_numbers(text) for text in re.findall(r"[<>]=?([\d.]+)", requirement)]
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        found = "none"
    if not low <= _numbers(found) < high:
        raise ImportError(f"{module} needs {requirement}, found {found}: python -m pip install '{requirement}'")


def _numbers(version: str) -> tuple[int, int, int]:
    """Its first three numbers; zeros for what is no version."""
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", version)
    return (0, 0, 0) if found is None else (int(found[1]), int(found[2]), int(found[3] or 0))


def method_of(method: str | Method | Estimator, rung: rungs.Rung) -> Method:
    """The method on this rung: its text, made already, or an estimator alone. Raises InputError for parts that cannot
    stand there."""
    if isinstance(method, str):
        return parse_method(method, None, rung)
    made = Method(method.name, method) if isinstance(method, Estimator) else method
    rungs.check(made.name, made.needs(), rung)
    for objective in made.objectives:
        rungs.check_objective(type(objective).__name__, objective, rung)
    return made


def check_columns(estimator: Estimator, given: Collection[str], where: str = "") -> None:
    """Raises InputError unless a data-set column is given for every label of rows that the estimator needs."""
    for label in sorted((estimator.needs & COLUMNS.keys()) - set(given)):
        raise InputError(f"{where}{COLUMNS[label]} must name a data-set column: {estimator.name} needs {label}")


def write_state(folder: Path, estimator: Estimator, state: Any) -> None:
    """The state as STATE_FILE in `folder`, complete or not at all."""
    write_bytes(folder / STATE_FILE, dump_state(estimator, state).encode())


def read_state(folder: Path, estimator: Estimator) -> Any:
    """The state in `folder`. Raises InputError when it is missing, damaged, or of another estimator or settings."""
    path = folder / STATE_FILE
    if not path.is_file():
        raise InputError(
            f"{str(path)!r} is missing: resume from a checkpoint that was written with this adapter, or start anew"
        )
    return load_state(estimator, path.read_text(encoding="utf-8", errors="replace"))


def measure(info: Info, groups: Groups, advantage_N: NDArray[np.float64]) -> dict[str, float]:
    """Means over the groups with a valid rollout, of what exists for this estimator.

    For a batch given by group_ids, advantage_N in its row order. shrinkage, prior_mean: as in `Info`; zero_signal: the
    share of groups without any advantage but 0; uniform_groups: the share whose rewards are all equal.
    """
    assert groups.flat_index is not None
    present_P = groups.size_P > 0
    trained_P = np.bincount(groups.flat_index // groups.mask_PG.shape[1], advantage_N != 0)
    per_group = {
        "shrinkage": info.shrinkage_P,
        "prior_mean": info.prior_mean_P,
        "zero_signal": trained_P == 0,
        "uniform_groups": info.degenerate_P,
    }
    means = {
        n: float(np.broadcast_to(v, present_P.shape)[present_P].mean()) for n, v in per_group.items() if v is not None
    }
    return {name: mean for name, mean in means.items() if math.isfinite(mean)}
