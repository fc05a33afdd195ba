"""`llm/configs/verl_ebpo.sh`: what it would start, composed and validated by verl itself."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import verl_driver
from ebpo_sim import make
from verl_driver import adapter, compose

SCRIPT = Path(__file__).resolve().parents[1] / "llm" / "configs" / "verl_ebpo.sh"
FILES = {"TRAIN_FILE": "train.parquet", "VAL_FILE": "val.parquet"}


def launched(tmp_path: Path, *more: str, **variables: str) -> list[str]:
    """The arguments that the script hands to Python, by a stand-in that writes them down."""
    python = tmp_path / "python"
    python.write_text(f'#!{sys.executable}\nimport sys\nprint("\\n".join(sys.argv[1:]))\n')
    python.chmod(0o755)
    run = subprocess.run(
        ["bash", str(SCRIPT), *more],
        env={"PATH": os.environ["PATH"], "PYTHON": str(python), **variables},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


def composed(arguments: list[str]) -> Any:
    """verl's config of these arguments; hydra refuses a key that verl does not have."""
    assert arguments[:2] == ["-m", "verl.trainer.main_ppo"]
    return compose(*arguments[2:])


@pytest.mark.parametrize("estimator", ["ebpo", "grpo"])
def test_script_is_the_papers_set_up(estimator: str, tmp_path: Path) -> None:
    """Guards the keys and the paper's numbers; verl's validate_config accepts the whole."""
    config = composed(launched(tmp_path, ESTIMATOR=estimator, **FILES))
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    assert config.algorithm.adv_estimator == estimator
    assert config.actor_rollout_ref.model.path == "Qwen/Qwen3-8B"
    assert (config.data.train_batch_size, actor.ppo_mini_batch_size, rollout.n) == (512, 128, 4)
    assert (actor.optim.lr, actor.use_kl_loss, actor.kl_loss_coef) == (1e-6, True, 1e-3)
    assert (config.data.max_response_length, rollout.temperature, actor.loss_agg_mode) == (8192, 1.0, "token-mean")
    assert config.trainer.total_training_steps == 1000
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # verl's notes on its own options
        verl_driver.validate_config(config, use_reference_policy=True, use_critic=False)


def test_script_wires_estimator_and_callback(tmp_path: Path) -> None:
    """Guards the lines that matter here: settings reach make(), and verl builds our callback."""
    settings = "memory=0.95 order=score_then_update"
    arguments = launched(tmp_path, f"trainer.default_local_dir={tmp_path}", EBPO_SETTINGS=settings, **FILES)
    config = composed(arguments)
    adapter.reset()
    callback = verl_driver.build_checkpoint_callback(config)
    assert isinstance(callback, adapter.StateCallback)
    assert adapter._process.chosen[0] == make("ebpo", memory=0.95, order="score_then_update")
    verl_driver.driver(verl_driver.rows(1), config)
    assert adapter.last_statistics()["ebpo/groups"] == 6
    adapter.reset()


def test_minus_one_and_one_are_as_good_as_the_papers_rewards() -> None:
    """Guards the script's remark: verl scores this data -1 and 1, and EBPO's advantages are those of 0 and 1."""
    scores = [verl_driver.default_compute_score("math_dapo", f"Answer: {said}", "4")["score"] for said in (3, 4)]
    assert scores == [-1.0, 1.0]
    found = []
    for values in ((0.0, 1.0), tuple(scores)):
        adapter.reset()
        config = verl_driver.config_of("ebpo")
        found.append([verl_driver.driver(verl_driver.rows(seed, values=values), config).numpy() for seed in range(3)])
    adapter.reset()
    np.testing.assert_allclose(found[0], found[1], rtol=0, atol=1e-5)


def test_script_wants_its_data(tmp_path: Path) -> None:
    """Guards against training on verl's default file: without TRAIN_FILE it stops and names it."""
    run = subprocess.run(["bash", str(SCRIPT)], capture_output=True, text=True, timeout=60, check=False, env={})
    assert run.returncode != 0 and "TRAIN_FILE" in run.stderr
