"""The shared prefix without a cache: one row per group, the prompt once, its outputs side by side.

    row:        p p p p | a a a | b b b b b | . .
    an output sees the prompt and its own earlier tokens, never another output; positions restart after the prompt.

One forward pass, so that gradient checkpointing works, which excludes a cache. Windows of sliding attention are
measured in positions: an output that stands far to the right in the row is no further from its prompt than the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from spark_kernel.models.encoder import PromptEncoder
from spark_kernel.models.predicting_states import PredictingStates
from spark_kernel.prompts.prompt import Prompt

PADDING = -1
PROMPT = 0


def block_mask_hidden(
    network: Any,
    encoder: PromptEncoder,
    prompts: Sequence[Prompt],
    outputs: Sequence[Sequence[Sequence[int]]],
    device: torch.device,
) -> PredictingStates:
    """Predicting states with each prompt computed once and no cache; as `shared_prefix_hidden`."""
    batch = encoder.collate(prompts, device)
    width = batch.input_ids.shape[1]
    longest = max(sum(len(output) for output in group) for group in outputs)
    rows = len(prompts)
    ids = torch.full((rows, width + longest), encoder.pad_id, dtype=torch.long)
    block = torch.full((rows, width + longest), PADDING, dtype=torch.long)
    positions = torch.zeros((rows, width + longest), dtype=torch.long)
    ids[:, :width], positions[:, :width] = batch.input_ids.cpu(), batch.position_ids.cpu()
    block[:, :width].masked_fill_(batch.attention_mask.cpu().bool(), PROMPT)
    predicting: list[int] = []
    for row, group in enumerate(outputs):
        place = width
        for number, output in enumerate(group, start=1):
            end = place + len(output)
            ids[row, place:end] = torch.tensor(list(output))
            block[row, place:end] = number
            positions[row, place:end] = batch.lengths[row] + torch.arange(len(output))
            start = row * ids.shape[1]
            predicting += [start + width - 1, *range(start + place, start + end - 1)]
            place = end
    ids, block, positions = ids.to(device), block.to(device), positions.to(device)
    states = network.base_model(
        input_ids=ids,
        attention_mask=attention_masks(network, block, positions),
        position_ids=positions,
        use_cache=False,
        **batch.images,
    ).last_hidden_state
    targets = torch.tensor([token for group in outputs for output in group for token in output], device=device)
    lengths = tuple(len(output) for group in outputs for output in group)
    chosen = states.flatten(0, 1).index_select(0, torch.tensor(predicting, device=device))
    return PredictingStates(chosen, targets, lengths)


def visible(block_B_T: Tensor, positions_B_T: Tensor, window: int | None) -> Tensor:
    """Which token (query) sees which (key): [B, 1, T, T], bool.

    The prompt and the token's own block, nothing later, and with a window only keys less than `window` positions
    away. A padding token sees itself, because attention over nothing is not a number.
    """
    query, key = block_B_T.unsqueeze(2), block_B_T.unsqueeze(1)
    index = torch.arange(block_B_T.shape[1], device=block_B_T.device)
    earlier = index.unsqueeze(1) >= index.unsqueeze(0)
    seen = ((key == query) | (key == PROMPT)) & (key != PADDING) & earlier
    if window is not None:
        seen &= positions_B_T.unsqueeze(2) - positions_B_T.unsqueeze(1) < window
    return (seen | (index.unsqueeze(1) == index.unsqueeze(0))).unsqueeze(1)


def attention_masks(network: Any, block_B_T: Tensor, positions_B_T: Tensor) -> Tensor | dict[str, Tensor]:
    """The mask in the form that the network takes: one, or one by the type of its layers."""
    config = network.config.get_text_config()
    window = sliding_window(config)
    types = set(getattr(config, "layer_types", None) or ())
    if not types:
        return _in_form(network, visible(block_B_T, positions_B_T, window))
    if types == {"full_attention"}:
        return _in_form(network, visible(block_B_T, positions_B_T, None))
    windows = {"full_attention": None, "sliding_attention": window}
    return {name: _in_form(network, visible(block_B_T, positions_B_T, windows[name])) for name in types}


def sliding_window(config: Any) -> int | None:
    """The number of positions a sliding layer sees, itself included; None without one."""
    if getattr(config, "use_sliding_window", True) is False:
        return None
    window = getattr(config, "sliding_window", None)
    return int(window) if window else None


def _in_form(network: Any, seen: Tensor) -> Tensor:
    """bool for PyTorch's scaled dot product attention; for plain attention what is added to the scores."""
    if "sdpa" in str(network.config._attn_implementation):
        return seen
    dtype = network.dtype
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)
