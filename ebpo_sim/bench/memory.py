"""What the memory of a million prompts costs: bytes, and the time of a batch that meets some of them again."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from ebpo_sim.estimators import make, memory
from ebpo_sim.groups import group_rewards
from ebpo_sim.timing import spread

PROMPTS, BATCH, GROUP_SIZE = 10**6, 512, 8


def prompt_memory(rounds: int, seed: int) -> dict[str, Any]:
    """SPO's state after a visit of each of a million prompts: its bytes, and CPU microseconds to score and learn a
    batch of 512 known prompts, and of 512 new ones."""
    estimator, rng = make("spo"), np.random.default_rng(seed)
    seen = memory.table(
        memory.keys(range(PROMPTS)), np.full(PROMPTS, 8.0), rng.binomial(8, 0.5, PROMPTS).astype(np.float64)
    )
    state = ((seen, memory.empty()), ())
    found: dict[str, Any] = {"prompts": PROMPTS, "bytes": sum(column.nbytes for column in seen.values())}
    for name, low in (("known", 0), ("new", PROMPTS)):
        times, now = [], state
        for _ in range(4 * rounds):
            ids = rng.integers(low, low + PROMPTS, BATCH)
            groups = group_rewards((rng.random((BATCH, GROUP_SIZE)) < 0.5) * 1.0, prompt_ids=ids)
            began = time.process_time()
            _, _, now = estimator.step(now, groups)
            times.append(1e6 * (time.process_time() - began))
        found[f"{name}, us a batch of {BATCH}"] = spread(times)
    return found
