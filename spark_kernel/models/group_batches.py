"""Some groups as tensors, and the hidden states that predict their output tokens; each prompt computed once, or not.

A group is one prompt and n outputs. `CachedBatch` runs the prompts, repeats their key-value cache n times and runs the
outputs after it: one graph, so that one backward pass goes through both. `PaddedBatch` is the plain reference: every
row holds prompt and output. `block_mask.BlockBatch` is the third way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from spark_kernel.models.encoder import PromptBatch, PromptEncoder
from spark_kernel.prompts.prompt import Prompt


@dataclass(frozen=True, slots=True)
class PredictingStates:
    """`hidden` [N, H] predict `targets` [N]; tokens of all outputs one after the other, in the order given."""

    hidden: Tensor
    targets: Tensor


class GroupBatch(Protocol):
    """Groups ready to be run: tensors on the network's device. Only `GroupForward` runs them."""

    def hidden(self, network: Any) -> PredictingStates:
        """Run the network's trunk (`base_model`) on them."""
        ...


MakeBatch = Callable[[PromptEncoder, Sequence[Prompt], Sequence[Sequence[Sequence[int]]], torch.device], GroupBatch]
"""encoder, prompts (one per group), outputs [group][output][T] of at least one token each, device -> batch."""


@dataclass(frozen=True, slots=True)
class CachedBatch:
    """Prompts, and their outputs right-padded.

    `group_of_row` [R]: the prompt of each output. `rows`, `mask`: output tokens [R, W].
    """

    prompts: PromptBatch
    group_of_row: Tensor
    rows: Tensor
    mask: Tensor

    @classmethod
    def make(
        cls,
        encoder: PromptEncoder,
        prompts: Sequence[Prompt],
        outputs: Sequence[Sequence[Sequence[int]]],
        device: torch.device,
    ) -> CachedBatch:
        """See `MakeBatch`."""
        batch = encoder.collate(prompts, device)
        group_of_row = torch.tensor([g for g, group in enumerate(outputs) for _ in group], device=device)
        return cls(batch, group_of_row, *_right_padded(outputs, encoder.pad_id, device))

    def hidden(self, network: Any) -> PredictingStates:
        """Predicting states with each prompt computed once."""
        batch, group_of_row, rows, mask = self.prompts, self.group_of_row, self.rows, self.mask
        first = network.base_model(**batch.model_inputs(), use_cache=True)
        last = first.last_hidden_state[:, -1:, :].index_select(0, group_of_row)
        if rows.shape[1] > 1:
            cache = first.past_key_values
            for layer in cache.layers:  # index_select: its backward pass is a plain sum, unlike advanced indexing's
                layer.keys = layer.keys.index_select(0, group_of_row)
                layer.values = layer.values.index_select(0, group_of_row)
            second = network.base_model(
                input_ids=rows[:, :-1],
                attention_mask=torch.cat([batch.attention_mask.index_select(0, group_of_row), mask[:, :-1]], dim=1),
                position_ids=batch.positions.behind(group_of_row, rows.shape[1] - 1),
                past_key_values=cache,
                use_cache=True,
            )
            last = torch.cat([last, second.last_hidden_state], dim=1)
        valid = mask.bool()
        return PredictingStates(last[valid], rows[valid])


@dataclass(frozen=True, slots=True)
class PaddedBatch:
    """One row per output: its prompt, and the output right-padded (`rows`, `mask` [R, W]). Reference and fallback."""

    prompts: PromptBatch
    rows: Tensor
    mask: Tensor

    @classmethod
    def make(
        cls,
        encoder: PromptEncoder,
        prompts: Sequence[Prompt],
        outputs: Sequence[Sequence[Sequence[int]]],
        device: torch.device,
    ) -> PaddedBatch:
        """See `MakeBatch`."""
        repeated = [prompt for prompt, group in zip(prompts, outputs, strict=True) for _ in group]
        return cls(encoder.collate(repeated, device), *_right_padded(outputs, encoder.pad_id, device))

    def hidden(self, network: Any) -> PredictingStates:
        """Predicting states by the plain way."""
        batch, rows, mask = self.prompts, self.rows, self.mask
        all_rows = torch.arange(len(rows), device=rows.device)
        states = network.base_model(
            input_ids=torch.cat([batch.input_ids, rows], dim=1),
            attention_mask=torch.cat([batch.attention_mask, mask], dim=1),
            position_ids=torch.cat([batch.positions.prompt, batch.positions.behind(all_rows, rows.shape[1])], dim=-1),
            use_cache=False,
            **batch.images,
        ).last_hidden_state
        predicting = states[:, -rows.shape[1] - 1 : -1, :]
        valid = mask.bool()
        return PredictingStates(predicting[valid], rows[valid])


def _right_padded(
    outputs: Sequence[Sequence[Sequence[int]]], pad_id: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Token ids and mask of all outputs, both [R, longest]."""
    rows = [list(output) for group in outputs for output in group]
    width = max(len(row) for row in rows)
    ids = torch.tensor([row + [pad_id] * (width - len(row)) for row in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device)
    return ids, mask
