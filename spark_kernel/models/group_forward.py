"""Hidden states that predict the output tokens of some groups, each group's prompt computed once.

A group is one prompt and n outputs. `shared_prefix_hidden` runs the prompts, repeats their key-value cache n times
and runs the outputs after it: one graph, so that one backward pass goes through both. `padded_hidden` is the plain
reference: every row holds prompt and output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from spark_kernel.models.encoder import PromptBatch, PromptEncoder
from spark_kernel.models.predicting_states import PredictingStates
from spark_kernel.prompts.prompt import Prompt

GroupForward = Callable[
    [Any, PromptEncoder, Sequence[Prompt], Sequence[Sequence[Sequence[int]]], torch.device], PredictingStates
]
"""network, encoder, prompts (one per group), outputs [group][output][T], device -> predicting states."""


def shared_prefix_hidden(
    network: Any,
    encoder: PromptEncoder,
    prompts: Sequence[Prompt],
    outputs: Sequence[Sequence[Sequence[int]]],
    device: torch.device,
) -> PredictingStates:
    """Predicting states with each prompt computed once.

    Args:
        network: a causal language model or vision-language model; its `base_model` is run.
        encoder: writes the prompts.
        prompts: one per group.
        outputs: token ids, [group][output][T]; every output has at least one token.
        device: where the network is.
    """
    batch = encoder.collate(prompts, device)
    first = network.base_model(**batch.model_inputs(), use_cache=True)
    group_of_row = torch.tensor([g for g, group in enumerate(outputs) for _ in group], device=device)
    rows, mask = _right_padded([list(output) for group in outputs for output in group], encoder.pad_id, device)
    last = first.last_hidden_state[:, -1:, :].index_select(0, group_of_row)
    if rows.shape[1] > 1:
        cache = first.past_key_values
        for layer in cache.layers:  # index_select: its backward pass is a plain sum, unlike that of advanced indexing
            layer.keys = layer.keys.index_select(0, group_of_row)
            layer.values = layer.values.index_select(0, group_of_row)
        second = network.base_model(
            input_ids=rows[:, :-1],
            attention_mask=torch.cat([batch.attention_mask.index_select(0, group_of_row), mask[:, :-1]], dim=1),
            position_ids=_output_positions(batch, group_of_row, rows.shape[1] - 1),
            past_key_values=cache,
            use_cache=True,
        )
        last = torch.cat([last, second.last_hidden_state], dim=1)
    valid = mask.bool()
    return PredictingStates(last[valid], rows[valid], tuple(int(n) for n in mask.sum(dim=1)))


def padded_hidden(
    network: Any,
    encoder: PromptEncoder,
    prompts: Sequence[Prompt],
    outputs: Sequence[Sequence[Sequence[int]]],
    device: torch.device,
) -> PredictingStates:
    """The same by the plain way: one full row, prompt and output, per output. Reference and fallback."""
    repeated = [prompt for prompt, group in zip(prompts, outputs, strict=True) for _ in group]
    batch = encoder.collate(repeated, device)
    rows, mask = _right_padded([list(output) for group in outputs for output in group], encoder.pad_id, device)
    all_rows = torch.arange(len(repeated), device=device)
    positions = torch.cat([batch.position_ids, _output_positions(batch, all_rows, rows.shape[1])], dim=1)
    states = network.base_model(
        input_ids=torch.cat([batch.input_ids, rows], dim=1),
        attention_mask=torch.cat([batch.attention_mask, mask], dim=1),
        position_ids=positions,
        use_cache=False,
        **batch.images,
    ).last_hidden_state
    predicting = states[:, -rows.shape[1] - 1 : -1, :]
    valid = mask.bool()
    return PredictingStates(predicting[valid], rows[valid], tuple(int(n) for n in mask.sum(dim=1)))


def _right_padded(rows: Sequence[list[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids and mask, both [rows, longest]."""
    width = max(len(row) for row in rows)
    ids = torch.tensor([row + [pad_id] * (width - len(row)) for row in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device)
    return ids, mask


def _output_positions(batch: PromptBatch, group_of_row: Tensor, width: int) -> Tensor:
    """Positions of output tokens: they go on where the row's prompt ended."""
    lengths = torch.tensor(batch.lengths, device=group_of_row.device).index_select(0, group_of_row)
    return lengths.unsqueeze(1) + torch.arange(width, device=group_of_row.device)
