"""Sampling with a key-value cache, and the training forward that its log-probabilities must equal.

Prompts are padded on the left, so all end in the same column; positions are counted from the mask. A prompt is
read once and its cache repeated for the G answers. The mask of an answer includes the end token and nothing after.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache, PreTrainedModel

from ebpo_sim.errors import InputError
from llm.tasks.tokenizer import Tokenizer

KEEP_FINISHED = 0.25  # finished rows are dropped from the cache once they are more than this share of it


class Rollouts(NamedTuple):
    """N = P * G answers, the G answers of a prompt together.

    prompt_NL, prompt_mask_NL: left-padded prompts. tokens_NT, mask_NT: answers with their end token, right-padded.
    log_prob_NT, entropy_NT: of each token, and of its distribution, when it was sampled, nats, 0 where masked.
    finished_N: whether the end token came. score_norm_N: W = sum over an answer's tokens of |d log pi / d logits|^2 =
    1 - 2 pi(token) + sum over the vocabulary of pi^2, of the distribution sampled from.
    """

    prompt_NL: Tensor
    prompt_mask_NL: Tensor
    tokens_NT: Tensor
    mask_NT: Tensor
    log_prob_NT: Tensor
    entropy_NT: Tensor
    finished_N: Tensor
    score_norm_N: Tensor

    def rows(self, index: Tensor) -> Rollouts:
        """The chosen rows, prompts and answers trimmed to the longest of them."""
        chosen = Rollouts(*(part[index] for part in self))
        masks = chosen.prompt_mask_NL, chosen.mask_NT
        prompt, width = (int(mask.sum(dim=1).max()) if len(index) else 0 for mask in masks)
        prompts, answers = (
            (part[:, part.shape[1] - prompt :] for part in chosen[:2]),
            (x[:, :width] for x in chosen[2:6]),
        )
        return Rollouts._make((*prompts, *answers, *chosen[6:]))


def positions(mask_NL: Tensor) -> Tensor:
    """Position of every token, counted over the unpadded ones."""
    return (mask_NL.long().cumsum(dim=1) - 1).clamp(min=0)


@torch.no_grad()
def check_cache(model: PreTrainedModel) -> None:
    """Raises InputError for models whose cache cannot be repeated and cut by rows, as recurrent states cannot."""
    device = next(model.parameters()).device
    ids, mask = (
        torch.zeros((1, 2), dtype=torch.long, device=device),
        torch.ones((1, 2), dtype=torch.bool, device=device),
    )
    try:
        cache = DynamicCache(config=model.config)
        _forward(model, ids, mask, positions(mask), cache)
        cache.batch_repeat_interleave(2)
        cache.batch_select_indices(torch.zeros(1, dtype=torch.long, device=device))
    except (AttributeError, KeyError, NotImplementedError, TypeError, ValueError) as error:
        raise InputError(
            f"{type(model).__name__} has a cache that --engine hf cannot sample groups with ({type(error).__name__}): "
            "use --backend trl, or a model of attention layers alone"
        ) from error


@torch.no_grad()
def sample(
    model: PreTrainedModel,
    prompt_PL: Tensor,
    mask_PL: Tensor,
    group_size: int,
    max_new: int,
    tokenizer: Tokenizer,
    generator: torch.Generator,
    temperature: float = 1.0,
    top_p: float = 1.0,
) -> Rollouts:
    """G answers of up to `max_new` tokens to each of P left-padded prompts; temperature 0 is greedy.

    top_p: tokens are drawn from the smallest set of likeliest ones whose probability reaches it; log-probabilities,
    entropies and score norms stay those of the whole distribution.
    Raises InputError for a group size or length below 1 and for a negative temperature.
    """
    if group_size < 1 or max_new < 1 or temperature < 0:
        raise InputError(
            f"group_size and max_new must be at least 1 and temperature at least 0, got {group_size}, {max_new}, "
            f"{temperature}"
        )
    device = prompt_PL.device
    cache = DynamicCache(config=model.config)
    logits = _forward(model, prompt_PL, mask_PL, positions(mask_PL), cache)
    cache.batch_repeat_interleave(group_size)
    logits = logits.repeat_interleave(group_size, dim=0)
    prompt_NL, prompt_mask_NL = (x.repeat_interleave(group_size, dim=0) for x in (prompt_PL, mask_PL))
    n = len(prompt_NL)
    tokens_NT = torch.full((n, max_new), tokenizer.pad_id, device=device)
    mask_NT = torch.zeros((n, max_new), dtype=torch.bool, device=device)
    log_prob_NT, entropy_NT = torch.zeros((2, n, max_new), device=device)
    finished_N = torch.zeros(n, dtype=torch.bool, device=device)
    score_norm_N = torch.zeros(n, device=device)
    ends = torch.tensor(tokenizer.eos_ids, device=device)
    row, live, seen = torch.arange(n, device=device), ~finished_N, prompt_mask_NL  # of the rows in the cache
    for t in range(max_new):
        token, log_prob, entropy, norm = _choose(logits, temperature, generator, top_p)
        now = row[live], t
        tokens_NT[now], log_prob_NT[now], entropy_NT[now] = token[live], log_prob[live], entropy[live]
        score_norm_N[row[live]] += norm[live]
        mask_NT[now] = True
        live = live & ~torch.isin(token, ends)
        finished_N[row] = ~live
        if t + 1 == max_new or not live.any():
            break
        if (~live).float().mean() > KEEP_FINISHED:
            keep = torch.nonzero(live)[:, 0]
            cache.batch_select_indices(keep)
            row, seen, token, live = row[keep], seen[keep], token[keep], live[keep]
        seen = torch.cat([seen, torch.ones_like(seen[:, :1])], dim=1)
        logits = _forward(model, token[:, None], seen, positions(seen)[:, -1:], cache)
    width = int(mask_NT.sum(dim=1).max())
    parts = (part[:, :width] for part in (tokens_NT, mask_NT, log_prob_NT, entropy_NT))
    return Rollouts._make((prompt_NL, prompt_mask_NL, *parts, finished_N, score_norm_N))


def _forward(model: PreTrainedModel, ids: Tensor, mask: Tensor, position: Tensor, cache: DynamicCache) -> Tensor:
    """Logits (N, V) after the last column; the cache grows in place."""
    said = model(
        input_ids=ids,
        attention_mask=mask.long(),
        position_ids=position,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    logits_NV: Tensor = said.logits[:, -1].float()
    return logits_NV


def _choose(
    logits: Tensor, temperature: float, generator: torch.Generator, top_p: float = 1.0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A token a row; its log-probability, entropy and score norm at the temperature it was drawn at (greedy: at 1)."""
    log_probs = torch.log_softmax(logits / (temperature or 1.0), dim=-1)
    probabilities = log_probs.exp()
    if temperature == 0:
        token = log_probs.argmax(dim=-1)
    else:
        try:
            token = torch.multinomial(nucleus(probabilities, top_p), 1, generator=generator)[:, 0]
        except RuntimeError as error:  # on a CPU; a GPU ends the program
            if "probability tensor" not in str(error):
                raise
            raise InputError(
                "the model's probabilities are not finite: resume, or start again with a lower --lr"
            ) from error
    entropy = -(probabilities * log_probs).sum(dim=-1)
    # pi less the chosen token's one: near 1 its squares keep the digits that 1 - 2 pi + sum of pi^2 rounds away
    less_one = probabilities.scatter_add_(1, token[:, None], -torch.ones_like(logits[:, :1]))
    norm = torch.linalg.vector_norm(less_one, dim=-1).square()
    return token, log_probs.gather(1, token[:, None])[:, 0], entropy, norm


