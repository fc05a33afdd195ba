"""`ebpo_sim.integrations.shared`, and what the verl adapter says where verl is missing; needs no trainer."""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import sys
from pathlib import Path

import numpy as np
import pytest

from battery import CASES, assert_same, batch, history, leaves
from ebpo_sim import InputError, group_rewards, make
from ebpo_sim.estimators import Estimator
from ebpo_sim.integrations.shared import STATE_FILE, measure, read_state, require, write_state

STATEFUL = {name: estimator for name, estimator in CASES.items() if leaves(history(estimator, 1))}


@pytest.mark.parametrize(
    ("found", "fits"),
    [("0.7.1", False), ("0.10.0", False), ("1.0", False), ("local", False), ("0.9.0", False), ("0.9.1", True),
     ("0.9.2.dev0", True)],
)  # fmt: skip
def test_require(found: str, fits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the tested range: other versions are refused, with the one found and the command that helps."""
    monkeypatch.setattr(importlib.metadata, "version", lambda name: found if name == "verl" else "0")
    if fits:
        require("some.module", "verl>=0.9.1,<0.10")
    else:
        with pytest.raises(ImportError) as refusal:
            require("some.module", "verl>=0.9.1,<0.10")
        said = f"some.module needs verl>=0.9.1,<0.10, found {found}: python -m pip install 'verl>=0.9.1,<0.10'"
        assert str(refusal.value) == said


def test_verl_missing_is_said_twice(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Guards the plugin: an ImportError that names the remedy, and a log line, for verl's loader swallows the error."""

    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    monkeypatch.delitem(sys.modules, "ebpo_sim.integrations.verl", raising=False)
    remedy = r"needs verl>=[\d.]+,<[\d.]+, found none: python -m pip install 'verl>="
    with pytest.raises(ImportError, match=remedy):
        importlib.import_module("ebpo_sim.integrations.verl")
    (line,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "plugin of verl is not available" in line.getMessage() and "pip install" in line.getMessage()


@pytest.mark.parametrize("estimator", STATEFUL.values(), ids=STATEFUL.keys())
def test_state_beside_a_checkpoint(estimator: Estimator, tmp_path: Path) -> None:
    """Guards saving: into a folder that need not exist, back to the last bit, and nothing else left in it."""
    state = history(estimator, 1, 2)
    write_state(tmp_path / "global_step_1", estimator, state)
    assert_same(read_state(tmp_path / "global_step_1", estimator), state)
    assert [path.name for path in (tmp_path / "global_step_1").iterdir()] == [STATE_FILE]


def test_missing_and_foreign_states_are_refused(tmp_path: Path) -> None:
    """Guards resuming: no file and another estimator's file are errors that say what to do."""
    with pytest.raises(InputError, match=rf"{STATE_FILE}' is missing: resume from a checkpoint"):
        read_state(tmp_path, make("ebpo"))
    write_state(tmp_path, make("ebpo"), history(make("ebpo"), 1))
    with pytest.raises(InputError, match="resume with the settings it was saved with"):
        read_state(tmp_path, make("ebpo", memory=0.9))


def test_measure_counts_groups_once() -> None:
    """Guards the numbers for loggers: means over groups with a valid rollout, whatever their size and order."""
    rewards, ids = np.array([1.0, 0.0, 1.0, 1.0, 0.0, 0.5]), np.array(["a", "b", "a", "b", "b", "c"])
    groups = group_rewards(rewards, ids, mask=[True] * 5 + [False])
    estimator = make("dr_grpo")
    advantages, info = estimator.score(estimator.init(), groups)
    said = measure(info, groups, advantages)
    assert said == {"shrinkage": 0.0, "zero_signal": 0.5, "uniform_groups": 0.5}


@pytest.mark.parametrize("estimator", CASES.values(), ids=CASES.keys())
def test_measure_takes_every_estimator(estimator: Estimator) -> None:
    """Guards the registry: finite numbers for all, shrinkage and prior mean where the rule has them."""
    groups = batch(estimator, 2)
    advantages, info, _ = estimator.step(history(estimator, 1), groups)
    said = measure(info, groups, advantages)
    maybe = {"shrinkage": info.shrinkage_P, "prior_mean": info.prior_mean_P}
    assert said.keys() == {"zero_signal", "uniform_groups", *(name for name in maybe if maybe[name] is not None)}
    assert all(np.isfinite(value) for value in said.values())
    assert said["uniform_groups"] == np.mean(groups.degenerate_P) > 0
