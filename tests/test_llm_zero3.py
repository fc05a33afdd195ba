"""`accelerate launch --config_file llm/configs/zero3.yaml llm/train.py --backend trl`: sharded by DeepSpeed ZeRO 3."""

from __future__ import annotations

from pathlib import Path

import pytest

from needs import require

require("deepspeed")

from sharded import whole_and_resumed  # noqa: E402


def test_two_sharded_processes_and_their_resumed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards ZeRO 3: a process holds half of a parameter, and a run resumed at half is the whole one, bit for bit."""
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    whole_and_resumed("zero3", tmp_path)
    for rank in (0, 1):
        kind, held = (tmp_path / f"seen{rank}").read_text().split(" holds ")
        part, all_of_it = map(int, held.split(" of "))
        assert kind == "DeepSpeedEngine" and 2 * part == all_of_it > 0
