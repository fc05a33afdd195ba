"""`bash llm/configs/verl_ebpo.sh` trains: Ray driver, TransferQueue, agent and reward loop, FSDP2 actor and reference.

On CPUs, by the platform and the rollout of tests/verl_cpu*.py and a tiny random model; everything else is verl's own.
Start-up is nearly all of it: a step takes two seconds, the two launches some minutes.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from needs import require

require("verl")

import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402

from ebpo_sim.integrations.shared import STATE_FILE  # noqa: E402
from llm_toys import save_model  # noqa: E402

TESTS = Path(__file__).resolve().parent
OVERRIDES = """
data.train_batch_size=4 data.max_prompt_length=32 data.max_response_length=6
data.dataloader_num_workers=0 data.filter_overlong_prompts_workers=1
actor_rollout_ref.model.use_remove_padding=False
+actor_rollout_ref.model.override_config.attn_implementation=eager
actor_rollout_ref.actor.strategy=fsdp2 actor_rollout_ref.actor.use_torch_compile=False
actor_rollout_ref.actor.ppo_mini_batch_size=4 actor_rollout_ref.actor.ppo_max_token_len_per_gpu=512
actor_rollout_ref.actor.optim.lr=0.01 actor_rollout_ref.ref.use_torch_compile=False
+actor_rollout_ref.actor.fsdp_config.mixed_precision={param_dtype:fp32,reduce_dtype:fp32,buffer_dtype:fp32}
+actor_rollout_ref.ref.fsdp_config.mixed_precision={param_dtype:fp32,reduce_dtype:fp32,buffer_dtype:fp32}
actor_rollout_ref.rollout.name=cpu actor_rollout_ref.rollout.agent.num_workers=1
reward.num_workers=1 reward.custom_reward_function.name=compute_score
transfer_queue.backend.SimpleStorage.num_data_storage_units=1
trainer.device=cpu trainer.val_before_train=False trainer.logger=[console,file]
ray_kwargs.ray_init.num_cpus=16 +ray_kwargs.ray_init.num_gpus=1
+ray_kwargs.ray_init.include_dashboard=False +ray_kwargs.ray_init._node_ip_address=127.0.0.1
"""


def data(path: Path, numbers: range) -> None:
    """A parquet file in verl's format: prompts of two topics."""
    rows = [
        {
            "data_source": "toy",
            "prompt": [{"role": "user", "content": f"{n} ?"}],
            "reward_model": {"style": "rule", "ground_truth": ""},
            "extra_info": {"index": n, "topic": ("even", "odd")[n % 2]},
        }
        for n in numbers
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)


def started_with(marker: str) -> list[int]:
    """Processes, other than this one, that have `marker` in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if marker.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return [pid for pid in found if pid != os.getpid()]


def launch(folder: Path, name: str) -> str:
    """Four steps by the script into folder/name, or what is left of them; what it printed. Leaves no process behind."""
    log = folder / f"{name}.jsonl"
    environment = {
        **os.environ, "PYTHON": sys.executable, "PYTHONPATH": f"{TESTS.parent}:{TESTS}", "OMP_NUM_THREADS": "1",
        "VERL_USE_EXTERNAL_MODULES": "verl_cpu,ebpo_sim.integrations.verl", "VERL_ENGINE_DEVICE": "cuda",
        "VERL_FILE_LOGGER_PATH": str(log), "CUDA_VISIBLE_DEVICES": "0", "RAY_USAGE_STATS_ENABLED": "0",
        "HF_HUB_OFFLINE": "1", "TRAIN_FILE": str(folder / "train.parquet"), "VAL_FILE": str(folder / "val.parquet"),
        "MODEL": str(folder / "model"), "OUT": str(folder / name), "ESTIMATOR": "ebpo_debiased", "STEPS": "4",
        "SAVE_EVERY": "2", "GPUS": "1", "TENSOR_PARALLEL": "1",
        "EBPO_SETTINGS": "memory=0.95 per_cluster=True cluster_column=extra_info.topic",
    }  # fmt: skip
    more = [f"+ray_kwargs.ray_init._temp_dir={folder / 'ray'}"]
    more += [f"reward.custom_reward_function.path={TESTS / 'verl_cpu_reward.py'}"]
    out = folder / f"{name}.txt"
    try:
        with out.open("w") as stream:
            run = subprocess.run(
                ["bash", str(TESTS.parent / "llm" / "configs" / "verl_ebpo.sh"), *OVERRIDES.split(), *more],
                cwd=folder, env=environment, stdout=stream, stderr=subprocess.STDOUT, timeout=900, check=False,
            )  # fmt: skip
    finally:
        for pid in started_with(str(log)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while started_with(str(log)) and time.monotonic() < deadline:  # the dead stay listed for a moment
            time.sleep(0.2)
    assert run.returncode == 0, out.read_text()[-5000:]
    return out.read_text()


def metrics(log: Path) -> dict[int, dict[str, Any]]:
    """What verl's file logger wrote of each step."""
    found: dict[int, dict[str, Any]] = {}
    for line in map(json.loads, log.read_text().splitlines()):
        found.setdefault(line["step"], {}).update(line["data"])
    return found


