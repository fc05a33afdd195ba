"""verl for the tests: imported without its own warnings, its config composed, batches as its trainer hands them over.

Importing this skips or fails the test module where verl is missing; see `needs`.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import strategies as st
from numpy.typing import NDArray

import needs
from strategies import batches

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # verl tells of every engine that is not installed
    needs.require("verl")
    import hydra
    import torch
    from omegaconf import open_dict
    from verl import DataProto
    from verl.trainer.ppo import core_algos
    from verl.trainer.ppo.checkpoint_callback import build_checkpoint_callback
    from verl.trainer.ppo.ray_trainer import compute_advantage
    from verl.trainer.ppo.utils import need_critic
    from verl.trainer.ppo.v1.utils import compute_advantage_for_multi_trajectories
    from verl.utils.config import validate_config
    from verl.utils.reward_score import default_compute_score

    from ebpo_sim.estimators import dump_state
    from ebpo_sim.integrations import verl as adapter

torch.set_num_threads(1)
TESTS = Path(__file__).parent
__all__ = [  # what the tests take from here besides the functions below
    "adapter", "build_checkpoint_callback", "compute_advantage", "core_algos", "default_compute_score", "need_critic",
    "torch", "validate_config",
]  # fmt: skip


class Rows(NamedTuple):
    """One batch of verl's driver, a row a rollout: its reward, its prompt's uid, its tokens."""

    reward: NDArray[np.float64]
    uid: NDArray[np.object_]
    length: NDArray[np.int64]


def rows(seed: int, sizes: Sequence[int] = (4, 4, 3, 1, 4, 2), values: Sequence[float] = (0.0, 1.0)) -> Rows:
    """Ragged groups in random order, rewards from `values`, the second group constant, 1 to 7 tokens."""
    rng = np.random.default_rng(seed)
    number = np.repeat(np.arange(len(sizes)), sizes)
    reward = rng.choice(values, len(number))
    reward[number == 1] = values[-1]
    order = rng.permutation(len(number))
    uid = np.array([f"{seed:08x}-{n:04x}" for n in number[order]], dtype=object)
    return Rows(reward[order], uid, rng.integers(1, 8, len(number)))


@st.composite
def any_rows(draw: st.DrawFn, values: tuple[float, ...]) -> Rows:
    """Ragged groups of 1 to 6 rows in any order, often constant, 1 to 8 tokens a row."""
    found = draw(batches(values))
    lengths = draw(st.lists(st.integers(1, 8), min_size=len(found.ids), max_size=len(found.ids)))
    return Rows(found.rewards, found.ids.astype(object), np.array(lengths))


def take(batch: Rows, chosen: Any) -> Rows:
    """These rows, in this order."""
    return Rows(*(column[chosen] for column in batch))


def padded(batch: Rows, extra: int) -> Rows:
    """The batch with verl's synthetic rows: one uid "pad" + 32 hex digits, reward and mask 0."""
    uid = np.array(["pad" + "0123456789abcdef" * 2] * extra, dtype=object)
    return Rows(np.append(batch.reward, [0.0] * extra), np.append(batch.uid, uid), np.append(batch.length, [0] * extra))


def proto(batch: Rows, tokens: int = 8, dtype: torch.dtype = torch.float32) -> DataProto:
    """The batch as verl holds it: the reward on the last token, right-padded."""
    reward_NT = torch.zeros(len(batch.reward), tokens, dtype=dtype)
    last = np.maximum(batch.length - 1, 0)
    reward_NT[np.arange(len(last)), last] = torch.as_tensor(batch.reward, dtype=dtype)
    mask_NT = (torch.arange(tokens) < torch.as_tensor(batch.length)[:, None]).long()
    return DataProto.from_dict(
        {"token_level_rewards": reward_NT, "response_mask": mask_NT}, non_tensors={"uid": batch.uid}
    )


def compose(*overrides: str) -> Any:
    """verl's own ppo_trainer config with these overrides, by hydra as on the command line; takes a second."""
    with hydra.initialize_config_module("verl.trainer.config", version_base=None):
        return hydra.compose("ppo_trainer", overrides=list(overrides))


@cache
def _plain() -> Any:
    return compose("actor_rollout_ref.rollout.n=4")


def config_of(name: str, folder: Any = "unused", **settings: Any) -> Any:
    """The same config with this adv_estimator, `algorithm.ebpo` settings, default_local_dir, and our callback."""
    config = copy.deepcopy(_plain())
    config.algorithm.adv_estimator = name
    config.trainer.default_local_dir = str(folder)
    config.trainer.checkpoint_callback_class = "ebpo_sim.integrations.verl.StateCallback"
    with open_dict(config.algorithm):
        config.algorithm.ebpo = settings
    return config


def driver(batch: Rows, config: Any, **how: Any) -> torch.Tensor:
    """Advantages (N, T) through the function that verl's v1 trainer calls."""
    data = compute_advantage_for_multi_trajectories(
        proto(batch, **how),
        batch_keys=[f"{uid}_{n}_0" for n, uid in enumerate(batch.uid)],
        adv_estimator=config.algorithm.adv_estimator,
        norm_adv_by_std_in_grpo=config.algorithm.norm_adv_by_std_in_grpo,
        config=config.algorithm,
    )
    assert data.batch["returns"] is not None
    return data.batch["advantages"]


def advantages(name: str, batch: Rows, config: Any = None, **more: Any) -> NDArray[np.float64]:
    """A row's number of the function registered under `name`, in float64 tensors: the first token's advantage."""
    data = proto(batch, dtype=torch.float64)
    function = core_algos.get_adv_estimator_fn(name)
    found, _ = function(**data.batch, index=batch.uid, config=config, **more)
    return found[:, 0].numpy()


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Every test starts and ends without a memory in this process."""
    adapter.reset()
    yield
    adapter.reset()


def memory() -> Any:
    """What the process remembers, as text that shows every bit."""
    estimator, _ = adapter._process.chosen
    return dump_state(estimator, adapter._process.state)


def program(code: str, *arguments: Any, **environment: str) -> str:
    """The last line that a fresh Python process prints."""
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)],
        cwd=TESTS, capture_output=True, text=True, timeout=240, check=False,
        env={**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stdout.splitlines()[-1]
