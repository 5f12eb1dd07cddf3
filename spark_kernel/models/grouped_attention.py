"""Attention of one new token with grouped key-value heads, without copying keys and values once per query head.

transformers repeats the key-value heads in memory when a mask is given: for a decode step that copies the whole cache.
Here the query heads that share a key-value head become query positions of it: the same numbers, read once.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional
from torch.nn.attention.flex_attention import BlockMask
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from spark_kernel.models.flex_attention import attend

NAME = "spark_grouped_sdpa"


def use_grouped_attention(network: Any) -> None:
    """Switch a model that uses PyTorch's scaled dot product attention to this form of it; others stay as they are."""
    if network.config._attn_implementation != "sdpa":
        return
    AttentionInterface.register(NAME, grouped_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    network.set_attn_implementation(NAME)


def grouped_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | BlockMask | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it: query [B, H, Q, D], key and value [B, K, T, D]; returns [B, Q, H, D].

    Only a single query position (Q = 1) with fewer key-value than query heads takes the short way.
    """
    if isinstance(attention_mask, BlockMask):
        return attend(query, key, value, attention_mask, scaling), None
    rows, heads, queries, size = query.shape
    shared = key.shape[1]
    if queries != 1 or shared == heads or kwargs.get("position_bias") is not None:
        output, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, is_causal, **kwargs
        )
        return output, None
    grouped = query.reshape(rows, shared, heads // shared, size)
    output = functional.scaled_dot_product_attention(
        grouped, key, value, attn_mask=attention_mask, dropout_p=dropout, scale=scaling
    )
    return output.reshape(rows, 1, heads, size), None
