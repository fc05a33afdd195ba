"""Gradient noise from sampled groups: two of every prompt, whose difference is noise and whose mean is signal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ebpo_sim.counts.noise import Model
from ebpo_sim.counts.streams import Mean, stream_seed
from ebpo_sim.worlds import World

Array = NDArray[np.float64]


class Sampled(NamedTuple):
    """Of one rule, by replicate (R,): unbiased for `Noise.noise` and `Noise.signal`."""

    noise_R: Array
    signal_R: Array


def sampled_noise(
    world: World, tables: Sequence[Array], model: Model, prompts: int, replicates: int, seed: int
) -> list[Sampled]:
    """Advantage tables of one group size on the same `prompts` prompts and rollouts a replicate.

    Scores are drawn as the model has them: the mean of their class along grad p, the rest Gaussian across it.
    """
    size = len(tables[0]) - 1
    found = np.empty((len(tables), 2, replicates))
    for i, child in enumerate(stream_seed(seed, f"noise {world.name}", size).spawn(replicates)):
        rng = np.random.default_rng(child)
        p = world.sample(rng, prompts)
        scores, h = model(p), p * (1 - p) * np.sqrt(model(p).apart_J)
        means = (1 - p) * np.sqrt(scores.apart_J), -p * np.sqrt(scores.apart_J)
        spreads = [np.maximum(x - m**2, 0.0) for x, m in zip((scores.right_J, scores.wrong_J), means, strict=True)]
        k = rng.binomial(size, np.broadcast_to(p, (2, prompts)))
        across = [rng.standard_normal(k.shape) * np.sqrt(n * v) for n, v in zip((k, size - k), spreads, strict=True)]
        for table, result in zip(tables, found, strict=True):
            right, wrong = table[k, 1], table[k, 0]
            along = (right * k * means[0] + wrong * (size - k) * means[1]) / size
            rest = (right * across[0] + wrong * across[1]) / size
            result[:, i] = (
                size * np.mean(np.diff(along, axis=0) ** 2 + np.diff(rest, axis=0) ** 2) / 2,
                np.mean(along * h),
            )
    return [Sampled(*result) for result in found]


def scale_ratio(mine: Sampled, plain: Sampled) -> Mean:
    """nu of one rule over another's, from paired replicates; delta method on the logarithm."""
    parts = [x.mean() for x in (mine.noise_R, plain.noise_R, mine.signal_R, plain.signal_R)]
    if min(map(abs, parts)) == 0:
        return Mean(float("nan"), float("nan"))
    value = parts[0] / parts[1] * (parts[3] / parts[2]) ** 2
    influence = mine.noise_R / parts[0] - plain.noise_R / parts[1]
    influence = influence - 2 * (mine.signal_R / parts[2] - plain.signal_R / parts[3])
    spread = float(np.std(influence, ddof=1))
    # Rounding alone is left where both are one rule.
    return Mean(float(value), float(abs(value) * spread / np.sqrt(len(influence))) if spread > 1e-9 else 0.0)
