"""Which model to load, and how: plain dataclasses, so that engine and learner need no pydantic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """Low-rank adapters. `target_modules`: names or suffixes, or ("all-linear",)."""

    rank: int = 16
    alpha: int = 32
    target_modules: tuple[str, ...] = ("all-linear",)
    rslora: bool = False
    dora: bool = False


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """A model by reference (hub id, folder, GGUF file, built-in or downloaded name) and how to hold it.

    `dtype`: "float32", "bfloat16" or "auto" (float32 weights; the arithmetic runs in bfloat16 on CUDA, and on CPUs
    that have it for models from 5 million parameters).
    `device`: "cpu", "cuda", "cuda:N" or "auto". `seed` initialises new adapter weights.
    """

    path: str
    revision: str | None = None
    dtype: str = "auto"
    device: str = "auto"
    trust_remote_code: bool = False
    gradient_checkpointing: bool = False
    lora: LoraSettings | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Adapter:
    """A low-rank adapter apart from its base model: tensors by peft's file names, and peft's configuration."""

    tensors: Mapping[str, Any]
    config: Mapping[str, Any]
