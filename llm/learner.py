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
from llm import forward, noise
from llm.rollouts import Rollouts
from llm.run import Run


def learning_rate(run: Run, step: int) -> float:
    """Linear warm-up, then linear decay to 0 at the end; steps count from 0."""
    settings = run.settings
    return settings.lr * min(1.0, (step + 1) / max(1, settings.warmup)) * (1 - step / settings.steps)


def micro_batches(run: Run, rolled: Rollouts, index: Tensor) -> Iterator[Tensor]:
    """The rows of `index` in pieces of --micro-rows, none for no rows: answers of like length together, or where
    answers can share a row, those of a prompt."""
    size = run.settings.micro_rows or len(index)
    if size < len(index) and not (run.packs and forward.answers_a_row(rolled) > 1):
        index = index[torch.argsort(rolled.mask_NT[index].sum(dim=1), stable=True)]
    for start in range(0, len(index), max(1, size)):
        yield index[start : start + size]


def log_probs(run: Run, part: Rollouts, model: Any = None) -> Tensor:
    """The training forward of the policy (or of another model) on some rows, at the sampling temperature."""
    with run.where.context():
        return forward.log_probs(run.model if model is None else model, part, run.settings.temperature, run.packs)


@torch.no_grad()
def fixed_log_probs(run: Run, rolled: Rollouts, index: Tensor, reference: bool = False) -> Tensor:
    """(N, T) log-probabilities of the rows of `index` under the policy as it is, or the reference; 0 elsewhere."""
    found_NT = torch.zeros_like(rolled.log_prob_NT)
    without_adapters = reference and run.reference is None
    model: Any = run.model  # with LoRA a wrapper, which has adapters
    with model.disable_adapter() if without_adapters else nullcontext():
        for rows in micro_batches(run, rolled, index):
            part = rolled.rows(rows)
            log_prob_NT = log_probs(run, part, run.reference if reference else None)
            found_NT[rows, : log_prob_NT.shape[1]] = log_prob_NT
    return found_NT


def starts_from_trainer(run: Run) -> bool:
    """Whether the ratio starts from the training forward's log-probabilities: with --old-log-probs trainer, and by
    itself where the sampler's differ by more than float32's rounding."""
    choice = run.settings.old_log_probs
    return choice == "trainer" or (choice == "auto" and (run.where.dtype != "fp32" or run.settings.engine != "hf"))


def with_old_log_probs(run: Run, rolled: Rollouts, advantage_N: Tensor, measured: Tensor) -> Rollouts:
    """Rollouts that carry the log-probabilities the ratio starts from, on the rows that need them or that the step's
    KL is measured on: the sampler's own, or the training forward's, see `starts_from_trainer`.

    Where the only update of the batch is on-policy, the ratio is 1 and `update` fills the rows it computes anyway.
    """
    if not starts_from_trainer(run):
        return rolled
    needed = run.objective.needed_rows(advantage_N)
    index = torch.cat([needed, measured]).unique()
    if single_update(run, len(advantage_N)):
        index = index[~torch.isin(index, needed)]
    return rolled._replace(log_prob_NT=fixed_log_probs(run, rolled, index))


def mini_batch_rows(run: Run) -> int:
    """Rows of an optimizer step."""
    return (run.settings.mini_batch or run.settings.prompts) * run.settings.group_size


def single_update(run: Run, rows: int) -> bool:
    """Whether a batch of so many rows makes one optimizer step."""
    return run.settings.updates == 1 and rows <= mini_batch_rows(run)


def sampler_gap(run: Run, sampled: Rollouts, rolled: Rollouts, advantage_N: Tensor, measured: Tensor) -> float | None:
    """Mean |sampler - trainer| in nats on the rows where `rolled` carries the trainer's; None where it never does."""
    if not starts_from_trainer(run):
        return None
    index = torch.cat([run.objective.needed_rows(advantage_N), measured]).unique()
    counted_NT = sampled.mask_NT[index]
    return float(((rolled.log_prob_NT - sampled.log_prob_NT)[index].abs() * counted_NT).sum() / counted_NT.sum())


def update(
    run: Run, rolled: Rollouts, advantage_N: Tensor, lr: float, group_N: Tensor, drawn: int
) -> dict[str, float | None]:
    """--updates passes over the batch, an AdamW step a mini-batch; what to log of them. With the trainer's
    log-probabilities and a single update, those of `rolled` are filled in place.

    group_N: the group of each row, a group's rows together. drawn: rollouts that were drawn for these rows. With
    --noise-parts also the moments of the first mini-batch's gradient, when the policy is still the one that sampled.
    """
    settings, objective = run.settings, run.objective
    needed = objective.needed_rows(advantage_N)
    reference_NT = fixed_log_probs(run, rolled, needed, reference=True) if objective.has_reference else None
    for group in run.optimizer.param_groups:
        group["lr"] = lr
    size = mini_batch_rows(run)
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
    on_policy = starts_from_trainer(run) and single_update(run, len(advantage_N))
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
            if on_policy:
                rolled.log_prob_NT[some, :width] = now_NT.detach()
            old_NT = now_NT.detach() if on_policy else part.log_prob_NT
            given = (old_NT, advantage_N[some], weight_NT[some, :width], fixed_NT)
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
