"""Score norms of TRL's completions, by one forward of the policy more: TRL keeps no distribution of a token."""

from __future__ import annotations

from typing import Any

import torch

from ebpo_sim.errors import InputError


@torch.no_grad()
def score_norms(trainer: Any, output: dict[str, Any], counted_NT: torch.Tensor) -> torch.Tensor:
    """(N,) W = sum over the counted tokens of |pi - one_hot(token)|^2 when sampled, of this process's rows.

    output: what `_generate_and_score_completions` returns. Whole logits exist for per_device_train_batch_size rows at a
    time. Raises InputError for prompts with images.
    """
    if "pixel_values" in output:
        raise InputError(
            f"{trainer.estimator.name} needs score_norms, which are computed for text alone: drop the images"
        )
    ids_NL, seen_NL = (torch.cat([output[f"prompt_{x}"], output[f"completion_{x}"]], dim=1) for x in ("ids", "mask"))
    width, rows, found = counted_NT.shape[1], trainer.args.per_device_train_batch_size, []
    for start in range(0, len(ids_NL), rows):
        some = slice(start, start + rows)
        with trainer.accelerator.autocast():
            said = trainer.model(input_ids=ids_NL[some], attention_mask=seen_NL[some], use_cache=False)
        logits_NTV, tokens_NT = said.logits[:, -width - 1 : -1], output["completion_ids"][some]
        norms = [_norm(logits_NTV[:, t].float() / trainer.temperature, tokens_NT[:, t]) for t in range(width)]
        found.append((torch.stack(norms, dim=1) * counted_NT[some]).sum(dim=1))
    return torch.cat(found)


def _norm(logits_NV: torch.Tensor, token_N: torch.Tensor) -> torch.Tensor:
    probabilities = torch.softmax(logits_NV, dim=-1)
    less_one = probabilities.scatter_add(1, token_N[:, None], -torch.ones_like(logits_NV[:, :1]))
    norm_N: torch.Tensor = torch.linalg.vector_norm(less_one, dim=-1)
    return norm_N.square()
