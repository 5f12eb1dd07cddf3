"""Where tokens stand: the positions of prompts, and those of the outputs that go on behind them.

Text is counted: 0, 1, 2. Some networks with eyes count an image along several axes (M-RoPE: time, height, width), so
that text behind an image goes on at a place that only the network knows. They are asked: transformers gives them a
method `get_rope_index`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

TOKEN_TYPES = "mm_token_type_ids"
"""What a processor calls the kind of each token (0 text, 1 image, 2 video), which M-RoPE asks for."""


@dataclass(frozen=True, slots=True)
class Positions:
    """Positions of left-padded prompts.

    `prompt`: [B, T], or [A, B, T] where the network counts along A axes. `after` [B]: where the first token behind each
    prompt stands, on every axis.
    """

    prompt: Tensor
    after: Tensor

    def behind(self, rows: Tensor, width: int) -> Tensor:
        """Positions of output tokens.

        Args:
            rows: the prompt of each output [R].
            width: tokens of an output, W.

        Returns:
            [R, W], or [A, R, W]: they go on where the row's prompt ended.
        """
        return self.of_outputs(self.after.index_select(0, rows).unsqueeze(1) + torch.arange(width, device=rows.device))

    def of_outputs(self, places: Tensor) -> Tensor:
        """Places of output tokens [R, W], counted on from `after`, as the network takes them: [R, W], or [A, R, W]."""
        return on_all_axes(places, None if self.prompt.ndim == 2 else len(self.prompt))


def on_all_axes(places: Tensor, axes: int | None) -> Tensor:
    """Places of text [R, W] on each of some axes, [A, R, W]; without axes as they are."""
    return places if axes is None else places.expand(axes, *places.shape)


class PositionRule(Protocol):
    """Gives prompts their positions."""

    @property
    def axes(self) -> int | None:
        """Along how many axes; None where there is one, which is left out."""
        ...

    def positions(self, ids: Tensor, mask: Tensor, extras: Mapping[str, Tensor]) -> Positions:
        """Of left-padded prompts: token ids and mask [B, T], and whatever else their processor made of them."""
        ...

    def model_inputs(self, extras: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What of a processor's output the network's forward pass is given besides ids, mask and positions."""
        ...


class TextPositions:
    """One axis; every token one further than the one before."""

    axes = None

    def positions(self, ids: Tensor, mask: Tensor, extras: Mapping[str, Tensor]) -> Positions:  # noqa: ARG002
        """See `PositionRule`."""
        return Positions((mask.cumsum(dim=1) - 1).clamp(min=0), mask.sum(dim=1))

    def model_inputs(self, extras: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All of it."""
        return dict(extras)


class NetworkPositions:
    """Asked of the network: three axes, [3, B, T].

    Args:
        trunk: the network's `base_model`, with transformers' method `get_rope_index`.
    """

    axes = 3

    def __init__(self, trunk: Any) -> None:
        self._trunk = trunk

    def positions(self, ids: Tensor, mask: Tensor, extras: Mapping[str, Tensor]) -> Positions:
        """See `PositionRule`; without images these are text positions on every axis."""
        asked = {TOKEN_TYPES: torch.zeros_like(ids), **extras}
        prompt, shift = self._trunk.get_rope_index(input_ids=ids, attention_mask=mask, **asked)
        return Positions(prompt, mask.sum(dim=1) + shift.reshape(-1))

    def model_inputs(self, extras: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Without the kinds of tokens: they are one per prompt token, and serve positions only."""
        return {name: tensor for name, tensor in extras.items() if name != TOKEN_TYPES}


def position_rule(network: Any) -> PositionRule:
    """How a network counts."""
    trunk = network.base_model
    return NetworkPositions(trunk) if hasattr(trunk, "get_rope_index") else TextPositions()
