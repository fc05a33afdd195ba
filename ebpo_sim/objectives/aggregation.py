"""What one token of one answer weighs in the objective: every rule is a weight for each row, from the rows' lengths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ebpo_sim import typed
from ebpo_sim.errors import InputError
from ebpo_sim.objectives.base import library

Rule = Literal["token_mean", "sequence_mean", "constant_length", "sequence_sum", "delta_l"]


@dataclass(frozen=True)
class Aggregation(typed.Settings):
    """alpha of every token of a row of L tokens, among the N rows over which the mean is taken (a mini-batch):

    token_mean 1/sum L (DAPO, verl's default); sequence_mean 1/(N L) (GRPO); constant_length 1/(N length) (Dr. GRPO);
    sequence_sum 1/N (Dr. GRPO as Table 1 of arXiv 2601.05002 prints it); delta_l L^-power/(length sum L^-power), of
    rows that have tokens (arXiv 2509.07558; power 1 for the least variance where a token's is one number, 0.75 on its
    mathematics, 0 is constant_length). length: the constant, in tokens; of delta_l a step size, 1 unless given.
    The weights never depend on which rows are computed, so rows that push nothing can be left out exactly.
    """

    rule: Rule = "token_mean"
    length: int | None = None
    power: float = 1.0

    def check_settings(self) -> None:
        if self.rule == "constant_length" and (self.length is None or self.length < 1):
            raise InputError(
                f"constant_length needs length, at least 1 token, got {self.length}: the longest answer is usual"
            )

    def rows(self, length_N: Any, copies: int = 1) -> Any:
        """(..., N) alpha of each row's tokens; the mean runs over the last axis. A row without tokens counts as one of
        N and weighs nothing itself. copies: how often each row counts, as where all answers to a prompt are as long."""
        xp = library(length_N)
        count = copies * length_N.shape[-1]
        if self.rule == "token_mean":
            total = copies * length_N.sum(-1)
            return 1.0 / (xp.zeros_like(length_N) + (total + (total == 0))[..., None])
        if self.rule == "sequence_mean":
            return 1.0 / (count * (length_N + (length_N == 0)))
        if self.rule == "delta_l":
            live = length_N > 0
            share = xp.where(live, (length_N + ~live) ** -self.power, 0.0)
            total = share.sum(-1)[..., None]
            return share / (float(self.length or 1) * (total + (total == 0)))
        divisor = count * float(self.length or 1) if self.rule == "constant_length" else float(count)
        return xp.zeros_like(length_N) + 1.0 / divisor

    def tokens(self, mask_NT: Any) -> Any:
        """(N, T) weights, 0 where the mask is False; float64 in NumPy; in torch the type of a mask of
        0.0 and 1.0, float32 for one of bools, as trainers have it."""
        xp = library(mask_NT)
        if xp is np:
            mask = mask_NT.astype(np.float64)
        else:
            mask = mask_NT if mask_NT.is_floating_point() else mask_NT.to(xp.float32)
        return mask * self.rows(mask.sum(-1))[:, None]


# The published rules of arXiv 2601.05002, Table 1: (rule, divided by the group's standard deviation, prunes small |A|).
# GSPO's and CISPO's ratios are part of their objectives, not of the weights.
PUBLISHED: dict[str, tuple[Rule, bool, bool]] = {
    "grpo": ("sequence_mean", True, False),
    "grpo_v3.2": ("sequence_mean", False, False),
    "gspo": ("sequence_mean", True, False),
    "dapo": ("token_mean", True, False),
    "cppo": ("sequence_mean", True, True),
    "dr_grpo": ("sequence_sum", False, False),
    "gpg": ("token_mean", False, False),
    "cispo": ("token_mean", True, False),
    "gcpo": ("sequence_sum", True, False),
}
