"""Bytes that a forward pass keeps for its backward pass, counted under FakeTensor: real shapes, no memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


class _Flash(torch.autograd.Function):
    """What a fused attention kernel keeps: queries, keys, values, its output, and one float32 a query and head."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        output = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, output, torch.empty(query.shape[:3], dtype=torch.float32))
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        raise NotImplementedError


def fused(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention [B, H, Q, D] by a kernel that saves no scores."""
    found: Tensor = _Flash.apply(query, key, value)
    return found


def fake_weights(network: Any) -> None:
    """Put FakeTensors in place of a meta network's parameters and buffers, ties kept."""
    known: dict[int, torch.nn.Parameter] = {}
    for module in network.modules():
        for name, weight in list(module._parameters.items()):
            if weight is None:
                continue
            if id(weight) not in known:
                empty = torch.empty(weight.shape, dtype=weight.dtype)
                known[id(weight)] = torch.nn.Parameter(empty, requires_grad=weight.requires_grad)
            module._parameters[name] = known[id(weight)]
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


@contextmanager
def counting(network: Any) -> Iterator[Counter[str]]:
    """Count storages saved for the backward pass, weights left out, by dtype and shape."""
    own = {weight.untyped_storage()._cdata for weight in network.parameters()}
    own |= {buffer.untyped_storage()._cdata for buffer in network.buffers()}
    found: Counter[str] = Counter()
    kept: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            own.add(storage._cdata)
            kept.append(tensor)  # a freed storage's address would be used again
            found[f"{tensor.dtype} {tuple(tensor.shape)}"] += storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield found
