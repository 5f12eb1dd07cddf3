"""What the vLLM engines push after an update: full tensors that fit the model at the start, or an adapter's folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from spark_kernel.errors import ModelError
from spark_kernel.models.adapter import Adapter
from spark_kernel.rollout.engine import PolicyWeights

UNSUPPORTED_BY_VLLM = ("use_dora", "modules_to_save", "lora_bias")
"""Adapter features that vLLM cannot apply: such adapters are merged before they are pushed."""
SHARD_BYTES = 2 * 2**30
"""Largest file of a folder of pushed weights: how much is held twice while it is written."""


class CheckedTensors:
    """Gives a policy's full tensors one by one, as long as they are those of the model that vLLM was started with."""

    def __init__(self, weights: PolicyWeights) -> None:
        self._shapes: Mapping[str, tuple[int, ...]] = {
            name: tuple(tensor.shape) for name, tensor in weights.named_tensors(merged=False)
        }

    def fingerprint(self) -> str:
        """The model's names and shapes as a few letters: equal for runs of the same architecture."""
        listed = json.dumps(sorted((name, list(shape)) for name, shape in self._shapes.items()))
        return hashlib.sha256(listed.encode("utf-8")).hexdigest()[:12]

    def described(self) -> list[tuple[str, tuple[int, ...]]]:
        """Names and shapes, in the order in which `of` gives the tensors."""
        return list(self._shapes.items())

    def of(self, weights: PolicyWeights, *, merged: bool = True) -> Iterator[tuple[str, Any]]:
        """Names and tensors.

        Raises:
            ModelError: one has another name or shape than at the start.
        """
        for name, tensor in weights.named_tensors(merged=merged):
            expected = self._shapes.get(name)
            if expected != tuple(tensor.shape):
                raise ModelError(
                    f"The weights pushed to vLLM are another model's: {name} has shape {tuple(tensor.shape)}, "
                    f"{'not ' + str(expected) if expected else 'and this model has no such tensor'}."
                )
            yield name, tensor


def adapter_to_push(weights: PolicyWeights, wanted: bool) -> Adapter | None:
    """The adapter, where there is one, it is wanted apart from its base, and vLLM can apply it."""
    adapter = weights.adapter()
    if adapter is None or not wanted or any(adapter.config.get(name) for name in UNSUPPORTED_BY_VLLM):
        return None
    return adapter


def write_adapter(adapter: Adapter, folder: Path) -> None:
    """Write an adapter as the folder that vLLM reads: a few megabytes."""
    from safetensors.torch import save_file

    folder.mkdir(exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in adapter.tensors.items()}
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(dict(adapter.config), default=str), encoding="utf-8")


def write_weights(tensors: Iterator[tuple[str, Any]], folder: Path) -> None:
    """Write full tensors as safetensors files of a Hugging Face folder, holding one file's worth at a time."""
    from safetensors.torch import save_file

    shard: dict[str, Any] = {}
    held = count = 0
    for name, tensor in tensors:
        size = tensor.numel() * tensor.element_size()
        if shard and held + size > SHARD_BYTES:
            save_file(shard, folder / f"model-{count:05d}.safetensors")
            shard, held, count = {}, 0, count + 1
        # A copy: tied weights share memory, which the format does not allow.
        shard[name] = tensor.detach().to("cpu", copy=True).contiguous()
        held += size
    save_file(shard, folder / f"model-{count:05d}.safetensors")
