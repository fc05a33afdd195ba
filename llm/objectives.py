"""The policy objective: a clipped surrogate, summed with weights that never depend on which rows are computed.

    loss = sum over tokens of w * ( -min(r A, clip(r, 1 - low, 1 + high) A) + kl_coef * k3 )

r = exp(log p_new - log p_old); k3 = exp(d) - d - 1 with d = log p_ref - log p_new. The weights w come from the masks of
the whole batch, so a row whose advantage is exactly zero, and that no KL term needs, can be left out: its
terms and their gradients are exactly zero, and the denominator has counted it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ebpo_sim.errors import InputError

Aggregation = Literal["token_mean", "sequence_mean", "constant_length"]
AGGREGATIONS: tuple[Aggregation, ...] = ("token_mean", "sequence_mean", "constant_length")


@dataclass(frozen=True)
class Objective:
    """clip_low, clip_high: half-widths of the trust region. kl_coef: weight of k3 to a reference policy, 0 for none.

    aggregation: "token_mean" divides by the tokens of the batch, "sequence_mean" by each answer's own and the
    number of answers, "constant_length" by `length` tokens an answer. Raises InputError for impossible values.
    """

    clip_low: float = 0.2
    clip_high: float = 0.2
    aggregation: Aggregation = "token_mean"
    length: int = 9
    kl_coef: float = 0.0

    def __post_init__(self) -> None:
        if self.aggregation not in AGGREGATIONS:
            raise InputError(f"aggregation must be one of {', '.join(AGGREGATIONS)}, got {self.aggregation!r}")
        if not 0 < self.clip_low < 1 or not 0 < self.clip_high < float("inf"):
            raise InputError(
                f"clip widths must be positive, the lower below 1, got {self.clip_low}, {self.clip_high}: 0.2 is usual"
            )
        if not 0 <= self.kl_coef < float("inf"):
            raise InputError(f"kl_coef must be at least 0, got {self.kl_coef}: 0 leaves the KL term out")
        if self.length < 1:
            raise InputError(f"length must be at least 1 token, got {self.length}")

    def weights(self, mask_NT: Tensor) -> Tensor:
        """(N, T) weight of every token of the whole batch; 0 where the mask is False."""
        mask = mask_NT.float()
        if self.aggregation == "token_mean":
            return mask / mask.sum().clamp(min=1)
        if self.aggregation == "sequence_mean":
            return mask / mask.sum(dim=1, keepdim=True).clamp(min=1) / len(mask)
        return mask / (self.length * len(mask))

    def needed_rows(self, advantage_N: Tensor) -> Tensor:
        """Indices of the rows that can have a gradient."""
        if self.kl_coef > 0:
            return torch.arange(len(advantage_N), device=advantage_N.device)
        return torch.nonzero(advantage_N != 0)[:, 0]

    def loss(
        self,
        log_prob_NT: Tensor,
        old_log_prob_NT: Tensor,
        advantage_N: Tensor,
        weight_NT: Tensor,
        reference_NT: Tensor | None = None,
    ) -> tuple[Tensor, int]:
        """(loss of the given rows, how many tokens were clipped): any subset of the batch, with the batch's weights.

        All log-probabilities in nats, (N, T); entries of weight 0 may hold anything finite.
        """
        if self.kl_coef > 0 and reference_NT is None:
            raise InputError("kl_coef is positive but no reference log-probabilities are given")
        counted_NT = weight_NT > 0
        difference_NT = torch.where(counted_NT, log_prob_NT - old_log_prob_NT, 0.0)
        ratio_NT = difference_NT.exp()
        advantage_N1 = advantage_N[:, None]
        clipped_NT = ratio_NT.clamp(1 - self.clip_low, 1 + self.clip_high)
        surrogate_NT = torch.minimum(ratio_NT * advantage_N1, clipped_NT * advantage_N1)
        term_NT = -surrogate_NT
        if self.kl_coef > 0 and reference_NT is not None:
            term_NT = term_NT + self.kl_coef * k3(torch.where(counted_NT, reference_NT - log_prob_NT, 0.0))
        with torch.no_grad():
            active_NT = counted_NT & (clipped_NT * advantage_N1 < ratio_NT * advantage_N1)
        return (weight_NT * term_NT).sum(), int(active_NT.sum())


def k3(difference: Tensor) -> Tensor:
    """exp(d) - d - 1: never negative; its mean under q estimates KL(q, p) with d = log p - log q, in nats."""
    return torch.expm1(difference) - difference
