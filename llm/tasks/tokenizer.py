"""Texts as tokens: one token a character, built in code, or a Hugging Face tokenizer; padding for both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ebpo_sim.errors import InputError

CHARACTERS = "0123456789+-*%=<>#:abcdefghij"


def pad_left(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts as (P, L) token ids and a boolean mask, padded on the left so that all end together."""
    ids_PL, mask_PL = pad_right([row[::-1] for row in rows], pad_id)
    return ids_PL.flip(1), mask_PL.flip(1)


def pad_right(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Answers as (P, T) token ids and a boolean mask, padded on the right."""
    width = max(map(len, rows))
    ids_PT = torch.tensor([list(row) + [pad_id] * (width - len(row)) for row in rows])
    mask_PT = torch.tensor([[True] * len(row) + [False] * (width - len(row)) for row in rows])
    return ids_PT, mask_PT


class CharTokenizer:
    """Token 0 is padding, token 1 ends an answer, then one token a character of `CHARACTERS`.

    Attributes: pad_id, eos_ids, vocab_size, chat, wrapped.
    """

    pad_id = 0
    eos_ids = (1,)
    chat = False

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

    def prompt(self, problem: Any) -> list[int]:
        """Token ids of a problem's prompt."""
        return self.encode(problem.prompt)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`; padding and end tokens show as characters that no answer contains."""
        return "".join(CHARACTERS[i - 2] if i >= 2 else "\N{WHITE SQUARE}$"[i] for i in ids)

    @property
    def wrapped(self) -> Any:
        """The same vocabulary as a transformers tokenizer, for models and trainers that want one."""
        from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast

        vocabulary = {"<pad>": 0, "<eos>": 1, **self._id_of}
        # The unknown token is not in the vocabulary: an unknown character is an error instead of padding.
        built = Tokenizer(models.WordLevel(vocabulary, unk_token="<none>"))
        built.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
        built.decoder = decoders.Fuse()
        return PreTrainedTokenizerFast(
            tokenizer_object=built,
            pad_token="<pad>",
            eos_token="<eos>",
            padding_side="left",
            model_input_names=["input_ids", "attention_mask"],
        )


class TextTokenizer:
    """A Hugging Face tokenizer, with its chat template where it has one.

    wrapped: the transformers tokenizer. eos_ids: every token that ends an answer. vocab_size: rows of the model's
    embedding, which a token id must stay below. chat: wrap prompts in the chat template. max_prompt: longest prompt in
    tokens, 0 for no limit; a longer one is refused, never cut.
    """

    def __init__(self, wrapped: Any, eos_ids: Sequence[int], vocab_size: int, chat: bool, max_prompt: int = 0) -> None:
        if not eos_ids:
            raise InputError("the tokenizer and the model name no end token: set eos_token in the tokenizer's folder")
        if chat and not wrapped.chat_template:
            raise InputError("--chat yes needs a tokenizer with a chat template, this one has none: use --chat no")
        self.wrapped, self.eos_ids, self.vocab_size = wrapped, tuple(eos_ids), vocab_size
        self.pad_id = eos_ids[0] if wrapped.pad_token_id is None else wrapped.pad_token_id  # masked wherever it pads
        self.chat, self.max_prompt = chat, max_prompt

    def prompt(self, problem: Any) -> list[int]:
        """Token ids of a problem's prompt. Raises InputError for an empty, over-long or unknown one."""
        ids = self._ids(problem)
        if not ids:
            raise _refused(problem, "gives no token: leave it out")
        if max(ids) >= self.vocab_size:
            raise _refused(
                problem,
                f"gives token {max(ids)}, the model knows {self.vocab_size}: this tokenizer does not belong to it",
            )
        if not self.chat and self.wrapped.unk_token_id is not None and self.wrapped.unk_token_id in ids:
            raise _refused(problem, "has characters outside the vocabulary: leave it out")
        if self.max_prompt and len(ids) > self.max_prompt:
            raise _refused(
                problem, f"has {len(ids)} tokens, --max-prompt is {self.max_prompt}: raise it or leave the prompt out"
            )
        return ids

    def _ids(self, problem: Any) -> list[int]:
        if not self.chat:
            try:
                return list(self.wrapped(problem.prompt)["input_ids"])
            except Exception as error:  # tokenizers raises a bare Exception where a vocabulary has no unknown token
                raise _refused(problem, f"has characters outside the vocabulary ({error}): leave it out") from error
        messages = [{"role": role, "content": content} for role, content in problem.messages] or [
            {"role": "user", "content": problem.prompt}
        ]
        text = self.wrapped.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return list(self.wrapped(text, add_special_tokens=False)["input_ids"])

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids` without special tokens."""
        text: str = self.wrapped.decode(list(ids), skip_special_tokens=True)
        return text


def _refused(problem: Any, what: str) -> InputError:
    return InputError(f"prompt {problem.id or problem.prompt[:40]!r} {what}")


Tokenizer = CharTokenizer | TextTokenizer
