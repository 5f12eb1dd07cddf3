"""Runs of two rounds of a tiny model, what their policies compute, and the card of what is exported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard
from torch import Tensor

from spark_kernel.training.lifecycle import start_run
from tests.helpers.runs import tiny_config

IDS = torch.tensor([[65, 66, 67, 90, 100, 258, 12, 13, 200, 201]])
MERGED = 1e-4
"""Log-probabilities of merged weights differ by rounding: one product instead of two."""
LORA = {"model__lora__enabled": True, "model__lora__rank": 4, "learner__learning_rate": 1e-2, "objective__beta": 0.0}


@dataclass(frozen=True)
class Trained:
    """A run of two rounds, each with a checkpoint, and the log-probabilities [T, V] of its policy after each."""

    run: Path
    model: Path
    logprobs: dict[int, Tensor]


def logprobs(network: Any) -> Tensor:
    """Log-probabilities [T, V] of `IDS`."""
    with torch.inference_mode():
        return network(input_ids=IDS).logits[0].float().log_softmax(-1)


def train(folder: Path, **settings: Any) -> Trained:
    """Train a tiny model for two rounds, in a folder."""
    config = tiny_config(folder, rounds=2, checkpoint__every=1, evaluation__every=1, **settings)
    model = folder / "model"
    (model / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n# A tiny model\n")
    found = {}
    with start_run(config, folder / "run") as trainer:
        found[0] = logprobs(trainer.parts.learner.policy.network)
        for round in (1, 2):
            trainer.train(rounds=1)
            found[round] = logprobs(trainer.parts.learner.policy.network)
    return Trained(folder / "run", model, found)


def same(found: Tensor, expected: Tensor, *, within: float = 1e-5) -> bool:
    """Whether two tensors agree within an absolute bound."""
    return bool(torch.allclose(found, expected, atol=within, rtol=0))


def card_of(folder: Path) -> tuple[dict[str, Any], str]:
    """Metadata and text of an export's card."""
    card = ModelCard.load(folder / "README.md")  # as the hub's own library reads it
    return card.data.to_dict(), card.text


def table_row(body: str, label: str) -> list[str]:
    """The cells behind a label in a table of a card."""
    (line,) = [line for line in body.splitlines() if line.startswith(f"| {label} |")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]
