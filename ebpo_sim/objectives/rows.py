"""Answers as wholes: sums over the tokens of a row and over the rows of a group; NumPy and torch alike."""

from __future__ import annotations

from typing import Any

import numpy as np

from ebpo_sim.objectives.base import Formula, Tokens, library, log_ratio


class Scored(Formula):
    """An objective that is its own push, held, times log pi: J = sg(push) log pi."""

    push: Any

    def value(self, state: Any, tokens: Tokens, held: Tokens) -> Any:
        log_prob = library(tokens.log_prob_NT).where(tokens.mask_NT, tokens.log_prob_NT, 0.0)
        return self.push(state, held).log_prob_NT * log_prob


def row_mean(x_NT: Any, mask_NT: Any) -> Any:
    """(N, 1) mean over each row's tokens, 0 for a row without."""
    count = mask_NT.sum(-1)
    return (library(x_NT).where(mask_NT, x_NT, 0.0).sum(-1) / (count + (count == 0)))[:, None]


def row_log_ratio(tokens: Tokens, limit: float, mean: bool = True) -> Any:
    """(N, 1) log pi(answer)/old(answer), nats, per token or of the whole; each token's is held within ±limit."""
    difference, _ = log_ratio(tokens, limit)
    if mean:
        return row_mean(difference, tokens.mask_NT)
    return library(tokens.log_prob_NT).where(tokens.mask_NT, difference, 0.0).sum(-1)[:, None]


def side_N(tokens: Tokens) -> Any:
    """The sign of each row's advantage, that of its first tokens: the label of objectives that classify answers."""
    return library(tokens.log_prob_NT).sign(tokens.advantage_NT[:, 0])


class Members:
    """The groups of a batch's rows, for sums and maxima over them that come back to every row."""

    def __init__(self, group_N: Any) -> None:
        self.xp = library(group_N)
        _, self.index_N = self.xp.unique(group_N, return_inverse=True)
        self.count = int(self.index_N.max()) + 1 if len(self.index_N) else 0

    def sums(self, x_N: Any) -> Any:
        """(N,) sum over each row's group."""
        if self.xp is np:
            return np.bincount(self.index_N, x_N, self.count)[self.index_N]
        zero = self.xp.zeros(self.count, dtype=x_N.dtype, device=x_N.device)
        return zero.index_add(0, self.index_N, x_N)[self.index_N]

    def largest(self, x_N: Any) -> Any:
        """(N,) maximum over each row's group."""
        if self.xp is np:
            most = np.full(self.count, -np.inf)
            np.maximum.at(most, self.index_N, x_N)
            return most[self.index_N]
        most = self.xp.full((self.count,), -float("inf"), dtype=x_N.dtype, device=x_N.device)
        return most.scatter_reduce(0, self.index_N, x_N, "amax")[self.index_N]

    def medians(self, x_N: Any) -> Any:
        """(N,) median of each row's group, the mean of the middle two where their number is even."""
        x, index = (np.asarray(v if self.xp is np else v.cpu()) for v in (x_N, self.index_N))
        order, size = np.lexsort((x, index)), np.bincount(index, minlength=self.count)
        start = np.cumsum(size) - size
        middle = (x[order][start + (size - 1) // 2] + x[order][start + size // 2]) / 2
        return middle[index] if self.xp is np else self.xp.as_tensor(middle[index]).to(x_N)
