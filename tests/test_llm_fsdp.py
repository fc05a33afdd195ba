"""`accelerate launch --config_file llm/configs/fsdp2.yaml llm/train.py --backend trl`: sharded by FSDP2."""

from __future__ import annotations

from pathlib import Path

from needs import require

require("trl")

from sharded import whole_and_resumed  # noqa: E402


def test_two_sharded_processes_and_their_resumed_run(tmp_path: Path) -> None:
    """Guards FSDP2: parameters are DTensors, and a run resumed at half is the whole one, bit for bit."""
    whole_and_resumed("fsdp2", tmp_path)
    for rank in (0, 1):
        kinds = (tmp_path / f"seen{rank}").read_text()
        assert kinds.startswith("FSDP") and "DTensor (Shard(dim=0),)" in kinds
