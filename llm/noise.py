"""The gradient noise scale of a run, in rollouts, estimated without bias from the gradients of parts of its batches.

nu = N E|g - E g|^2 / |E g|^2, of the gradient g of a batch of N rollouts before it is clipped (arXiv 1812.06162, A):
where nu/N is far below 1 noise slows nothing; where it is far above 1 twice the batch needs half the steps.

The groups of a batch are dealt to K parts. What they share is not counted: the batch's token count, and the means and
scales that an estimator takes over the batch or from its memory; an effect of order 1/groups.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

MEMORY = 0.98  # weight of a step's moments in the logged scale, a step later
FORGOTTEN = 1000  # steps after which nothing of them is left
SIGNAL, NOISE = "gradient_signal", "gradient_noise"  # of a row of metrics


class Moments(NamedTuple):
    """Unbiased for one batch of N rollouts: signal |E g|^2, which may come out negative; noise N E|g - E g|^2."""

    signal: float
    noise: float


class Split(NamedTuple):
    """Some rows in K parts: rows_K, the rows of each; groups_K, how many groups those are."""

    rows_K: list[Tensor]
    groups_K: list[int]


def split(group_N: Tensor, parts: int) -> Split:
    """Rows dealt to at most `parts` parts of whole groups, whose sizes differ by one at most; a group's rows stand
    together. group_N: the group of each row, by any numbers."""
    _, dense_N = torch.unique_consecutive(group_N, return_inverse=True)
    groups = int(dense_N[-1]) + 1
    parts = max(1, min(parts, groups))
    part_N = dense_N * parts // groups
    part_P = torch.arange(groups) * parts // groups
    return Split([torch.nonzero(part_N == k)[:, 0] for k in range(parts)], torch.bincount(part_P).tolist())


def moments(square_K: Sequence[float], groups_K: Sequence[int], total: float, rollouts: float) -> Moments | None:
    """From a batch's gradient g = sum of c_k, of which n_k groups make c_k; None for fewer than two parts.

    square_K: |c_k|^2. groups_K: n_k, P in all. total: |g|^2. With independent groups
    E|g - E g|^2 = E[(P sum |c_k|^2 / n_k - |g|^2) / (K - 1)], exactly, and the signal is |g|^2 less that.
    """
    if len(square_K) < 2:
        return None
    each = sum(square / n for square, n in zip(square_K, groups_K, strict=True))
    noise = (sum(groups_K) * each - total) / (len(square_K) - 1)
    return Moments(total - noise, rollouts * noise)


def scale(found: Sequence[Moments], memory: float = 1.0) -> tuple[float | None, float | None]:
    """(nu, its standard error by the delta method over steps): the ratio of the moments' sums, older steps weighing
    less by `memory` a step. None before two steps, and while the summed signal is not above 0."""
    weight_T = [memory**age for age in range(len(found))][::-1]
    signal, noise = (sum(w * m[i] for w, m in zip(weight_T, found, strict=True)) for i in (0, 1))
    if len(found) < 2 or not signal > 0:
        return None, None
    nu = noise / signal
    squares = sum((w * (m.noise - nu * m.signal)) ** 2 for w, m in zip(weight_T, found, strict=True))
    effective = sum(weight_T) ** 2 / sum(w * w for w in weight_T)
    return nu, math.sqrt(squares * effective / (effective - 1)) / signal


def measured(rows: Sequence[Mapping[str, Any]]) -> list[Moments]:
    """The moments of the steps, rows of metrics, that have them."""
    return [Moments(row[SIGNAL], row[NOISE]) for row in rows if row.get(SIGNAL) is not None]


def logged(past: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """What the last of some rows of metrics says of the run so far."""
    nu, error = scale(measured(past[-FORGOTTEN:]), MEMORY)
    return {"noise_scale": nu, "noise_scale_se": error}


class PartGradients:
    """Adds up the gradients of a batch part by part, with one gradient more in memory; square_K: |c_k|^2 so far."""

    def __init__(self, parameters: Sequence[Any]) -> None:
        self.parameters, self.sums = parameters, [torch.zeros_like(p) for p in parameters]
        self.square_K: list[float] = []

    def close(self) -> None:
        """The parameters' gradients are one part's: add them up, and leave none."""
        square = torch.zeros((), dtype=torch.float64)
        for parameter, total in zip(self.parameters, self.sums, strict=True):
            if parameter.grad is not None:
                square = square + parameter.grad.square().sum(dtype=torch.float64)
                total += parameter.grad
                parameter.grad = None
        self.square_K.append(float(square))

    def restore(self) -> None:
        """The parameters' gradients are the batch's."""
        for parameter, total in zip(self.parameters, self.sums, strict=True):
            parameter.grad = total
