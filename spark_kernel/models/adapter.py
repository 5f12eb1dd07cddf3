"""A low-rank adapter as engines take it: plain data, so that an engine needs neither peft nor the policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Adapter:
    """A low-rank adapter apart from its base model: tensors by peft's file names, and peft's configuration."""

    tensors: Mapping[str, Any]
    config: Mapping[str, Any]
