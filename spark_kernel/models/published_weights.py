"""Weights on their way from the learner to an engine, as a description: which version, and how they can be had.

An engine says what it wants (`Wanted`), the learner publishes that (`PublishedWeights`), and the engine takes it. The
controller hands the description over and never sees a tensor. Only `InMemory` needs one process for both; everything
else is plain data. This module imports the standard library and prompts only, so that an engine can live elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from spark_kernel.errors import StaleEngineError
from spark_kernel.prompts.prompt import Prompt


class Form(StrEnum):
    """The forms in which weights can be had."""

    MEMORY = "memory"
    """The learner's own tensors, by a reference: one process."""
    ADAPTER = "adapter"
    """The bytes of a low-rank adapter alone, for an engine that holds its base."""
    FOLDER = "folder"
    """A Hugging Face folder with all weights, adapters merged."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A prompt and output tokens [T] on which learner and engine are compared."""

    prompt: Prompt
    output: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ScoredProbe:
    """A probe with the learner's log-probabilities [T] of its output tokens, at temperature 1."""

    probe: Probe
    logprobs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an engine asks of the next publication.

    `forms`: the first that the learner can give is taken. `probe`: what the engine will be checked on. `folder`: where
    folders for it are made. `refused`: names of adapter settings that it cannot apply; with one of them set there is no
    adapter alone. `base`: with an adapter, its base too, as a folder.
    """

    forms: tuple[Form, ...] = (Form.MEMORY,)
    probe: Probe | None = None
    folder: Path | None = None
    refused: tuple[str, ...] = ()
    base: bool = False


class WeightSource(Protocol):
    """A model in this process whose tensors may be read."""

    @property
    def version(self) -> int:
        """The policy version of its tensors.

        Raises:
            StaleEngineError: they are in mid-update.
        """
        ...

    def named_tensors(self, *, merged: bool = True) -> Iterator[tuple[str, Any]]:
        """Full weights one by one, named as in the base model's state dict; adapters merged or left out."""
        ...

    def save_description(self, folder: Path) -> None:
        """Configuration, tokenizer and processor without weights, as a Hugging Face folder."""
        ...


@dataclass(frozen=True, slots=True)
class InMemory:
    """Tensors of this process, read by whoever takes them."""

    source: WeightSource


@dataclass(frozen=True, slots=True)
class AdapterBytes:
    """An adapter: a safetensors file with peft's names, peft's configuration, and a folder of its base if wanted."""

    tensors: bytes
    config: Mapping[str, Any]
    base: Path | None = None


@dataclass(frozen=True, slots=True)
class WeightFolder:
    """A Hugging Face folder; it is the engine's, to delete when it is no longer needed."""

    path: Path


@dataclass(frozen=True, slots=True)
class PublishedWeights:
    """Weights of one version. `shapes`: of all tensors of the model, by name. `scored`: the probe asked for."""

    version: int
    way: InMemory | AdapterBytes | WeightFolder
    shapes: Mapping[str, tuple[int, ...]]
    scored: ScoredProbe | None = None

    def folders(self) -> list[Path]:
        """What lies on disk of them, for the engine to delete."""
        if isinstance(self.way, WeightFolder):
            return [self.way.path]
        base = self.way.base if isinstance(self.way, AdapterBytes) else None
        return [base] if base is not None else []

    def source(self) -> WeightSource:
        """The model in this process that they are of.

        Raises:
            StaleEngineError: they are not in memory, or the model has moved on since.
        """
        if not isinstance(self.way, InMemory):
            raise StaleEngineError(
                f"Policy version {self.version} was published as {type(self.way).__name__}, and this engine takes "
                "weights from memory: publish what the engine's `wanted` says."
            )
        if self.way.source.version != self.version:
            raise StaleEngineError(
                f"Policy version {self.version} was published from memory, where version {self.way.source.version} is "
                "now: publish again."
            )
        return self.way.source


class Publisher(Protocol):
    """Whoever has the weights: a policy, a learner."""

    def publish(self, wanted: Wanted = Wanted()) -> PublishedWeights:
        """The weights as they are, in a form that was asked for.

        Raises:
            StaleEngineError: they are in mid-update.
            ModelError: none of the forms can be had.
        """
        ...
