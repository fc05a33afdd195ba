"""Random rows of tokens, off-policy and ragged, for the tests of objectives."""

from __future__ import annotations

import numpy as np

from ebpo_sim.objectives import Tokens


def tokens(seed: int, rows: int = 12, width: int = 5, far: float = 1.0) -> Tokens:
    """Random rows off-policy, ragged, with advantages of both signs and 0."""
    rng = np.random.default_rng(seed)
    mask = np.arange(width) < rng.integers(1, width + 1, rows)[:, None]
    now, old, reference = (-rng.exponential(1.0, (rows, width)) * far for _ in range(3))
    advantage = np.where(rng.random((rows, 1)) < 0.2, 0.0, rng.normal(size=(rows, 1)))
    entropy = rng.random((rows, width))
    sampler = -rng.exponential(1.0, (rows, width)) * far
    return Tokens(now, old, mask, advantage, np.arange(rows) // 4, reference, entropy, sampler)
