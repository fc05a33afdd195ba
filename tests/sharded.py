"""`accelerate launch --config_file llm/configs/... llm/train.py --backend trl` in two processes on CPUs, and resumed.

By tests/fsdp_cpu.py and tests/zero3_cpu.py in front of llm/train.py; the configuration files are those of the README.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from ebpo_sim.integrations.shared import STATE_FILE

TESTS = Path(__file__).resolve().parent
OPTIONS = (
    "--backend trl --dtype bf16 --estimator ebpo_debiased:memory=0.95 --kl-coef 0.01 --prompts 8 --mini-batch 4 "
    "--steps 2 --checkpoint-every 1 --warmup 0 --lr 0.003 --topics count,mod --max-level 3 --per-cell 24 "
    "--eval-per-cell 4 --sft-steps 60 --sft-batch 64 --hidden 16 --layers 1 --heads 2 --kv-heads 1"
)


def launch(kind: str, out: Path, *more: str) -> None:
    """llm/train.py in two processes."""
    config = TESTS.parent / "llm" / "configs" / f"{kind}.yaml"
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config), "--num_processes", "2"]
    command += ["--main_process_port", "0", str(TESTS / f"{kind.rstrip('2')}_cpu.py"), *OPTIONS.split()]
    command += ["--out", str(out), "--cache", str(out.parent / "cache"), *more]
    environment = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "SHARDS_SEEN": str(out.parent / "seen")}
    run = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=600, check=False
    )
    assert run.returncode == 0, run.stderr[-5000:]


def numbers(out: Path) -> list[dict[str, Any]]:
    """Every logged number of each optimizer step, but times; text, as those of no token are NaN."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: str(v) for k, v in line.items() if "time" not in k and "runtime" not in k} for line in lines[:-1]]


def whole_and_resumed(kind: str, folder: Path) -> None:
    """A run of two steps, and its copy without the last checkpoint, resumed: the same numbers, weights and memory."""
    launch(kind, folder / "whole")
    shutil.copytree(folder / "whole", folder / "again")
    first, last = sorted((folder / "again").glob("checkpoint-*"))
    shutil.rmtree(last)
    launch(kind, folder / "again", "--resume")
    whole, again = numbers(folder / "whole"), numbers(folder / "again")
    assert len(whole) == 4 and whole == again
    assert float(again[-1]["grad_norm"]) > 0 and float(again[-1]["kl"]) > 0
    kept, found = (load_file(folder / name / "model" / "model.safetensors") for name in ("whole", "again"))
    assert kept.keys() == found.keys() and all(bool((kept[name] == found[name]).all()) for name in kept)
    assert (folder / "whole" / last.name / STATE_FILE).read_text() == (last / STATE_FILE).read_text()
    assert (last / STATE_FILE).read_text() != (first / STATE_FILE).read_text()
