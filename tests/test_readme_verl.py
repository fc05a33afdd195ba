"""The README's lines for verl users, composed into verl's own configuration and called as verl calls them."""

from __future__ import annotations

import re
from pathlib import Path

import pages
import verl_driver
from ebpo_sim import make
from verl_driver import adapter, build_checkpoint_callback, compose, driver, fresh, memory, rows  # noqa: F401  fresh

TEXT = pages.page("ebpo_sim/integrations")


def test_the_verl_lines_select_configure_and_save(tmp_path: Path) -> None:
    """Guards the lines a verl user copies: the estimator with its setting, and a callback that writes its memory."""
    lines = re.search(r"^```verl\n(.*?)^```$", TEXT, flags=re.S | re.M)[1].split()
    assert len(lines) == 3
    config = compose("actor_rollout_ref.rollout.n=4", f"trainer.default_local_dir={tmp_path}", *lines)
    callback = build_checkpoint_callback(config)
    batch = rows(0)
    found = driver(batch, config)
    assert found.abs().sum() > 0 and found.shape[0] == len(batch.reward)
    estimator, _ = adapter._process.chosen
    assert estimator == make("ebpo_debiased", memory=0.95) and memory() != ""
    callback.on_save(trainer=None, global_step=1, checkpoint_dir=str(tmp_path / "global_step_1"), async_save=False)
    assert (tmp_path / "global_step_1/ebpo_state.json").read_text() == verl_driver.memory()
