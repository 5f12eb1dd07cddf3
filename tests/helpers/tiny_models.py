"""Tiny random models on disk: a byte tokenizer and a few thousand weights, made in milliseconds, nothing downloaded."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GenerationConfig,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)
from transformers.models.idefics3 import Idefics3ImageProcessorPil

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


IMAGE_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def save_tiny_idefics3(folder: Path, *, seed: int = 0, heads: int = 4) -> Path:
    """A random Idefics3 (SmolVLM's architecture) with 4 tokens an image; ends outputs early and boxes often.

    `heads`: of the language model, whose hidden size is 32; vLLM on a CPU takes a single one of 32.
    """
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens([rf"\boxed{{{content}}}" for content in (*range(60), "Yes", "No", "A", "B")])
    tokenizer.add_special_tokens(
        {"additional_special_tokens": ["<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>"]}
    )
    side, patch, factor = 32, 8, 2
    pixels = Idefics3ImageProcessorPil(
        size={"longest_edge": side}, max_image_size={"longest_edge": side}, do_image_splitting=False
    )
    tokens = (side // patch) ** 2 // factor**2
    processor = Idefics3Processor(pixels, tokenizer, image_seq_len=tokens, chat_template=IMAGE_CHAT_TEMPLATE)
    text = {
        "model_type": "llama",
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": heads,
        "num_key_value_heads": max(1, heads // 2),
        "max_position_embeddings": 2048,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "initializer_range": 0.3,
        "tie_word_embeddings": True,  # vLLM looks for it here, transformers above
    }
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": side,
        "patch_size": patch,
        "initializer_range": 0.3,
    }
    config = Idefics3Config(
        text_config=text,
        vision_config=vision,
        scale_factor=factor,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Idefics3ForConditionalGeneration(config)
    ends = [*range(205, 256), tokenizer.eos_token_id]
    model.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


ARCHITECTURES = ("llama", "qwen2", "qwen2-sliding", "qwen3", "gemma3", "mistral-sliding")


def save_tiny_architecture(folder: Path, name: str, *, seed: int = 0, window: int = 8) -> Path:
    """A random model of an architecture, three layers; "sliding" ones and Gemma 3 see `window` positions in some."""
    tokenizer = byte_tokenizer()
    shape = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 512,
        "initializer_range": 0.1 if name == "gemma3" else 0.3,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
    }
    mixed = ["sliding_attention", "full_attention", "sliding_attention"]
    config = {
        "llama": lambda: LlamaConfig(**shape),
        "qwen2": lambda: Qwen2Config(**shape),
        "qwen2-sliding": lambda: Qwen2Config(
            **shape, use_sliding_window=True, sliding_window=window, max_window_layers=1
        ),
        "qwen3": lambda: Qwen3Config(**shape),
        "gemma3": lambda: Gemma3TextConfig(
            **shape, sliding_window=window, layer_types=mixed, query_pre_attn_scalar=8, final_logit_softcapping=10.0
        ),
        "mistral-sliding": lambda: MistralConfig(**shape, sliding_window=window),
    }[name]()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
