"""The golden batch: four binary groups of four, with 1, 3, 0 and 2 successes."""

from __future__ import annotations

import numpy as np

GOLDEN = np.array([[1, 0, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0], [1, 1, 0, 0]], dtype=np.float64)
HIT, MISS = GOLDEN == 1, GOLDEN == 0


def spread(*pairs: tuple[float, float]) -> np.ndarray:
    """(advantage of a success, of a failure) of each group, laid out like the batch."""
    right, wrong = np.array(pairs).T
    return np.where(HIT, right[:, None], wrong[:, None])
