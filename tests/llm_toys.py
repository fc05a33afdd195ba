"""Tiny Hugging Face models on disk, with a tokenizer built in code, for the tests of llm/."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ("<|pad|>", "<|eos|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>")


def byte_tokenizer(chat: bool = False) -> PreTrainedTokenizerFast:
    """One token a byte and the special ones of a chat template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *alphabet])}
    built = Tokenizer(models.BPE(vocabulary, merges=[]))
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = decoders.ByteLevel()
    built.add_special_tokens(list(SPECIAL))
    wrapped = PreTrainedTokenizerFast(tokenizer_object=built, pad_token=SPECIAL[0], eos_token=SPECIAL[1])
    if chat:
        wrapped.chat_template = TEMPLATE
    return wrapped


def save_model(folder: Path, arch: str = "llama", chat: bool = False, dropout: float = 0.0) -> Path:
    """A tiny random model with grouped-query attention whose generation settings name two end tokens."""
    tokenizer = byte_tokenizer(chat)
    config_type, model_type = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen3": (Qwen3Config, Qwen3ForCausalLM)}[arch]
    config = config_type(
        vocab_size=len(tokenizer) + 3,  # real models pad their embedding too
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=1024,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
        attention_dropout=dropout,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = model_type(config)
    model.generation_config.eos_token_id = [1, 2]
    with torch.no_grad():  # a direction that every state has and only the end tokens read: some answers end
        model.get_input_embeddings().weight[:, 0] += 1.0
        model.lm_head.weight[1:3, 0] += 0.5
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
