"""What the controller needs to know of a model: its name, how it reads prompts, and how much it takes."""

from __future__ import annotations

from dataclasses import dataclass

from spark_kernel.models.encoder import PromptEncoder


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """A model without its parameters.

    `name`: as the configuration names it. `encoder`: tokenizer, and processor where it has eyes. `context_length`: most
    tokens of prompt and output together.
    """

    name: str
    encoder: PromptEncoder
    context_length: int
