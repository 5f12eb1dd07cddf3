"""Tiny random models of the Qwen-VL families: positions along three axes, images of 1 to 16 tokens.

They are made in memory: without torchvision transformers cannot make their processors, for want of the one for videos.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    ProcessorMixin,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from spark_kernel.models.encoder import PromptEncoder
from spark_kernel.models.grouped_attention import use_grouped_attention
from spark_kernel.models.load import LoadedModel
from tests.helpers.tiny_models import byte_tokenizer

QWEN_FAMILIES = ("qwen2-vl", "qwen2.5-vl", "qwen3-vl")
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PATCH = 4


class ImagesOnly(Qwen2VLProcessor):
    """transformers' own processor, but for videos."""

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None) -> None:
        self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
        self.image_token_id, self.video_token_id = tokenizer.convert_tokens_to_ids([self.image_token, self.video_token])
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)


def tiny_qwen_vl(family: str, *, seed: int = 0) -> LoadedModel:
    """A random model of a family (`QWEN_FAMILIES`), two layers; a token stands for 8 x 8 pixels of an image."""
    tokenizer = byte_tokenizer()
    marks = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", *marks]})
    start, end, image, video = tokenizer.convert_tokens_to_ids(marks)
    text: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 2048,
        "initializer_range": 0.3,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "rope_parameters": {"rope_type": "default", "rope_theta": 100.0, "mrope_section": [2, 3, 3]},
    }
    vision: dict[str, Any] = {"depth": 1, "num_heads": 2, "patch_size": PATCH, "initializer_range": 0.3}
    wide = {"hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 32}
    config_class, model_class, own_text, own_vision = {
        "qwen2-vl": (Qwen2VLConfig, Qwen2VLForConditionalGeneration, {}, {"embed_dim": 32, "hidden_size": 32}),
        "qwen2.5-vl": (
            Qwen2_5_VLConfig,
            Qwen2_5_VLForConditionalGeneration,
            {},
            {**wide, "fullatt_block_indexes": [0]},
        ),
        "qwen3-vl": (
            Qwen3VLConfig,
            Qwen3VLForConditionalGeneration,
            {"head_dim": 16},
            {**wide, "num_position_embeddings": 64, "deepstack_visual_indexes": [0]},
        ),
    }[family]
    config = config_class(
        text_config=text | own_text,
        vision_config=vision | own_vision,
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = model_class(config)
    side = 2 * PATCH
    pixels = Qwen2VLImageProcessorPil(patch_size=PATCH, size={"shortest_edge": side**2, "longest_edge": 16 * side**2})
    processor = ImagesOnly(pixels, tokenizer, chat_template=TEMPLATE)
    encoder = PromptEncoder(tokenizer, processor, (tokenizer.eos_token_id,), family)
    model.eval()
    use_grouped_attention(model)
    encoder.count_as(model)
    return LoadedModel(model, encoder, torch.device("cpu"), autocast=False, context_length=2048)
