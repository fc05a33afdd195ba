"""One token a character, built in code: nothing to download."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ebpo_sim.errors import InputError

CHARACTERS = "0123456789+-*%=<>#:abcdefghij"


class CharTokenizer:
    """Token 0 is padding, token 1 ends an answer, then one token a character of `CHARACTERS`.

    Attributes: pad_id, eos_id, vocab_size.
    """

    pad_id = 0
    eos_id = 1

    def __init__(self) -> None:
        self._id_of = {character: i + 2 for i, character in enumerate(CHARACTERS)}
        self.vocab_size = len(CHARACTERS) + 2

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`. Raises InputError for an empty text or a character outside the vocabulary."""
        if not text:
            raise InputError("text to encode is empty: give at least one character")
        for character in text:
            if character not in self._id_of:
                raise InputError(f"text {text!r} has {character!r}, outside the vocabulary {CHARACTERS!r}: replace it")
        return [self._id_of[character] for character in text]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`; padding and end tokens show as characters that no answer contains."""
        return "".join(CHARACTERS[i - 2] if i >= 2 else "\N{WHITE SQUARE}$"[i] for i in ids)

    def pad_left(self, texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Prompts as (P, L) token ids and a boolean mask, padded on the left so that all end together."""
        rows = [self.encode(text) for text in texts]
        width = max(map(len, rows))
        ids_PL = torch.tensor([[self.pad_id] * (width - len(row)) + row for row in rows])
        mask_PL = torch.tensor([[False] * (width - len(row)) + [True] * len(row) for row in rows])
        return ids_PL, mask_PL

    def answers(self, texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Answers with their end token as (P, T) token ids and a boolean mask, padded on the right."""
        rows = [[*self.encode(text), self.eos_id] for text in texts]
        width = max(map(len, rows))
        ids_PT = torch.tensor([row + [self.pad_id] * (width - len(row)) for row in rows])
        mask_PT = torch.tensor([[True] * len(row) + [False] * (width - len(row)) for row in rows])
        return ids_PT, mask_PT
