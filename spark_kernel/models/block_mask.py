"""The shared prefix without a cache: one row per group, the prompt once, its outputs side by side.

    row:        p p p p | a a a | b b b b b | . .
    an output sees the prompt and its own earlier tokens, never another output; positions restart after the prompt.

One forward pass, so that gradient checkpointing works, which excludes a cache. Windows of sliding attention are
measured in an output's own tokens: one that stands far to the right in the row is no further from its prompt than the
first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spark_kernel.models.encoder import PromptEncoder
from spark_kernel.models.group_batches import PredictingStates
from spark_kernel.prompts.prompt import Prompt

PADDING = -1
PROMPT = 0


@dataclass(frozen=True, slots=True)
class BlockBatch:
    """One row per group, P rows of T tokens.

    `ids`, `block` (0 prompt, k its k-th output, -1 padding), `steps` (tokens of the prompt and the own output before
    it): [P, T]. `positions`: [P, T] or [A, P, T]. `predicting` [N]: which of the P x T states predict `targets` [N].
    """

    ids: Tensor
    block: Tensor
    steps: Tensor
    positions: Tensor
    images: Mapping[str, Tensor]
    predicting: Tensor
    targets: Tensor

    @classmethod
    def make(
        cls,
        encoder: PromptEncoder,
        prompts: Sequence[Prompt],
        outputs: Sequence[Sequence[Sequence[int]]],
        device: torch.device,
    ) -> BlockBatch:
        """See `group_batches.MakeBatch`."""
        batch = encoder.collate(prompts, device)
        width = batch.input_ids.shape[1]
        longest = max(sum(len(output) for output in group) for group in outputs)
        shape = (len(prompts), width + longest)
        mask = batch.attention_mask.cpu()
        ids = torch.full(shape, encoder.pad_id, dtype=torch.long)
        block = torch.full(shape, PADDING, dtype=torch.long)
        steps, places = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
        ids[:, :width] = batch.input_ids.cpu()
        steps[:, :width] = (mask.cumsum(dim=1) - 1).clamp(min=0)
        block[:, :width].masked_fill_(mask.bool(), PROMPT)
        after = batch.positions.after.tolist()
        predicting: list[int] = []
        for row, group in enumerate(outputs):
            place = width
            for number, output in enumerate(group, start=1):
                end = place + len(output)
                ids[row, place:end] = torch.tensor(list(output))
                block[row, place:end] = number
                steps[row, place:end] = batch.lengths[row] + torch.arange(len(output))
                places[row, place:end] = after[row] + torch.arange(len(output))
                start = row * ids.shape[1]
                predicting += [start + width - 1, *range(start + place, start + end - 1)]
                place = end
        behind = batch.positions.of_outputs(places[:, width:].to(device))
        return cls(
            ids.to(device),
            block.to(device),
            steps.to(device),
            torch.cat([batch.positions.prompt, behind], dim=-1),
            batch.images,
            torch.tensor(predicting, device=device),
            torch.tensor([token for group in outputs for output in group for token in output], device=device),
        )

    def hidden(self, network: Any) -> PredictingStates:
        """Predicting states with each prompt computed once and no cache."""
        states = network.base_model(
            input_ids=self.ids,
            attention_mask=attention_masks(network, self.block, self.steps),
            position_ids=self.positions,
            use_cache=False,
            **self.images,
        ).last_hidden_state
        return PredictingStates(states.flatten(0, 1).index_select(0, self.predicting), self.targets)


def visible(block_B_T: Tensor, steps_B_T: Tensor, window: int | None) -> Tensor:
    """Which token (query) sees which (key): [B, 1, T, T], bool.

    The prompt and the token's own block, nothing later, and with a window only keys less than `window` steps away. A
    padding token sees itself, because attention over nothing is not a number.
    """
    query, key = block_B_T.unsqueeze(2), block_B_T.unsqueeze(1)
    index = torch.arange(block_B_T.shape[1], device=block_B_T.device)
    earlier = index.unsqueeze(1) >= index.unsqueeze(0)
    seen = ((key == query) | (key == PROMPT)) & (key != PADDING) & earlier
    if window is not None:
        seen &= steps_B_T.unsqueeze(2) - steps_B_T.unsqueeze(1) < window
    return (seen | (index.unsqueeze(1) == index.unsqueeze(0))).unsqueeze(1)


def attention_masks(network: Any, block_B_T: Tensor, steps_B_T: Tensor) -> Tensor | dict[str, Tensor]:
    """The mask in the form that the network takes: one, or one by the type of its layers."""
    config = network.config.get_text_config()
    window = sliding_window(config)
    types = set(getattr(config, "layer_types", None) or ())
    if not types:
        return in_form(network, visible(block_B_T, steps_B_T, window))
    if types == {"full_attention"}:
        return in_form(network, visible(block_B_T, steps_B_T, None))
    windows = {"full_attention": None, "sliding_attention": window}
    return {name: in_form(network, visible(block_B_T, steps_B_T, windows[name])) for name in types}


def sliding_window(config: Any) -> int | None:
    """The number of positions a sliding layer sees, itself included; None without one."""
    if getattr(config, "use_sliding_window", True) is False:
        return None
    window = getattr(config, "sliding_window", None)
    return int(window) if window else None


def in_form(network: Any, seen: Tensor) -> Tensor:
    """A mask as the network takes it: bool for PyTorch's scaled dot product attention, else what is added to scores."""
    if "sdpa" in str(network.config._attn_implementation):
        return seen
    dtype = network.dtype
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)
