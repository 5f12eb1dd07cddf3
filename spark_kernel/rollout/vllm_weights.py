"""What the vLLM engines ask of published weights, and how they hand on an adapter's bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from spark_kernel.models.published_weights import AdapterBytes, PublishedWeights
from spark_kernel.models.publishing import check_shape

REFUSED_ADAPTERS = ("use_dora", "modules_to_save", "lora_bias")
"""Adapter features that vLLM cannot apply: such adapters are merged before they are pushed."""


class SameModel:
    """Holds later weights to the names and shapes of the model that vLLM was started with."""

    def __init__(self, first: PublishedWeights) -> None:
        self.shapes: Mapping[str, tuple[int, ...]] = first.shapes

    def fingerprint(self) -> str:
        """The model's names and shapes as a few letters: equal for runs of the same architecture."""
        listed = json.dumps(sorted((name, list(shape)) for name, shape in self.shapes.items()))
        return hashlib.sha256(listed.encode("utf-8")).hexdigest()[:12]

    def check(self, published: PublishedWeights) -> None:
        """Refuse another model's weights before any of them is pushed.

        Raises:
            ModelError: a tensor has another name or shape than at the start.
        """
        for name, shape in published.shapes.items():
            check_shape(name, shape, self.shapes)


def write_adapter(adapter: AdapterBytes, folder: Path) -> None:
    """Write an adapter as the folder that vLLM reads: a few megabytes."""
    folder.mkdir(exist_ok=True)
    (folder / "adapter_model.safetensors").write_bytes(adapter.tensors)
    (folder / "adapter_config.json").write_text(json.dumps(dict(adapter.config), default=str), encoding="utf-8")
