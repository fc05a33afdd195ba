"""`llm/gpu_check.py` on a CPU, at its small size: every part runs and says what it measured."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # llm runs from the checkout; it is not installed

from ebpo_sim import InputError
from llm import gpu_check


def test_the_small_check_on_a_cpu(tmp_path: Path) -> None:
    """Guards the program that a GPU runs: against itself the CPU differs by nothing, and all parts are in the file."""
    out = tmp_path / "check.json"
    gpu_check.main(["--device", "cpu", "--small", "--seeds", "2", "--out", str(out)])
    found = json.loads(out.read_text())
    correct = found["correctness"]
    assert correct["passed"] and correct["fp32_log_prob_max_difference"] == 0 == correct["fp32_gradient_relative_error"]
    assert 0 < correct["bf16_log_prob_max_difference"] < 0.1  # bfloat16 is seen
    assert correct["fp32_sampler_trainer_max_gap"] < 1e-5
    assert found["machine"]["device"] == "CPU" and found["model"]["parameters"] > 1000
    assert set(found["speed"]) == {"grpo/bf16", "ebpo/bf16", "ebpo/fp32", "wall_seconds"}
    for part in ("grpo/bf16", "ebpo/bf16", "ebpo/fp32"):
        assert 0 < found["speed"][part]["estimator_share_of_a_step"] < 1
    arms = found["comparison"]["arms"]
    assert list(arms) == list(gpu_check.ARMS) and arms["grpo"]["trained_minus_grpo"] == [0, 0]
    assert len(found["comparison"]["runs"]) == len(arms) * found["comparison"]["seeds"]


def test_impossible_checks_are_refused(tmp_path: Path) -> None:
    """Guards refusals: no such GPU, no seeds."""
    with pytest.raises(InputError, match="is not there"):
        gpu_check.main(["--device", "cuda:99", "--out", str(tmp_path / "a.json")])
    with pytest.raises(InputError, match=r"--seeds must be at least 1"):
        gpu_check.main(["--seeds", "0", "--out", str(tmp_path / "a.json")])
    with pytest.raises(InputError, match="--out must be a file"):
        gpu_check.main(["--device", "cpu", "--out", str(tmp_path)])
    assert list(tmp_path.iterdir()) == []
