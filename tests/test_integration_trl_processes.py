"""`ebpo_sim.integrations.trl` in two processes (gloo, CPU): the same numbers on both, and those of one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from needs import require

require("trl")

from ebpo_sim import group_rewards, make  # noqa: E402
from ebpo_sim.integrations.shared import STATE_FILE  # noqa: E402
from trl_toy import GROUP, NEWS, Given, seen, trainer  # noqa: E402

pytestmark = [pytest.mark.filterwarnings(line) for line in NEWS]
WHOLE = {
    "estimator": "ebpo_debiased:memory=0.9,per_cluster=True", "cluster_column": "topic", "prompt_id_column": "number",
    "max_steps": 4, "save_strategy": "steps", "save_steps": 2,
}  # fmt: skip
SPANNING = {
    "estimator": "reinforce_pp_baseline",
    "max_steps": 2,
    "per_device_train_batch_size": 6,
    "max_completion_length": 12,
}

REUSED = {"optim": "sgd", "learning_rate": 0.5, "num_iterations": 3, "max_steps": 3, "per_device_train_batch_size": 8}
OWN = {"estimator": "grpo", "epsilon": 0.02, "epsilon_high": 0.03, **REUSED}
NAMED = {"method": "grpo + clip:low=0.02,high=0.03", **REUSED}


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[dict[str, Any]]]]:
    """What two processes saw, [rank][job], in one launch: a run, its second half again, one whose groups span them,
    and TRL's own clip and ours."""
    folder = tmp_path_factory.mktemp("two")
    whole = {"output": str(folder / "whole"), "per_device_train_batch_size": 8, **WHOLE}
    again = {**whole, "output": str(folder / "again"), "resume": str(folder / "whole" / "checkpoint-2")}
    todo = [whole, again, *({"output": str(folder / "more"), **job} for job in (SPANNING, OWN, NAMED))]
    program = Path(__file__).with_name("trl_toy.py")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    run = subprocess.run(
        [*launch, str(program), str(folder), json.dumps(todo)],
        capture_output=True, text=True, timeout=300, check=False, env=environment,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    return folder, [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


def gathered(ranks: list[list[dict[str, Any]]], job: int, name: str) -> list[list[Any]]:
    """What both processes' reward functions saw in each batch, in the order in which TRL gathers rewards."""
    pairs = zip(ranks[0][job]["calls"], ranks[1][job]["calls"], strict=True)
    return [first[name] + second[name] for first, second in pairs]


def test_both_processes_agree_without_a_broadcast(jobs: tuple[Path, list[list[dict[str, Any]]]]) -> None:
    """Guards determinism: one state and one table of advantages on both ranks, each training on its own rows of it."""
    for first, second in zip(*jobs[1], strict=True):
        assert first["state"] == second["state"]
        assert first["weights"] == second["weights"]
        for a, b in zip(first["batches"], second["batches"], strict=True):
            assert a["table"] == b["table"]
            assert a["advantages"] + b["advantages"] == np.float32(a["table"]).tolist()
        assert first["calls"] != second["calls"]


def test_two_processes_are_one(jobs: tuple[Path, list[list[dict[str, Any]]]], tmp_path: Path) -> None:
    """Guards gathering of rewards and clusters: one process with the same rewards has the same state, bit for bit."""
    rewards = gathered(jobs[1], 0, "rewards")
    made = trainer(tmp_path, Given(rewards), per_device_train_batch_size=16, **WHOLE)
    made.train()
    alone = seen(made)
    assert [call["number"] for call in alone["calls"]] == gathered(jobs[1], 0, "number")
    assert [batch["table"] for batch in alone["batches"]] == [batch["table"] for batch in jobs[1][0][0]["batches"]]
    assert alone["state"] == jobs[1][0][0]["state"]
    assert set(json.loads(alone["state"])["state"]["fields"][0]["dict"]) == {"even", "odd"}


def test_resumed_in_two_processes(jobs: tuple[Path, list[list[dict[str, Any]]]]) -> None:
    """Guards resuming under DDP: the second half again is the second half, on both ranks; one state in the folder."""
    folder, ranks = jobs
    for whole, again, *_ in ranks:
        assert len(again["batches"]) == 2
        assert again["calls"] == whole["calls"][2:]
        assert [b["advantages"] for b in again["batches"]] == [b["advantages"] for b in whole["batches"][2:]]
        assert (again["state"], again["weights"]) == (whole["state"], whole["weights"])
        assert (folder / "again" / "checkpoint-4" / STATE_FILE).read_text() == whole["state"]


def test_groups_that_span_processes(jobs: tuple[Path, list[list[dict[str, Any]]]]) -> None:
    """Guards groups cut in two: six rows a process, groups of four; rewards and lengths meet in the right rows."""
    ranks = jobs[1]
    numbers = gathered(ranks, 2, "number")
    assert all(len(set(batch[4:8])) == 1 for batch in numbers)  # the group in the middle
    estimator = make(SPANNING["estimator"])
    for number, batch in enumerate(ranks[0][2]["batches"]):
        rewards = np.float32(gathered(ranks, 2, "rewards")[number]).astype(np.float64).reshape(-1, GROUP)
        lengths = np.reshape([len(ids) for ids in gathered(ranks, 2, "completion_ids")[number]], (-1, GROUP))
        assert len(set(lengths.ravel())) > 1
        advantages, _ = estimator.score((), group_rewards(rewards, lengths=lengths))
        assert batch["table"] == advantages.ravel().tolist()


def test_objectives_in_two_processes(jobs: tuple[Path, list[list[dict[str, Any]]]]) -> None:
    """Guards the loss under DDP: three updates on one batch with our clip are those with TRL's own, on both ranks."""
    for rank in jobs[1]:
        own, named = (np.concatenate(rank[job]["weights"]) for job in (3, 4))
        np.testing.assert_allclose(named, own, rtol=0, atol=1e-6)
        assert np.max(np.abs(own - np.concatenate(rank[2]["weights"]))) > 1e-3
