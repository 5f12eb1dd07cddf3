"""The optimizers by name, and their state as plain tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from spark_kernel.config.sections import LearnerSection
from spark_kernel.errors import InputError

STATE_BYTES = {"adamw": 8, "adamw_8bit": 2}
"""Bytes of state per trained parameter."""


def make_optimizer(
    parameters: list[torch.nn.Parameter], settings: LearnerSection, device: torch.device
) -> torch.optim.Optimizer:
    """AdamW: PyTorch's, fused where it can be, or bitsandbytes' with its moments in 8 bits.

    Raises:
        InputError: an unknown name, or bitsandbytes is not installed.
    """
    keywords: dict[str, Any] = {
        "lr": settings.learning_rate,
        "betas": settings.betas,
        "weight_decay": settings.weight_decay,
    }
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(parameters, fused=device.type in ("cpu", "cuda"), **keywords)
    if settings.optimizer == "adamw_8bit":
        return _bitsandbytes().optim.AdamW8bit(parameters, **keywords)
    raise InputError(f"learner.optimizer = {settings.optimizer!r} is unknown: {', '.join(STATE_BYTES)}.")


def check_optimizer(name: str) -> None:
    """Whether an optimizer can be had here, before a model is loaded.

    Raises:
        InputError: it needs a package that is not installed.
    """
    if name == "adamw_8bit":
        _bitsandbytes()


def optimizer_tensors(optimizer: torch.optim.Optimizer, parameter: torch.nn.Parameter) -> dict[str, Tensor]:
    """A parameter's state as tensors on the CPU; numbers become tensors of no dimension."""
    return {
        name: (value.detach() if isinstance(value, Tensor) else torch.tensor(value)).cpu().contiguous().clone()
        for name, value in optimizer.state.get(parameter, {}).items()
    }


def restore_state(optimizer: torch.optim.Optimizer, parameter: torch.nn.Parameter, tensors: dict[str, Tensor]) -> None:
    """The inverse of `optimizer_tensors`."""
    counts = {"step"} if not isinstance(optimizer, torch.optim.AdamW) else set()
    optimizer.state[parameter] = {
        name: int(tensor) if name in counts else tensor.to(parameter.device) for name, tensor in tensors.items()
    }


def _bitsandbytes() -> Any:
    try:
        import bitsandbytes
    except ImportError:
        raise InputError(
            'learner.optimizer = "adamw_8bit" needs bitsandbytes, which is not installed: '
            "pip install bitsandbytes, or use adamw."
        ) from None
    return bitsandbytes
