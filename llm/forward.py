"""The training forward: log-probabilities of answers, each prompt computed once for the answers that share it.

A packed row is a prompt and behind it its answers, each without its last token, whose output nobody reads. An answer
attends to its prompt and to itself, at the positions it would have alone, so the numbers are those of
`rollouts.log_probs` to rounding. Rows of like length are computed together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from llm import rollouts
from llm.rollouts import Rollouts

ROOM = 512  # columns of a packed row at most: attention is computed between all of its answers, and masked
BUCKET = 16  # rows that are worth a pass of their own
BUCKETS = 3
ALIKE = 1e-4  # nats between both forwards of a model that can pack


class Packed(NamedTuple):
    """R rows of W columns: ids_RW, position_RW, and segment_RW, 0 for the prompt and 1, 2, ... for its answers; width_R
    and prompt_R, the columns of a row and of its prompt. For the K answer tokens in the order of `mask_NT`: row_K and
    column_K, where the output that predicts each stands."""

    ids_RW: Tensor
    position_RW: Tensor
    segment_RW: Tensor
    width_R: Tensor
    prompt_R: Tensor
    row_K: Tensor
    column_K: Tensor


def pack(part: Rollouts, per_row: int) -> Packed:
    """Up to `per_row` answers to the same prompt a row; answers need not stand with their siblings."""
    mask_NT, device = part.mask_NT, part.mask_NT.device
    marked_NL = part.prompt_NL.masked_fill(~part.prompt_mask_NL, -1)
    prompt_N = torch.unique(marked_NL, dim=0, return_inverse=True)[1]
    order = torch.argsort(prompt_N, stable=True)
    place = torch.arange(len(order), device=device)

    def since(new: Tensor) -> Tensor:
        """How far each place is behind the last new one."""
        return place - torch.where(new, place, 0).cummax(dim=0).values

    changed = torch.ones_like(place, dtype=torch.bool)
    changed[1:] = prompt_N[order][1:] != prompt_N[order][:-1]
    new = since(changed) % per_row == 0
    rank_S, row_S = since(new), new.cumsum(dim=0) - 1  # of the answers in sorted order
    length_S = mask_NT.sum(dim=1)[order] - 1
    before_S = length_S.cumsum(dim=0) - length_S
    head = place[new]  # the first answer of each row
    prompt_R = part.prompt_mask_NL.sum(dim=1)[order][head]
    start_S = prompt_R[row_S] + before_S - before_S[head][row_S]
    width_R = torch.zeros_like(prompt_R).scatter_reduce(0, row_S, start_S + length_S, "amax")
    row_N, start_N, rank_N = (torch.empty_like(place).scatter(0, order, x) for x in (row_S, start_S, rank_S))

    ids_RW = torch.zeros((len(head), int(width_R.max())), dtype=part.tokens_NT.dtype, device=device)
    position_RW, segment_RW = torch.zeros_like(ids_RW), torch.full_like(ids_RW, -1)
    own = part.prompt_mask_NL[order][head]
    row, column = torch.nonzero(own, as_tuple=True)
    column = column - (own.shape[1] - prompt_R)[row]
    ids_RW[row, column] = part.prompt_NL[order][head][own]
    position_RW[row, column], segment_RW[row, column] = column, 0
    n_K, t_K = torch.nonzero(mask_NT, as_tuple=True)
    row_K, column_K = row_N[n_K], start_N[n_K] + t_K
    read = t_K < (mask_NT.sum(dim=1) - 1)[n_K]
    cell = row_K[read], column_K[read]
    ids_RW[cell] = part.tokens_NT[n_K[read], t_K[read]]
    position_RW[cell], segment_RW[cell] = (prompt_R[row_K] + t_K)[read], rank_N[n_K[read]] + 1
    return Packed(
        ids_RW, position_RW, segment_RW, width_R, prompt_R, row_K,
        torch.where(t_K == 0, prompt_R[row_K], column_K) - 1,
    )  # fmt: skip


def log_probs(model: Any, part: Rollouts, temperature: float = 1.0, packs: bool = True) -> Tensor:
    """Log-probability of every answer token, (N, T), nats, with gradients; 0 where the mask is False.

    packs: whether the model passed `can_pack`; else, and where packed rows would not be fewer tokens, rows stay apart.
    """
    found_NT, per_row = torch.zeros_like(part.log_prob_NT), answers_a_row(part) if packs else 1
    if not len(found_NT):
        return found_NT
    if per_row > 1:
        packed = pack(part, per_row)
        pieces = buckets(packed.width_R)
        columns = sum(len(rows) * int(packed.width_R[rows].max()) for rows in pieces)
        if columns <= part.tokens_NT.numel() + part.prompt_NL.numel():
            return _packed_log_probs(model, part, packed, pieces, temperature)
    for rows in buckets(part.prompt_mask_NL.sum(dim=1) + part.mask_NT.sum(dim=1)):
        some = part.rows(rows)
        log_prob_NT = rollouts.log_probs(model, *some[:4], temperature).masked_fill(~some.mask_NT, 0.0)
        columns_T = torch.arange(log_prob_NT.shape[1], device=rows.device)
        found_NT = found_NT.index_put((rows[:, None], columns_T), log_prob_NT)
    return found_NT


def answers_a_row(part: Rollouts) -> int:
    """How many of the longest answers fit behind the longest prompt."""
    return (ROOM - part.prompt_NL.shape[1]) // max(1, part.tokens_NT.shape[1])


def _packed_log_probs(
    model: Any, part: Rollouts, packed: Packed, pieces: Sequence[Tensor], temperature: float
) -> Tensor:
    target_K, parts, places = part.tokens_NT[part.mask_NT], [], []
    for rows in pieces:
        width = int(packed.width_R[rows].max())
        ids, position, segment = (x[rows, :width] for x in (packed.ids_RW, packed.position_RW, packed.segment_RW))
        seen = (segment[:, :, None] == segment[:, None]) | (segment[:, None] == 0)
        state_RWH = model.get_decoder()(
            input_ids=ids, position_ids=position, attention_mask=seen.tril()[:, None], use_cache=False
        ).last_hidden_state
        local_R = torch.full_like(packed.width_R, -1)
        local_R[rows] = torch.arange(len(rows), device=rows.device)
        place = torch.nonzero(local_R[packed.row_K] >= 0)[:, 0]
        state_KH = state_RWH[local_R[packed.row_K[place]], packed.column_K[place]]
        logits_KV = model.get_output_embeddings()(state_KH).float()
        if temperature != 1.0:
            logits_KV = logits_KV / temperature
        parts.append(logits_KV.gather(1, target_K[place][:, None])[:, 0] - logits_KV.logsumexp(dim=-1))
        places.append(place)
    n_K, t_K = (x[torch.cat(places)] for x in torch.nonzero(part.mask_NT, as_tuple=True))
    return torch.zeros_like(part.log_prob_NT).index_put((n_K, t_K), torch.cat(parts))


def buckets(length_N: Tensor) -> list[Tensor]:
    """Indices in at most BUCKETS parts of like length, of about BUCKET or more each."""
    parts = min(BUCKETS, len(length_N) // BUCKET)
    if parts < 2:
        return [torch.arange(len(length_N), device=length_N.device)]
    return list(torch.argsort(length_N, stable=True).chunk(parts))


@torch.no_grad()
def can_pack(model: Any) -> bool:
    """Whether packed rows give the model's own log-probabilities.

    No for windows, recurrent states and attention that takes no mask of ours, by the configuration; and by trial on
    one row of ROOM columns for whatever else differs, as heads that scale their logits do.
    """
    config = model.config.get_text_config()
    kinds = getattr(config, "layer_types", None)
    full = set(kinds) == {"full_attention"} if kinds else not getattr(config, "sliding_window", None)
    if not full or config._attn_implementation != "sdpa":
        return False
    device, length = next(model.parameters()).device, 13
    answers = (ROOM - length) // length
    tokens_NT = torch.arange(answers * length, device=device).view(answers, length) % min(97, config.vocab_size)
    mask_NT = torch.ones_like(tokens_NT, dtype=torch.bool)
    zero_NT, zero_N = mask_NT * 0.0, mask_NT[:, 0] * 0.0
    part = Rollouts(tokens_NT[:1].repeat(answers, 1), mask_NT, tokens_NT, mask_NT, zero_NT, zero_NT, zero_N > 0, zero_N)
    try:
        packed = pack(part, answers)
        found_NT = _packed_log_probs(model, part, packed, buckets(packed.width_R), 1.0)
        return float((found_NT - rollouts.log_probs(model, *part[:4])).abs().max()) < ALIKE
    except (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError):
        return False
