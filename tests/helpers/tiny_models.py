"""Tiny random models on disk: a byte tokenizer and a few thousand weights, made in milliseconds, nothing downloaded."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte, and ChatML's special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|pad|>",
        additional_special_tokens=["<|im_start|>"],
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def save_tiny_llama(
    folder: Path,
    *,
    seed: int = 0,
    context: int = 2048,
    layers: int = 2,
    tokenizer: PreTrainedTokenizerFast | None = None,
) -> Path:
    """A random Llama with hidden size 32 in an ordinary Hugging Face folder."""
    tokenizer = tokenizer or byte_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        initializer_range=0.3,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_talkative_llama(folder: Path, *, seed: int = 0) -> Path:
    """A tiny random Llama that ends its outputs after a few tokens and often boxes an answer or a verdict.

    A fifth of its vocabulary ends an output, and many tokens are whole boxes.
    """
    verdicts = ("Yes", "No", "A", "B", "yes", "no", "a", "b", "YES", "NO", " Yes", " No", " A", " B", "Yes.", "No.")
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens([rf"\boxed{{{content}}}" for content in (*range(60), *verdicts)])
    save_tiny_llama(folder, seed=seed, tokenizer=tokenizer)
    ends = [*range(205, 256), tokenizer.eos_token_id]
    GenerationConfig(eos_token_id=ends, pad_token_id=tokenizer.pad_token_id).save_pretrained(folder)
    return folder
