"""The shared prefix on a GPU: all groups in one row, each prompt once, its outputs behind it.

    row:        p p p p a a a b b b b b | q q q c c c d d . . . .
    an output sees its own prompt and its own earlier tokens, nothing of another output or another group.

No token is padded but at the end, up to a multiple of the mask's blocks. One forward pass without a cache, so that
gradient checkpointing works. Windows of sliding attention are measured in an output's own tokens, as in `block_mask`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spark_kernel.models.block_mask import in_form, sliding_window
from spark_kernel.models.compiled import can_compile
from spark_kernel.models.encoder import PromptEncoder
from spark_kernel.models.flex_attention import BLOCK, MaskRule, block_mask, dense_mask
from spark_kernel.models.group_batches import PredictingStates
from spark_kernel.models.grouped_attention import NAME as GROUPED
from spark_kernel.prompts.prompt import Prompt

PADDING = -1
PROMPT = 0


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """One row of T tokens, T a multiple of `BLOCK`.

    `ids` [1, T]. `group` (its number, -1 padding), `block` (0 prompt, k its k-th output), `steps` (tokens of the prompt
    and the own output before it): [T]. `positions`: [1, T] or [A, 1, T]. `predicting` [N]: which of the T states
    predict `targets` [N]. `images`: the processor's tensors of all prompts, one after the other, which is how the Qwen
    families take them; others want a row a prompt, so that with images this form is chosen for none (`prefix_form`).
    """

    ids: Tensor
    group: Tensor
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
    ) -> PackedBatch:
        """See `group_batches.MakeBatch`."""
        batch = encoder.collate(prompts, torch.device("cpu"))
        width = batch.input_ids.shape[1]
        ids: list[int] = []
        group: list[int] = []
        block: list[int] = []
        steps: list[int] = []
        predicting: list[int] = []
        places: list[Tensor] = []
        for number, (length, members) in enumerate(zip(batch.lengths, outputs, strict=True)):
            ids += batch.input_ids[number, width - length :].tolist()
            group += [number] * (length + sum(len(output) for output in members))
            block += [PROMPT] * length
            steps += range(length)
            places.append(batch.positions.prompt[..., number, width - length :])
            last = len(ids) - 1
            for k, output in enumerate(members, start=1):
                predicting += [last, *range(len(ids), len(ids) + len(output) - 1)]
                ids += output
                block += [k] * len(output)
                steps += range(length, length + len(output))
                row = torch.tensor([number])
                places.append(batch.positions.behind(row, len(output))[..., 0, :])
        padding = -len(ids) % BLOCK
        ids += [encoder.pad_id] * padding
        group += [PADDING] * padding
        block += [PROMPT] * padding
        steps += [0] * padding
        positions = torch.nn.functional.pad(torch.cat(places, dim=-1), (0, padding))
        targets = [token for members in outputs for output in members for token in output]
        tokens = torch.tensor([ids, group, block, steps]).to(device, non_blocking=True)
        wanted = torch.tensor([predicting, targets]).to(device, non_blocking=True)
        return cls(
            ids=tokens[0].unsqueeze(0),
            group=tokens[1],
            block=tokens[2],
            steps=tokens[3],
            positions=positions.unsqueeze(-2).to(device, non_blocking=True),
            images={name: tensor.to(device) for name, tensor in batch.images.items()},
            predicting=wanted[0],
            targets=wanted[1],
        )

    def hidden(self, network: Any) -> PredictingStates:
        """Predicting states with each prompt computed once and no cache."""
        states = network.base_model(
            input_ids=self.ids,
            attention_mask=self._masks(network),
            position_ids=self.positions,
            use_cache=False,
            **self.images,
        ).last_hidden_state
        return PredictingStates(states[0].index_select(0, self.predicting), self.targets)

    def rule(self, window: int | None) -> MaskRule:
        """Which token sees which: its own group's prompt and its own output, nothing later, within a window."""
        group, block, steps = self.group, self.block, self.steps

        def sees(_batch: Any, _head: Any, query: Tensor, key: Tensor) -> Tensor:
            own = (block[query] == block[key]) | (block[key] == PROMPT)
            seen = (group[query] == group[key]) & own & (query >= key)
            return seen if window is None else seen & (steps[query] - steps[key] < window)

        return sees

    def _masks(self, network: Any) -> Any:
        """The mask in the form that the network takes: one, or one by the type of its layers."""
        config = network.config.get_text_config()
        window = sliding_window(config)
        types = set(getattr(config, "layer_types", None) or ())
        if not types:
            return self._mask(network, window)
        if types == {"full_attention"}:
            return self._mask(network, None)
        windows = {"full_attention": None, "sliding_attention": window}
        return {name: self._mask(network, windows[name]) for name in types}

    def _mask(self, network: Any, window: int | None) -> Any:
        tokens, device = self.ids.shape[1], self.ids.device
        if can_compile(device) and network.config._attn_implementation == GROUPED:
            return block_mask(self.rule(window), tokens, device)
        return in_form(network, dense_mask(self.rule(window), tokens, device))
