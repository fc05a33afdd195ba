"""`ebpo_sim.integrations.verl` in fresh processes: the ways to load it, and the Ray actor in which verl trains."""

from __future__ import annotations

import importlib.metadata
import json
import os
from pathlib import Path

import numpy as np
import pytest

from ebpo_sim import group_rewards, make
from verl_driver import adapter, program, rows

LOADED = """
import sys
before = "nothing imported"
{load}
from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY
print(before, "ebpo" in ADV_ESTIMATOR_REGISTRY, ADV_ESTIMATOR_REGISTRY["grpo"].__module__)
"""
EXTERNAL_LIB = """
from transformers import Qwen3Config
from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY
from verl.workers.config import HFModelConfig
before = "ebpo" in ADV_ESTIMATOR_REGISTRY
folder = sys.argv[1]
Qwen3Config(architectures=["Qwen3ForCausalLM"]).save_pretrained(folder)
HFModelConfig(path=folder, load_tokenizer=False, external_lib="ebpo_sim.integrations.verl",
              override_config={"attn_implementation": "sdpa"})
"""
WITHOUT_PLUGINS = {"VERL_USE_EXTERNAL_PLUGINS": "none"}


@pytest.mark.parametrize(
    ("load", "environment", "before"),
    [
        ("import verl", {"VERL_USE_EXTERNAL_PLUGINS": "ebpo_sim"}, "nothing imported"),
        ("import verl", {"VERL_USE_EXTERNAL_MODULES": adapter.__name__, **WITHOUT_PLUGINS}, "nothing imported"),
        (EXTERNAL_LIB, WITHOUT_PLUGINS, "False"),
    ],
    ids=["entry point", "environment", "external_lib"],
)
def test_ways_to_load(load: str, environment: dict[str, str], before: str, tmp_path: Path) -> None:
    """Guards the three ways in, each alone: after it verl's registry has the name, and verl's grpo is verl's still."""
    if environment["VERL_USE_EXTERNAL_PLUGINS"] == "ebpo_sim":
        points = importlib.metadata.entry_points(group="verl.plugins", name="ebpo_sim")
        if not points and os.environ.get("EBPO_REQUIRE_VERL") != "1":
            pytest.skip("ebpo_sim is not installed with its entry points")
    said = program(LOADED.format(load=load), tmp_path, **environment)
    assert said == f"{before} True verl.trainer.ppo.core_algos"


IN_RAY = """
import json, os, sys
import ray

ray.init(num_cpus=4, include_dashboard=False, object_store_memory=100 * 2**20, log_to_driver=False)

@ray.remote(num_cpus=1)
class TaskRunner:  # where verl's trainer lives: one actor, not the process that the user started
    def __init__(self):
        import transfer_queue as tq
        import verl
        from omegaconf import OmegaConf
        from verl.trainer.ppo.core_algos import get_adv_estimator_fn
        get_adv_estimator_fn("ebpo_debiased")  # by VERL_USE_EXTERNAL_MODULES, which the actor inherits
        import verl_driver
        self.host, self.tq = verl_driver, tq
        tq.init(OmegaConf.create({"backend": {"SimpleStorage": {"num_data_storage_units": 1}}}))
        self.config = verl_driver.config_of(
            "ebpo_debiased", per_cluster=True, cluster_column="extra_info.topic", prompt_id_column="index"
        )

    def step(self, seed):
        import numpy as np
        import torch
        from types import SimpleNamespace
        from verl.trainer.ppo.padding_utils import upsample_batch_to_divisible_size
        from verl.trainer.ppo.v1.trainer_base import PPOTrainer
        from verl.utils.tensordict_utils import list_of_dict_to_tensordict
        batch = self.host.rows(seed)
        keys, fields = [], []
        for n, (reward, uid, length) in enumerate(zip(*batch)):
            score = torch.zeros(int(length))
            score[-1] = float(reward)
            ones = torch.ones(int(length), dtype=torch.int64)
            number = int(uid[-1])
            keys.append(f"{uid}_{n}_0")
            fields.append({
                "uid": uid, "response_mask": ones, "rm_scores": score, "rollout_log_probs": 0 * score,
                "old_log_probs": 0 * score, "prompts": torch.ones(2, dtype=torch.int64), "responses": ones,
                "index": number, "extra_info": {"index": number, "topic": "ab"[number % 2]},
            })
        put = self.tq.kv_batch_put(keys, "train", fields=list_of_dict_to_tensordict(fields), tags=[{} for _ in keys])
        put = upsample_batch_to_divisible_size(put, 8, eos_token_id=0)
        metrics = {}
        PPOTrainer._compute_advantage(SimpleNamespace(config=self.config), put, metrics)
        found = self.tq.kv_batch_get(put.keys, "train", select_fields=["advantages"])["advantages"]
        self.tq.kv_clear(put.keys, "train")
        state = self.host.adapter._process.state
        return [float(row[0]) for row in found.unbind()], {c: float(b.means.n) for c, b in state[0].items()}

runner = TaskRunner.remote()
steps = [ray.get(runner.step.remote(seed)) for seed in range(2)]
import verl_driver
print(json.dumps([steps, verl_driver.adapter._process.state]))
"""


def test_memory_lives_in_the_ray_actor_that_trains() -> None:
    """Guards the real route: verl's trainer method, TransferQueue and padding in a Ray actor, on one memory there."""
    environment = {
        "VERL_USE_EXTERNAL_MODULES": "ebpo_sim.integrations.verl",
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    steps, outside = json.loads(program(IN_RAY, RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0", **environment))
    assert outside is None  # the process that the user started knows nothing
    estimator = make("ebpo_debiased", per_cluster=True)
    state = estimator.init()
    for seed, (found, groups_of_cluster) in enumerate(steps):
        batch = rows(seed)
        clusters = ["ab"[int(uid[-1]) % 2] for uid in batch.uid]
        groups = group_rewards(batch.reward, batch.uid.tolist(), lengths=batch.length, clusters=clusters)
        expected, _, state = estimator.step(state, groups)
        assert len(found) == 24  # 18 rows and verl's padding to a multiple of 8
        np.testing.assert_allclose(found, [*expected, *[0.0] * 6], rtol=1e-6, atol=1e-7)
        assert groups_of_cluster == {"a": 3.0 * (seed + 1), "b": 3.0 * (seed + 1)}