def state_numbers(path: Path) -> list[float]:
    """The fractions in a saved memory, in order."""
    return [float(text) for text in re.findall(r"-?\d+\.\d+(?:e-?\d+)?", path.read_text())]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a run of four steps (whole), and one that went on from its second (again)."""
    folder = tmp_path_factory.mktemp("v")  # short: Ray makes sockets below it
    save_model(folder / "model", chat=True)
    data(folder / "train.parquet", range(12))
    data(folder / "val.parquet", range(12, 16))
    launch(folder, "whole")
    shutil.copytree(folder / "whole", folder / "again")
    shutil.rmtree(folder / "again" / "global_step_4")
    (folder / "again" / "latest_checkpointed_iteration.txt").write_text("2")
    assert "setting global step to 2" in launch(folder, "again")
    yield folder


def test_four_steps_train(runs: Path) -> None:
    """Guards the script, the plugin and the callback in verl's own loop: rewards, updates, validation, the memory."""
    found = metrics(runs / "whole.jsonl")
    assert list(found) == [1, 2, 3, 4]
    for step in found.values():
        assert 0 < step["critic/rewards/mean"] < 1
        assert step["actor/grad_norm"] > 0
        # the rollout's log-probabilities are the actor's: the new weights arrive after every step
        assert step["training/rollout_probs_diff_max"] < 1e-6
    assert found[4]["actor/kl_loss"] > found[2]["actor/kl_loss"] > 0
    assert {name for step in (2, 4) for name in found[step] if name.startswith("ebpo/")} >= {"ebpo/groups"}
    assert found[2]["ebpo/groups"] == 4 and found[2]["ebpo/rollouts"] == 16
    assert any(name.startswith("val-") for name in found[4])


def test_resumed_run_is_the_whole_run(runs: Path) -> None:
    """Guards the memory across a restart: the steps after it have the whole run's numbers, and the files its state.

    Rows are ordered by verl's random ids, so sums differ in their last digits.
    """
    whole, again = (metrics(runs / f"{name}.jsonl") for name in ("whole", "again"))
    assert list(again) == [3, 4]
    same = ("critic/", "actor/", "response_length/", "ebpo/", "val-")
    for step in (3, 4):
        names = [name for name in whole[step] if name.startswith(same) and "/perf/" not in name]
        assert len(names) > 20
        for name in names:
            assert again[step][name] == pytest.approx(whole[step][name], rel=1e-5, abs=1e-6), (step, name)
    one, two, before = (
        state_numbers(runs / name / f"global_step_{step}" / STATE_FILE)
        for name, step in (("whole", 4), ("again", 4), ("whole", 2))
    )
    assert len(one) > 10 and two == pytest.approx(one, rel=1e-9)
    assert before != pytest.approx(one, rel=1e-3)


def test_nothing_is_left_running(runs: Path) -> None:
    """Guards the machine: Ray's processes end with the run, and its files lie in the test's folder."""
    assert started_with(str(runs)) == [] and (runs / "ray").is_dir()
    assert (runs / "again" / "global_step_4" / STATE_FILE).is_file()
