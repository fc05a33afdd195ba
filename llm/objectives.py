"""The torch host of objectives: their pushes as a loss whose gradient they are.

    loss = - sum over tokens of alpha * push.detach() * log_prob

`ebpo_sim.objectives` says what a token is pushed with; the weights alpha come from the masks of the whole batch, so a
row that pushes nothing can be left out: its terms are exactly zero, and the denominator has counted it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ebpo_sim import rungs
from ebpo_sim.objectives import Aggregation, Clip, Objective, Tokens, needs, total_push, zero_at_zero

AGGREGATIONS = ("token_mean", "sequence_mean", "constant_length")
TOKEN_MEAN = Aggregation()


@dataclass(frozen=True)
class Loss:
    """objectives: their pushes add. aggregation: the weight of a token. every_row: compute rows without a push too.

    Raises InputError for objectives that need what this rung does not have.
    """

    objectives: tuple[Objective, ...] = (Clip(),)
    aggregation: Aggregation = TOKEN_MEAN
    every_row: bool = False

    def __post_init__(self) -> None:
        for objective in self.objectives:
            rungs.check_objective(type(objective).__name__, objective, rungs.LANGUAGE_MODEL)

    @property
    def has_reference(self) -> bool:
        """Whether log-probabilities of the reference policy are needed."""
        return "reference" in needs(self.objectives)

    def weights(self, mask_NT: Tensor) -> Tensor:
        """(N, T) weight of every token of the whole batch; 0 where the mask is False."""
        weight_NT: Tensor = self.aggregation.tokens(mask_NT)
        return weight_NT

    def needed_rows(self, advantage_N: Tensor) -> Tensor:
        """Indices of the rows that can have a gradient."""
        if self.every_row or not zero_at_zero(self.objectives):
            return torch.arange(len(advantage_N), device=advantage_N.device)
        return torch.nonzero(advantage_N != 0)[:, 0]

    def loss(
        self,
        log_prob_NT: Tensor,
        old_log_prob_NT: Tensor,
        advantage_N: Tensor,
        weight_NT: Tensor,
        reference_NT: Tensor | None = None,
        states: Sequence[Any] = (),
    ) -> tuple[Tensor, int]:
        """(a loss of the given rows with the objectives' gradient, how many tokens were clipped): any subset of the
        batch, with the batch's weights. All log-probabilities in nats, (N, T); entries of weight 0 may hold anything
        finite. states: the objectives' memories. Only the gradient of the loss means anything, not its value.
        """
        with torch.no_grad():
            tokens = self.tokens(log_prob_NT.detach(), old_log_prob_NT, advantage_N, weight_NT, reference_NT)
            push = total_push(self.objectives, states or [()] * len(self.objectives), tokens)
        loss = -(weight_NT * push.log_prob_NT * log_prob_NT.masked_fill(~tokens.mask_NT, 0.0)).sum()
        return loss, int(push.counts.get("clipped", 0))

    def tokens(
        self,
        log_prob_NT: Tensor,
        old_log_prob_NT: Tensor,
        advantage_N: Tensor,
        weight_NT: Tensor,
        reference_NT: Tensor | None = None,
    ) -> Tokens:
        """The rows as objectives take them: the one place of this rung that builds `Tokens`."""
        return Tokens(log_prob_NT, old_log_prob_NT, weight_NT > 0, advantage_N[:, None], reference_NT=reference_NT)
