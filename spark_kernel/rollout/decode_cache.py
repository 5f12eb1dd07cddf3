"""A key-value cache for decoding: room for all new tokens is allocated once, so that a step copies one token only."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer


class RoomyLayer(DynamicLayer):
    """A cache layer with room: `keys` and `values` [B, K, T, D] are views of larger buffers.

    Args:
        keys, values: what was computed so far.
        room: tokens that may still come.
    """

    def __init__(self, keys: Tensor, values: Tensor, room: int) -> None:
        super().__init__()
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self.keys: Tensor
        self.values: Tensor
        self._room = room
        self.keys, self._key_buffer = _with_room(keys, room)
        self.values, self._value_buffer = _with_room(values, room)

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        *args: Any,  # noqa: ARG002 - the signature is transformers'
        **kwargs: Any,  # noqa: ARG002
    ) -> tuple[Tensor, Tensor]:
        """Add new tokens behind the old; returns all of them."""
        length, new = self.keys.shape[2], key_states.shape[2]
        self._key_buffer[:, :, length : length + new] = key_states
        self._value_buffer[:, :, length : length + new] = value_states
        self._room -= new
        self.keys = self._key_buffer[:, :, : length + new]
        self.values = self._value_buffer[:, :, : length + new]
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows."""
        self.keys, self._key_buffer = _with_room(self.keys.index_select(0, indices), self._room)
        self.values, self._value_buffer = _with_room(self.values.index_select(0, indices), self._room)


def expand_for_decoding(cache: Cache, row_of: Tensor, room: int) -> None:
    """Repeat a prefilled cache's rows and give every plain layer room for `room` more tokens.

    Args:
        cache: of the prompts; changed in place. Layers of another sort (sliding windows) only get their rows.
        row_of: for each wanted row the prompt's row [rows].
        room: most tokens that will be decoded.
    """
    cache.batch_select_indices(row_of)
    for index, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer and layer.keys is not None and layer.values is not None:
            cache.layers[index] = RoomyLayer(layer.keys, layer.values, room)


def _with_room(states: Tensor, room: int) -> tuple[Tensor, Tensor]:
    """The states as a view of a buffer with `room` more tokens, and the buffer."""
    rows, heads, length, size = states.shape
    buffer = torch.empty(rows, heads, length + room, size, dtype=states.dtype, device=states.device)
    buffer[:, :, :length] = states
    return buffer[:, :, :length], buffer
