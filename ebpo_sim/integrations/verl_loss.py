"""Objectives of this project as a policy loss of verl.

    actor_rollout_ref.actor.policy_loss._target_=ebpo_sim.integrations.verl.PolicyLoss
    actor_rollout_ref.actor.policy_loss.loss_mode=ebpo_sim
    '+actor_rollout_ref.actor.policy_loss.objectives="clip:low=0.2,high=0.28 + r2vpo_fixed"'

verl builds `policy_loss` from the class that `_target_` names and refuses keys that the class does not have, so the
objectives come in a class of ours; that also loads the registration in every worker. verl's own loss_agg_mode,
rollout_is_weights, entropy_coeff and use_kl_loss apply as ever; its clip settings have no effect.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from verl.trainer.ppo.core_algos import agg_loss, register_policy_loss
from verl.workers.config import PolicyLossConfig

from ebpo_sim import rungs
from ebpo_sim.errors import InputError
from ebpo_sim.methods.method import PLUS, parse_method
from ebpo_sim.objectives import Objective, Tokens, total_push

LOSS_MODE = "ebpo_sim"
TARGET = "ebpo_sim.integrations.verl.PolicyLoss"


@cache
def objectives_of(text: str) -> tuple[Objective, ...]:
    """The objectives of "clip:high=0.28 + ...". Raises InputError for what is no such text or cannot stand in verl."""
    if not text.strip():
        raise InputError("policy_loss.objectives must name objectives, got '': write clip:low=0.2,high=0.28, say")
    return parse_method(f"grpo{PLUS}{text}", None, rungs.VERL).objectives


@dataclass
class PolicyLoss(PolicyLossConfig):
    """verl's `policy_loss` section with objectives in it. Raises InputError when it is built (verl does so before
    anything starts): for what `objectives_of` refuses and another loss_mode, under which they would have no effect."""

    objectives: str = ""

    def __post_init__(self) -> None:
        objectives_of(self.objectives)
        if self.loss_mode != LOSS_MODE:
            raise InputError(f"policy_loss.loss_mode must be {LOSS_MODE!r} with objectives, got {self.loss_mode!r}")


def check_config(config: Any) -> None:
    """Raises InputError for a trainer's config in which the objectives would not be what is trained with."""
    named = config.actor_rollout_ref.actor.policy_loss
    if named.loss_mode != LOSS_MODE:
        return
    if named.get("_target_") != TARGET:
        raise InputError(f"loss_mode {LOSS_MODE} needs policy_loss._target_={TARGET}, got {named.get('_target_')!r}")
    objectives_of(named.get("objectives", ""))
    correction = config.algorithm.get("rollout_correction") or {}
    if correction.get("bypass_mode") and correction.get("rollout_rs"):
        raise InputError(
            f"rollout_correction.rollout_rs must be null with bypass_mode and objectives, got "
            f"{correction['rollout_rs']!r}: there verl rejects rows in a loss of its own; set bypass_mode=False"
        )


def policy_loss(
    old_log_prob: torch.Tensor,
    log_prob: torch.Tensor,
    advantages: torch.Tensor,
    response_mask: torch.Tensor,
    loss_agg_mode: str = "token-mean",
    config: Any = None,
    rollout_is_weights: torch.Tensor | None = None,
) -> tuple[torch.Tensor, dict[str, float]]:
    """verl's contract: a loss and its metrics; all tensors (N, T), any micro-batch. Its gradient is that of
    - weight * push * log_prob, with verl's weights of tokens; its value is the mean push, and means no more."""
    named = getattr(getattr(config, "policy_loss", None), "objectives", "")
    objectives, mask_NT = objectives_of(named), response_mask.bool()
    with torch.no_grad():
        now_NT = log_prob.detach()
        push = total_push(objectives, [()] * len(objectives), Tokens(now_NT, old_log_prob, mask_NT, advantages))
        push_NT = push.log_prob_NT if rollout_is_weights is None else push.log_prob_NT * rollout_is_weights
        count = mask_NT.sum().clamp(min=1)
        moved = ((old_log_prob - now_NT) * mask_NT).sum() / count
    loss_NT = -push_NT * torch.exp(torch.where(mask_NT, log_prob - now_NT, 0.0))
    loss = agg_loss(loss_NT, response_mask, loss_agg_mode, **config.global_batch_info)
    shares = {f"actor/{name}": float(number / count) for name, number in push.counts.items()}
    return loss, {"actor/ppo_kl": float(moved), **shares}


register_policy_loss(LOSS_MODE)(policy_loss)
