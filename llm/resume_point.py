"""A run put into a checkpoint and taken out of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ebpo_sim.errors import InputError
from ebpo_sim.methods.checkpoint import dump_state, load_state
from llm import checkpoints
from llm.logs import RunLog
from llm.run import Run
from llm.trained_on import TrainedOn


def restore(
    run: Run, saved: dict[str, Any], out: Path, problems: int, held: int, measured: bool
) -> tuple[RunLog, int, list[float] | None, list[float]]:
    """Put a checkpoint into the run; (its log, the step to go on from, pass rates of the training problems where they
    are measured, the base's on the validation problems). problems, held: how many there are.

    Raises InputError, before anything is changed on disk, for parts that do not fit the run.
    """
    step, rates, start = saved["step"], saved["rates"], saved["start"]
    whole = len(rates or ()) == (problems if measured else 0)
    if step > run.settings.steps or len(start) != held or not whole:
        raise InputError(f"the checkpoint's step {step} or pass rates are not of this run: restore an intact one")
    checkpoints.put_weights(run.model, saved["model"])
    if run.reference is not None:
        checkpoints.put_weights(run.reference, saved["reference"] or {}, every=True)
    checkpoints.put_optimizer(run.optimizer, saved["optimizer"])
    run.state = load_state(run.method, saved["method"])
    run.engine.sync()
    return RunLog(out, saved["log_bytes"], step), step, rates, start


def content(
    run: Run, step: int, rates: list[float] | None, start: list[float], log: RunLog, record: TrainedOn
) -> dict[str, Any]:
    """What a checkpoint of the run holds after `step` steps."""
    return {
        "step": step,
        "settings": run.settings.as_dict(),
        "split": record.as_dict(),
        "model": checkpoints.weights_of(run.model),
        "reference": None if run.reference is None else run.reference.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "method": dump_state(run.method, run.state),
        "rates": rates,
        "start": start,
        "log_bytes": log.lengths(),
    }