def nucleus(probability_NV: Tensor, top_p: float) -> Tensor:
    """The probabilities of the likeliest tokens up to the one with which their sum reaches top_p; 0 for others."""
    if top_p >= 1:
        return probability_NV
    sorted_NV, order_NV = probability_NV.sort(dim=-1, descending=True, stable=True)
    before_NV = sorted_NV.cumsum(dim=-1) - sorted_NV
    return torch.zeros_like(probability_NV).scatter(1, order_NV, sorted_NV.masked_fill(before_NV >= top_p, 0.0))


def log_probs(
    model: PreTrainedModel,
    prompt_NL: Tensor,
    prompt_mask_NL: Tensor,
    tokens_NT: Tensor,
    mask_NT: Tensor,
    temperature: float = 1.0,
) -> Tensor:
    """Log-probability of every answer token, (N, T), nats; what stands where the mask is False is noise.

    The training forward: one pass over prompt and answer, with gradients.
    """
    seen = torch.cat([prompt_mask_NL, mask_NT], dim=1)
    said = model(
        input_ids=torch.cat([prompt_NL, tokens_NT], dim=1),
        attention_mask=seen.long(),
        position_ids=positions(seen),
        use_cache=False,
        logits_to_keep=tokens_NT.shape[1] + 1,
    )
    logits_NTV: Tensor = said.logits[:, :-1].float() / temperature
    chosen_NT = logits_NTV.gather(2, tokens_NT[..., None])[..., 0]
    return chosen_NT - logits_NTV.logsumexp(dim=-1)  # without a second array of the vocabulary's width


def join(parts: Sequence[Rollouts], pad_id: int) -> Rollouts:
    """Rollouts sampled apart as one batch, padded to the longest prompt and the longest answer."""
    if len(parts) == 1:
        return parts[0]
    joined = []
    for name, blocks in zip(Rollouts._fields, zip(*parts, strict=True), strict=True):
        if blocks[0].ndim == 2:
            widest, left = max(block.shape[1] for block in blocks), name.startswith("prompt")
            gaps = [widest - block.shape[1] for block in blocks]
            value = pad_id if name in ("prompt_NL", "tokens_NT") else 0
            blocks = tuple(
                pad(block, (gap, 0) if left else (0, gap), value=value) for block, gap in zip(blocks, gaps, strict=True)
            )
        joined.append(torch.cat(blocks))
    return Rollouts(*joined)


def answers(rollouts: Rollouts, tokenizer: Tokenizer) -> list[str | None]:
    """The text of each answer before its end token; None where the end token never came."""
    length_N = rollouts.mask_NT.sum(dim=1).tolist()
    return [
        tokenizer.decode(tokens[: length - 1]) if finished else None
        for tokens, length, finished in zip(
            rollouts.tokens_NT.tolist(), length_N, rollouts.finished_N.tolist(), strict=True
        )
    ]
