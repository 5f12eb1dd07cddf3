"""How the prompt of a group is computed once with a given network, or why it cannot be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from spark_kernel.models.block_mask import BlockBatch
from spark_kernel.models.compiled import can_compile
from spark_kernel.models.group_batches import CachedBatch, MakeBatch, PaddedBatch
from spark_kernel.models.grouped_attention import NAME as GROUPED
from spark_kernel.models.packed import PackedBatch

KNOWN_LAYERS = {"full_attention", "sliding_attention"}
MASKED = {"sdpa", "eager", GROUPED}


class PrefixForm(StrEnum):
    """The ways to run groups through a network; equal in value and gradient up to rounding."""

    CACHED = "cached"
    """Prompts, then outputs behind a repeated key-value cache: the fastest."""
    BLOCK = "block"
    """One row per group under a block mask: works with gradient checkpointing."""
    PACKED = "packed"
    """All groups in one row under a block mask, by FlexAttention: for a GPU; works with gradient checkpointing."""
    PADDED = "padded"
    """Prompt and output in every row: works with everything."""


BATCHES: Mapping[PrefixForm, MakeBatch] = {
    PrefixForm.CACHED: CachedBatch.make,
    PrefixForm.BLOCK: BlockBatch.make,
    PrefixForm.PACKED: PackedBatch.make,
    PrefixForm.PADDED: PaddedBatch.make,
}


@dataclass(frozen=True, slots=True)
class ChosenForm:
    """A form, and a sentence where it is not the fastest one."""

    form: PrefixForm
    note: str = ""

    @property
    def batch(self) -> MakeBatch:
        """What makes groups ready for it."""
        return BATCHES[self.form]


def choose_form(network: Any, *, shared: bool = True, checkpointing: bool = False) -> ChosenForm:
    """The fastest form that is right for a network.

    Args:
        network: a causal language model, or a vision-language model.
        shared: whether sharing the prompt is wanted at all.
        checkpointing: whether activations are recomputed in the backward pass, which excludes a cache.
    """
    if not shared:
        return ChosenForm(PrefixForm.PADDED)
    config = network.config.get_text_config()
    odd = sorted(set(getattr(config, "layer_types", None) or ()) - KNOWN_LAYERS)
    if odd or getattr(network, "_is_stateful", False):
        what = f"its layers are {', '.join(odd)}" if odd else "it carries a state from token to token"
        return ChosenForm(PrefixForm.PADDED, f"The prompt is computed for every output: {what}.")
    if getattr(config, "num_kv_shared_layers", 0):
        return ChosenForm(
            PrefixForm.PADDED, "The prompt is computed for every output: its layers share keys and values."
        )
    attention = str(network.config._attn_implementation)
    with_eyes = getattr(network.config, "vision_config", None) is not None
    if attention == GROUPED and can_compile(network.device) and not with_eyes:
        return ChosenForm(PrefixForm.PACKED)
    if not checkpointing:
        return ChosenForm(PrefixForm.CACHED)
    if attention not in MASKED or with_eyes:
        return ChosenForm(
            PrefixForm.PADDED,
            "The prompt is computed for every output: gradient checkpointing excludes a cached prompt, and "
            + ("images exclude a block mask." if attention in MASKED else f"{attention} attention a block mask."),
        )
    return ChosenForm(
        PrefixForm.BLOCK,
        "Gradient checkpointing excludes a cached prompt: groups run as one row each, under a block mask.",
    )
