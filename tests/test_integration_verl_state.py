"""`ebpo_sim.integrations.verl`, its memory: saved and restored through verl's own callback factory, or refused."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import verl_driver
from ebpo_sim import InputError, make
from ebpo_sim.estimators import dump_state
from ebpo_sim.integrations.shared import STATE_FILE
from verl_driver import adapter, config_of, driver, fresh, memory, program, rows  # noqa: F401  fresh is for every test


def save(callback: Any, folder: Path, step: int) -> None:
    """What verl's trainer does at the end of a checkpoint."""
    (folder / "latest_checkpointed_iteration.txt").write_text(str(step))
    callback.on_save(
        trainer=SimpleNamespace(), global_step=step, checkpoint_dir=str(folder / f"global_step_{step}"),
        async_save=False, something_new=1,
    )  # fmt: skip


def saved_run(folder: Path, name: str = "ebpo") -> tuple[Any, str]:
    """(config, memory) of a run through verl's own callback factory that was saved at step 3 into `folder`."""
    config = config_of(name, folder)
    callback = verl_driver.build_checkpoint_callback(config)
    for seed in range(3):
        driver(rows(seed), config)
    save(callback, folder, 3)
    return config, memory()


@pytest.mark.parametrize(
    ("name", "remembers"),
    [
        ("ebpo", True),
        ("ebpo_nonparametric", True),
        ("ebpo_released", False),
        ("james_stein", False),
        ("dr_grpo", False),
    ],
)
def test_warns_once_when_nothing_saves_the_memory(
    name: str, remembers: bool, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Guards resuming without the callback: one loud line, none for estimators without memory or with the callback."""
    config = config_of(name, tmp_path)
    for seed in range(3):
        driver(rows(seed), config)
    heard = [r for r in caplog.records if "nothing saves the memory" in r.getMessage() and r.levelno == logging.WARNING]
    assert len(heard) == remembers
    caplog.clear()
    verl_driver.build_checkpoint_callback(config)
    driver(rows(1), config)
    assert not [r for r in caplog.records if "nothing saves" in r.getMessage()]


@pytest.mark.parametrize("mode", ["auto", "resume_path"])
@pytest.mark.parametrize("name", ["ebpo", "ebpo_nonparametric", "ebpo_sim.grpo"])
def test_memory_returns_through_verls_callback_factory(name: str, mode: str, tmp_path: Path) -> None:
    """Guards resuming: a new trainer's callback finds the memory where verl's resume_mode looks, to the last bit."""
    config, remembered = saved_run(tmp_path, name=name)
    config.trainer.resume_mode = mode
    if mode == "resume_path":
        (tmp_path / "latest_checkpointed_iteration.txt").unlink()
        config.trainer.resume_from_path = os.path.relpath(tmp_path / "global_step_3")
    driver(rows(9), config)
    verl_driver.build_checkpoint_callback(config)
    assert memory() == remembered
    assert adapter.last_statistics() == {}


def test_resume_mode_disable_starts_anew(tmp_path: Path) -> None:
    """Guards a new run in an old folder, in a process that has run before: nothing of the old memory is left."""
    config, _ = saved_run(tmp_path)
    config.trainer.resume_mode = "disable"
    verl_driver.build_checkpoint_callback(config)
    estimator = make("ebpo")
    assert memory() == dump_state(estimator, estimator.init())


def test_auto_without_a_checkpoint_starts_anew(tmp_path: Path) -> None:
    """Guards the first start of a run with the default resume_mode."""
    config = config_of("ebpo", tmp_path / "new")
    verl_driver.build_checkpoint_callback(config)
    assert json.loads(memory())["state"]["fields"][0] == {"dict": {}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"memory": 0.9}, "resume with the settings it was saved with"),
        ({"name": "ebpo_debiased"}, "belongs to 'ebpo'"),
        ({"resume_mode": "sometimes"}, "unknown trainer.resume_mode"),
    ],
    ids=str,
)
def test_resuming_with_something_else_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    """Guards the memory's meaning: other settings, another estimator, a resume_mode that verl does not know."""
    saved_run(tmp_path)
    mode = change.pop("resume_mode", "auto")
    config = config_of(**{"name": "ebpo", "folder": tmp_path, **change})
    config.trainer.resume_mode = mode
    with pytest.raises(InputError, match=message):
        verl_driver.build_checkpoint_callback(config)


def test_missing_memory_stops_the_run(tmp_path: Path) -> None:
    """Guards against resuming with an empty memory: a checkpoint without the file is refused, and says what to do."""
    config, _ = saved_run(tmp_path)
    (tmp_path / "global_step_3" / STATE_FILE).unlink()
    with pytest.raises(InputError, match=rf"{STATE_FILE}' is missing: resume from"):
        verl_driver.build_checkpoint_callback(config)


def test_callback_leaves_verls_own_estimators_alone(tmp_path: Path) -> None:
    """Guards one launch script for the comparison: with verl's grpo the callback reads and writes nothing."""
    driver(rows(1), config_of("ebpo"))  # an earlier run of the same process
    config = config_of("grpo", tmp_path)
    callback = verl_driver.build_checkpoint_callback(config)
    driver(rows(1), config)
    callback.on_save(trainer=None, global_step=1, checkpoint_dir=str(tmp_path / "global_step_1"), async_save=False)
    assert list(tmp_path.iterdir()) == []


def test_statistics_reach_the_trainers_logger(tmp_path: Path) -> None:
    """Guards what one sees: verl's Tracking gets ebpo/* of the last batch at each checkpoint."""
    logged: list[tuple[Any, int]] = []
    tracker = SimpleNamespace(log=lambda data, step: logged.append((data, step)))
    config = config_of("ebpo", tmp_path)
    callback = verl_driver.build_checkpoint_callback(config)
    callback.on_save(trainer=SimpleNamespace(logger=tracker), global_step=0, checkpoint_dir=str(tmp_path))
    assert logged == []
    driver(rows(1), config)
    callback.on_save(trainer=SimpleNamespace(logger=tracker), global_step=1, checkpoint_dir=str(tmp_path))
    ((data, step),) = logged
    assert step == 1 and data == adapter.last_statistics()
    assert {"ebpo/shrinkage", "ebpo/prior_mean", "ebpo/zero_signal", "ebpo/uniform_groups"} <= data.keys()


VALUES = (0.0, 0.1, 0.7, 1.0)
RESUMED = """
import json, sys, verl_driver
from ebpo_sim.estimators import dump_state
steps, values = json.loads(sys.argv[1])
resumed = []
for folder in sys.argv[2:]:
    config = verl_driver.config_of(folder.rsplit("/")[-1], folder)
    verl_driver.build_checkpoint_callback(config)
    found = [verl_driver.driver(verl_driver.rows(seed, values=values), config).tolist() for seed in steps]
    process = verl_driver.adapter._process
    resumed.append([found, dump_state(process.chosen[0], process.state)])
print(json.dumps(resumed))
"""


def test_resumed_runs_equal_the_uninterrupted_ones(tmp_path: Path) -> None:
    """Guards the resume: steps 4 to 6 in a fresh process have the bits of the run that never stopped."""
    uninterrupted = {}
    for name in ("ebpo", "ebpo_debiased"):
        (tmp_path / name).mkdir()
        config = config_of(name, tmp_path / name)
        callback = verl_driver.build_checkpoint_callback(config)
        found = []
        for seed in range(6):
            found.append(driver(rows(seed, values=VALUES), config).tolist())
            if seed == 2:
                save(callback, tmp_path / name, 3)
        uninterrupted[name] = [found[3:], memory()]
        adapter.reset()
        afresh = [driver(rows(seed, values=VALUES), config).tolist() for seed in range(3, 6)]
        assert afresh != found[3:]  # the memory matters, or the comparison below shows nothing
    said = program(RESUMED, json.dumps([[3, 4, 5], VALUES]), *(tmp_path / name for name in uninterrupted))
    assert json.loads(said) == list(uninterrupted.values())
