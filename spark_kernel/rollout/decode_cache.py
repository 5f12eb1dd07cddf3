"""A key-value cache for decoding, in which rows come and go while the others are decoded.

Every row's tokens stand flush right in a buffer that has room for all tokens still to come, so that a step copies one
token only. Rows leave and join by one copy, in which columns that no row needs any more fall away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import Cache, DynamicLayer

Part = tuple[Tensor, Tensor]
"""States [B, K, T, D] and which of their rows are wanted, in order [rows]."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """Prefilled prompts whose rows join. `cache`: the prompts'; `row_of` [rows]: for each new row its prompt's row."""

    cache: Any
    row_of: Tensor


class RoomyLayer(DynamicLayer):
    """A cache layer with room: `keys` and `values` [B, K, T, D] are views of larger buffers."""

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        self.dtype, self.device, self.is_initialized = dtype, device, True
        self.keys: Tensor
        self.values: Tensor
        self._key_buffer: Tensor
        self._value_buffer: Tensor

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
        self.keys = self._key_buffer[:, :, : length + new]
        self.values = self._value_buffer[:, :, : length + new]
        return self.keys, self.values

    def hold(self, keys: Sequence[Part], values: Sequence[Part], width: int, room: int) -> None:
        """Hold these rows flush right in `width` columns, with `room` more for what will come."""
        self.keys, self._key_buffer = _flush_right(keys, width, room)
        self.values, self._value_buffer = _flush_right(values, width, room)


def rows_can_join(network: Any) -> bool:
    """Whether rows may join a running batch: every layer keeps all keys and values of all tokens and nothing else.

    Sliding windows and recurrent states are kept otherwise; there a batch is decoded to its end.
    """
    if getattr(network, "_is_stateful", False) or getattr(network.config.get_text_config(), "num_kv_shared_layers", 0):
        return False
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=network.config).layers)


def joined(cache: Any | None, kept: Tensor, arrivals: Sequence[Arrival], width: int, room: int) -> Cache:
    """The kept rows of a cache and the new rows behind them, with room for the tokens to come.

    Args:
        cache: the running one; None where no row is running.
        kept: its rows that stay [rows].
        arrivals: prompts that join.
        width: columns that the longest row needs; shorter rows get zeros on the left, which the caller masks.
        room: most tokens that will be decoded.
    """
    result = Cache(layers=[])
    for index, model in enumerate(arrivals[0].cache.layers):
        sources = [(arrival.cache.layers[index], arrival.row_of) for arrival in arrivals]
        if cache is not None:
            sources.insert(0, (cache.layers[index], kept))
        layer = RoomyLayer(model.keys.dtype, model.keys.device)
        layer.hold([(s.keys, rows) for s, rows in sources], [(s.values, rows) for s, rows in sources], width, room)
        result.layers.append(layer)
        for source, _ in sources:  # given up layer by layer: at no time are there two whole caches
            source.keys = source.values = None
    return result


def keep_rows(cache: Any, kept: Tensor, room: int) -> None:
    """Only these rows of a running cache stay, in place."""
    for layer in cache.layers:
        if isinstance(layer, RoomyLayer):
            layer.hold([(layer.keys, kept)], [(layer.values, kept)], layer.keys.shape[2], room)
        else:
            layer.reorder_cache(kept)


def with_room(cache: Any, row_of: Tensor, room: int) -> Any:
    """A prefilled cache with its rows repeated; layers that keep everything get room, others stay what they are."""
    for index, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer and layer.keys is not None and layer.values is not None:
            roomy = RoomyLayer(layer.keys.dtype, layer.keys.device)
            roomy.hold([(layer.keys, row_of)], [(layer.values, row_of)], layer.keys.shape[2], room)
            cache.layers[index] = roomy
        else:
            layer.reorder_cache(row_of)
    return cache


def _flush_right(parts: Sequence[Part], width: int, room: int) -> tuple[Tensor, Tensor]:
    """The wanted rows below each other as a view of a buffer with `room` more columns, and the buffer."""
    first = parts[0][0]
    rows = sum(len(wanted) for _, wanted in parts)
    buffer = first.new_empty(rows, first.shape[1], width + room, first.shape[3])
    start = 0
    for states, wanted in parts:
        end, columns = start + len(wanted), min(width, states.shape[2])
        buffer[start:end, :, : width - columns] = 0  # masked, but a NaN left there would spread
        buffer[start:end, :, width - columns : width] = states[:, :, states.shape[2] - columns :].index_select(
            0, wanted
        )
        start = end
    return buffer[:, :, :width], buffer
