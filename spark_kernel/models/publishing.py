"""Making of a model's weights what an engine asks for: a reference, an adapter's bytes, a folder."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from spark_kernel.errors import ModelError
from spark_kernel.models.adapter import Adapter
from spark_kernel.models.published_weights import (
    AdapterBytes,
    Form,
    InMemory,
    Probe,
    PublishedWeights,
    ScoredProbe,
    Wanted,
    WeightFolder,
    WeightSource,
)
from spark_kernel.prompts.prompt import Prompt

SHARD_BYTES = 2 * 2**30
"""Largest file of a folder of weights: how much is held twice while it is written."""


class PublishedModel(WeightSource, Protocol):
    """What a model has to offer to be published."""

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of all tensors, by the names of `named_tensors`."""
        ...

    def adapter(self) -> Adapter | None:
        """The adapter alone, or None where the whole model is trained."""
        ...

    def score(self, prompts: Sequence[Prompt], outputs: Sequence[Sequence[Sequence[int]]]) -> list[list[list[float]]]:
        """Log-probabilities at temperature 1 of given output tokens: [prompt][output][T]."""
        ...


def publish_weights(model: PublishedModel, wanted: Wanted) -> PublishedWeights:
    """The model's weights in the first wanted form that can be had.

    Raises:
        StaleEngineError: the model is in mid-update.
        ModelError: none of the forms can be had, or a tensor has another shape than the model's.
    """
    version, shapes = model.version, model.shapes()
    way = next((way for form in wanted.forms if (way := _way(model, form, wanted, shapes)) is not None), None)
    if way is None:
        raise ModelError(
            f"Policy version {version} cannot be published as {' or '.join(wanted.forms)}: this model has no adapter "
            "that the engine can apply alone, and the engine names no folder; ask for memory too."
        )
    return PublishedWeights(version, way, shapes, _scored(model, wanted.probe))


def checked_tensors(
    tensors: Iterator[tuple[str, Any]], shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[tuple[str, Any]]:
    """Names and tensors, as long as they are those of a model of these shapes.

    Raises:
        ModelError: one has another name or shape.
    """
    for name, tensor in tensors:
        check_shape(name, tuple(tensor.shape), shapes)
        yield name, tensor


def check_shape(name: str, shape: tuple[int, ...], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse a tensor of another model.

    Raises:
        ModelError: says which one it is.
    """
    expected = shapes.get(name)
    if expected != shape:
        raise ModelError(
            f"The published weights are another model's: {name} has shape {shape}, "
            f"{'not ' + str(expected) if expected else 'and this model has no such tensor'}."
        )


def write_weights(tensors: Iterator[tuple[str, Any]], folder: Path) -> None:
    """Write full tensors as safetensors files of a Hugging Face folder, holding one file's worth at a time."""
    from safetensors.torch import save_file

    files: dict[str, str] = {}
    shard: dict[str, Any] = {}
    held = total = count = 0

    def write(name: str) -> None:
        save_file(shard, folder / name, metadata={"format": "pt"})
        files.update(dict.fromkeys(shard, name))

    for name, tensor in tensors:
        size = tensor.numel() * tensor.element_size()
        if shard and held + size > SHARD_BYTES:
            write(f"model-{count:05d}.safetensors")
            shard, held, count = {}, 0, count + 1
        # A copy: tied weights share memory, which the format does not allow.
        shard[name] = tensor.detach().to("cpu", copy=True).contiguous()
        held, total = held + size, total + size
    write(f"model-{count:05d}.safetensors" if count else "model.safetensors")
    if count:
        index = {"metadata": {"total_size": total}, "weight_map": files}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def _way(
    model: PublishedModel, form: Form, wanted: Wanted, shapes: Mapping[str, tuple[int, ...]]
) -> InMemory | AdapterBytes | WeightFolder | None:
    """The weights in a form, or None where it cannot be had."""
    if form is Form.MEMORY:
        return InMemory(model)
    if form is Form.ADAPTER:
        return _adapter_bytes(model, wanted, shapes)
    return None if wanted.folder is None else WeightFolder(_new_folder(model, wanted.folder, shapes, merged=True))


def _adapter_bytes(model: PublishedModel, wanted: Wanted, shapes: Mapping[str, tuple[int, ...]]) -> AdapterBytes | None:
    from safetensors.torch import save

    adapter = model.adapter()
    if adapter is None or any(adapter.config.get(name) for name in wanted.refused):
        return None
    base = None
    if wanted.base and wanted.folder is not None:
        base = _new_folder(model, wanted.folder, shapes, merged=False)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in adapter.tensors.items()}
    return AdapterBytes(save(tensors), dict(adapter.config), base)


def _new_folder(model: PublishedModel, parent: Path, shapes: Mapping[str, tuple[int, ...]], *, merged: bool) -> Path:
    """A new Hugging Face folder with all weights, readable by other users of the machine; whole or not at all."""
    folder = Path(tempfile.mkdtemp(prefix="weights-", dir=parent))
    try:
        folder.chmod(0o755)
        model.save_description(folder)
        write_weights(checked_tensors(model.named_tensors(merged=merged), shapes), folder)
    except BaseException:
        shutil.rmtree(folder)
        raise
    return folder


def _scored(model: PublishedModel, probe: Probe | None) -> ScoredProbe | None:
    if probe is None:
        return None
    return ScoredProbe(probe, tuple(model.score([probe.prompt], [[probe.output]])[0][0]))
