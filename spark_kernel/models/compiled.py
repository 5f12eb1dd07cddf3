"""Kernels compiled by PyTorch for the GPU, once a process, for all lengths."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch.utils._triton import has_triton


def can_compile(device: torch.device) -> bool:
    """Whether kernels can be compiled for a device: a CUDA device, and Triton installed."""
    return device.type == "cuda" and bool(has_triton())


@cache
def compiled(function: Any) -> Any:
    """A function compiled at its first call; the same one for the same function."""
    return torch.compile(function, dynamic=True)
