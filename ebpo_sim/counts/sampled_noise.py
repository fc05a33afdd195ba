"""Gradient noise from sampled groups: two of every prompt, whose difference is noise and whose mean is signal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ebpo_sim.counts.noise import Model
from ebpo_sim.counts.streams import Mean, stream_seed
from ebpo_sim.numbers import Array
from ebpo_sim.worlds import World


class Sampled(NamedTuple):
    """Of one rule, by replicate (R,): unbiased for `Noise.noise` and `Noise.signal`."""

    noise_R: Array
    signal_R: Array


def sampled_noise(
    world: World, tables: Sequence[Array], model: Model, prompts: int, replicates: int, seed: int, rows: float = 1.0
) -> list[Sampled]:
    """Advantage tables of one group size on the same `prompts` prompts and rollouts a replicate.

    Scores are drawn as the model has them: the mean of their class along grad p, the rest Gaussian across it. rows: the
    share of rows that a batch keeps, each with q = min(1, |A| |s|/tau) and weight 1/q, tau from the batch itself.
    """
    size = len(tables[0]) - 1
    found = np.empty((len(tables), 2, replicates))
    for i, child in enumerate(stream_seed(seed, f"noise {world.name}", size).spawn(replicates)):
        rng = np.random.default_rng(child)
        p = world.sample(rng, prompts)
        scores = model(p)
        apart, norms = np.sqrt(scores.apart_J), (scores.right_J, scores.wrong_J)
        means = (1 - p) * apart, -p * apart
        k = rng.binomial(size, np.broadcast_to(p, (2, prompts)))
        drawn, across = (k, size - k), rng.standard_normal((2, *k.shape))
        for table, result in zip(tables, found, strict=True):
            advantages = [table[k, 1], table[k, 0]]
            kept = list(drawn)
            if rows < 1:
                lengths = [np.abs(a) * np.sqrt(norm) for a, norm in zip(advantages, norms, strict=True)]
                tau = _threshold(np.stack(lengths), np.stack(drawn), rows)
                q = [np.minimum(1.0, x / tau) for x in lengths]
                kept = [rng.binomial(n, x) for n, x in zip(drawn, q, strict=True)]
                advantages = [a / np.maximum(x, 1e-300) for a, x in zip(advantages, q, strict=True)]
            along, rest = np.zeros(k.shape), np.zeros(k.shape)
            for a, n, mean, norm, normal in zip(advantages, kept, means, norms, across, strict=True):
                along += a * n * mean / size
                rest += a * normal * np.sqrt(n * np.maximum(norm - mean**2, 0.0)) / size
            noise = size * np.mean(np.diff(along, axis=0) ** 2 + np.diff(rest, axis=0) ** 2) / 2
            result[:, i] = noise, np.mean(along * p * (1 - p) * apart)
    return [Sampled(*result) for result in found]


def _threshold(lengths: Array, counts: NDArray[np.int64], rows: float) -> float:
    """tau at which sum counts min(1, length/tau) is the share `rows` of all rows, by bisection; 0 keeps every one."""
    low, high = 0.0, float(lengths.max()) / rows
    for _ in range(24):  # any tau is unbiased; this one keeps the share to 1e-6
        middle = (low + high) / 2
        more = np.sum(counts * np.minimum(1.0, lengths / middle)) > rows * counts.sum()
        low, high = (middle, high) if more else (low, middle)
    return max(low, 1e-300)


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
