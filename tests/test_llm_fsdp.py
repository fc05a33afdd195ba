"""`accelerate launch --config_file llm/configs/fsdp2.yaml llm/train.py --backend trl`: sharded by FSDP2, two processes.

On CPUs by gloo, by tests/fsdp_cpu.py in front of llm/train.py; the configuration file is the one of the README.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from needs import require

require("trl")

from safetensors.torch import load_file  # noqa: E402

from ebpo_sim.integrations.shared import STATE_FILE  # noqa: E402

TESTS = Path(__file__).resolve().parent
OPTIONS = (
    "--backend trl --dtype bf16 --estimator ebpo_debiased:memory=0.95 --kl-coef 0.01 --prompts 8 --mini-batch 4 "
    "--steps 2 --checkpoint-every 1 --warmup 0 --lr 0.003 --topics count,mod --max-level 3 --per-cell 24 "
    "--eval-per-cell 4 --sft-steps 60 --sft-batch 64 --hidden 16 --layers 1 --heads 2 --kv-heads 1"
)


def launch(out: Path, *more: str) -> None:
    """llm/train.py in two processes."""
    config = TESTS.parent / "llm" / "configs" / "fsdp2.yaml"
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config), "--num_processes", "2"]
    command += ["--main_process_port", "0", str(TESTS / "fsdp_cpu.py"), *OPTIONS.split()]
    command += ["--out", str(out), "--cache", str(out.parent / "cache"), *more]
    environment = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "FSDP_SEEN": str(out.parent / "seen")}
    run = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=600, check=False
    )
    assert run.returncode == 0, run.stderr[-5000:]


def numbers(out: Path) -> list[dict[str, Any]]:
    """Every logged number of each optimizer step, but times; text, as those of no token are NaN."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: str(v) for k, v in line.items() if "time" not in k and "runtime" not in k} for line in lines[:-1]]


def test_two_sharded_processes_and_their_resumed_run(tmp_path: Path) -> None:
    """Guards FSDP2: parameters are DTensors, and a run resumed at half is the whole one, bit for bit."""
    launch(tmp_path / "whole")
    for rank in (0, 1):
        kinds = (tmp_path / f"seen{rank}").read_text()
        assert kinds.startswith("FSDP") and "DTensor (Shard(dim=0),)" in kinds
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    first, last = sorted((tmp_path / "again").glob("checkpoint-*"))
    shutil.rmtree(last)
    launch(tmp_path / "again", "--resume")
    whole, again = numbers(tmp_path / "whole"), numbers(tmp_path / "again")
    assert len(whole) == 4 and whole == again
    assert float(again[-1]["grad_norm"]) > 0 and float(again[-1]["kl"]) > 0
    kept, found = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "again"))
    assert kept.keys() == found.keys() and all(bool((kept[name] == found[name]).all()) for name in kept)
    assert (tmp_path / "whole" / last.name / STATE_FILE).read_text() == (last / STATE_FILE).read_text()
    assert (last / STATE_FILE).read_text() != (first / STATE_FILE).read_text()
