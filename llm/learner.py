"""From advantages to weights: mini-batches, exact skipping, micro-batches, and what one step did to the policy.

The loss of a mini-batch is a sum over its tokens with weights fixed by its masks, so it may be computed over any
split into rows: rows of advantage exactly 0 are left out, the rest is taken `--micro-rows` at a time, and the
gradient is the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from ebpo_sim.errors import InputError
from ebpo_sim.objectives import Tokens, estimate, learnt, remember
from llm import noise, rollouts
from llm.rollouts import Rollouts
from llm.run import Run


def learning_rate(run: Run, step: int) -> float:
    """Linear warm-up, then linear decay to 0 at the end; steps count from 0."""
    settings = run.settings
    return settings.lr * min(1.0, (step + 1) / max(1, settings.warmup)) * (1 - step / settings.steps)


def micro_batches(run: Run, rolled: Rollouts, index: Tensor) -> Iterator[Tensor]:
    """The rows of `index` in pieces of --micro-rows, answers of like length together; none for no rows."""
    size = run.settings.micro_rows or len(index)
    if size < len(index):
        index = index[torch.argsort(rolled.mask_NT[index].sum(dim=1), stable=True)]
    for start in range(0, len(index), max(1, size)):
        yield index[start : start + size]


def log_probs(run: Run, part: Rollouts, model: Any = None) -> Tensor:
    """The training forward of the policy (or of another model) on some rows, at the sampling temperature."""
    with run.where.context():
        return rollouts.log_probs(
            run.model if model is None else model,
            part.prompt_NL, part.prompt_mask_NL, part.tokens_NT, part.mask_NT, run.settings.temperature,
        )  # fmt: skip


@torch.no_grad()
def fixed_log_probs(run: Run, rolled: Rollouts, index: Tensor, reference: bool = False) -> Tensor:
    """(N, T) log-probabilities of the rows of `index` under the policy as it is, or the reference; 0 elsewhere."""
    found_NT = torch.zeros_like(rolled.log_prob_NT)
    without_adapters = reference and run.reference is None
    model: Any = run.model  # with LoRA a wrapper, which has adapters
    with model.disable_adapter() if without_adapters else nullcontext():
        for rows in micro_batches(run, rolled, index):
            part = rolled.rows(rows)
            said = log_probs(run, part, run.reference if reference else None)
            found_NT[rows, : said.shape[1]] = said.masked_fill(~part.mask_NT, 0.0)
    return found_NT


def with_old_log_probs(
    run: Run, rolled: Rollouts, advantage_N: Tensor, measured: Tensor
) -> tuple[Rollouts, float | None]:
    """(rollouts that carry the log-probabilities the ratio starts from, mean |sampler - trainer| in nats).

    The sampler's own in float32, where both forwards agree to 1e-5 and the difference is not computed; else, or with
    --old-log-probs trainer, those of the training forward, on the rows that need them or that the step's KL is
    measured on.
    """
    choice = run.settings.old_log_probs
    if choice == "sampler" or (choice == "auto" and run.where.dtype == "fp32" and run.settings.engine == "hf"):
        return rolled, None
    index = torch.cat([run.objective.needed_rows(advantage_N), measured]).unique()
    mine_NT = fixed_log_probs(run, rolled, index)
    counted_NT = rolled.mask_NT[index]
    gap = ((mine_NT - rolled.log_prob_NT)[index].abs() * counted_NT).sum() / counted_NT.sum()
    return rolled._replace(log_prob_NT=mine_NT), float(gap)


def update(
    run: Run, rolled: Rollouts, advantage_N: Tensor, lr: float, group_N: Tensor, drawn: int
) -> dict[str, float | None]:
    """--updates passes over the batch, an AdamW step a mini-batch; what to log of them.

    group_N: the group of each row, a group's rows together. drawn: rollouts that were drawn for these rows. With
    --noise-parts also the moments of the first mini-batch's gradient, when the policy is still the one that sampled.
    """
    settings, objective = run.settings, run.objective
    needed = objective.needed_rows(advantage_N)
    reference_NT = fixed_log_probs(run, rolled, needed, reference=True) if objective.has_reference else None
    for group in run.optimizer.param_groups:
        group["lr"] = lr
    size = (settings.mini_batch or settings.prompts) * settings.group_size
    norms: list[float] = []
    clipped, first = 0, None
    for _ in range(settings.updates):
        for start in range(0, len(advantage_N), size):
            rows = torch.arange(start, min(start + size, len(advantage_N)), device=advantage_N.device)
            split = noise.split(group_N[rows], 1 if norms else settings.noise_parts)
            norm, stopped, square_K = _optimizer_step(run, rolled, advantage_N, reference_NT, rows, split.rows_K)
            if not norms:
                first = noise.moments(square_K, split.groups_K, norm**2, drawn * len(rows) / len(advantage_N))
            norms.append(norm)
            clipped += stopped
    moments = dict(zip((noise.SIGNAL, noise.NOISE), first or (None, None), strict=True))
    return {
        "grad_norm": sum(norms) / len(norms),
        "clip_fraction": clipped / (settings.updates * int(rolled.mask_NT.sum())),
        "rows_trained": len(needed) / len(advantage_N),
        "lr": lr,
        **(moments if settings.noise_parts else {}),
    }


def _optimizer_step(
    run: Run, rolled: Rollouts, advantage_N: Tensor, reference_NT: Tensor | None, rows: Tensor, pieces: Sequence[Tensor]
) -> tuple[float, int, list[float]]:
    """(gradient norm before clipping, tokens clipped, |c_k|^2 of `noise`) of one AdamW step on the mini-batch `rows`,
    whose gradient is computed piece by piece."""
    objective, clipped, states = run.objective, 0, run.state.objectives
    parts: list[Tokens] = []
    weight_NT = torch.zeros_like(rolled.log_prob_NT)
    weight_NT[rows] = objective.weights(rolled.mask_NT[rows])
    run.optimizer.zero_grad()
    run.model.train(run.settings.gradient_checkpointing)  # it works in this mode only; no model here has dropout
    trained = [p for p in run.model.parameters() if p.requires_grad]
    apart = noise.PartGradients(trained) if len(pieces) > 1 else None
    for piece in pieces:
        needed = rows[piece][objective.needed_rows(advantage_N[rows[piece]])]
        for some in micro_batches(run, rolled, needed):
            part = rolled.rows(some)
            width = part.tokens_NT.shape[1]
            now_NT, fixed_NT = log_probs(run, part), None if reference_NT is None else reference_NT[some, :width]
            given = (part.log_prob_NT, advantage_N[some], weight_NT[some, :width], fixed_NT)
            loss, stopped = objective.loss(now_NT, *given, states)
            loss.backward()
            if remember(objective.objectives):
                parts.append(objective.tokens(now_NT.detach(), *given))
            clipped += stopped
        if apart is not None:
            apart.close()
    if apart is not None:
        apart.restore()
    if parts:
        run.state = run.state._replace(objectives=learnt(objective.objectives, states, parts))
    run.model.eval()
    for parameter in trained:  # a batch without signal has a zero gradient, and momentum moves on
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    norm = float(torch.nn.utils.clip_grad_norm_(trained, run.settings.grad_clip))
    if not math.isfinite(norm):
        raise InputError(
            f"the gradient's norm is {norm}: the run has diverged; resume, or start again with a lower --lr"
        )
    run.optimizer.step()
    return norm, clipped, [] if apart is None else apart.square_K


@torch.no_grad()
def kl_of_step(run: Run, rolled: Rollouts, index: Tensor) -> float:
    """KL(before the step, after it) a token, nats, by k3 on the rows of `index`: one answer a prompt."""
    new_NT = fixed_log_probs(run, rolled, index)[index]
    mask_NT = rolled.mask_NT[index]
    k3_NT = estimate((new_NT - rolled.log_prob_NT[index]).masked_fill(~mask_NT, 0.0), "k3")
    return float((k3_NT * mask_NT).sum() / mask_NT.sum())
