"""What the losses of the literature are made of, by their usual names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from spark_kernel.config.sections import ObjectiveSection


@dataclass(frozen=True, slots=True)
class NamedLoss:
    """What a loss of the literature is made of: its surrogate, the level of its ratio, its aggregation."""

    surrogate: str
    ratio_level: str
    aggregation: str


LOSSES: Mapping[str, NamedLoss] = {
    "grpo": NamedLoss("clip", "token", "sequence_mean"),
    "dr_grpo": NamedLoss("clip", "token", "constant_length"),
    "dapo": NamedLoss("clip", "token", "token_mean"),
    "bnpo": NamedLoss("clip", "token", "token_mean"),
    "cispo": NamedLoss("cispo", "token", "token_mean"),
    "gspo": NamedLoss("clip", "sequence", "sequence_mean"),
}
"""Losses by their usual names (docs/objectives.md has formulas and sources)."""


def aggregation_of(objective: ObjectiveSection) -> str:
    """How token losses are averaged: as the objective says, else as its loss has it."""
    return objective.aggregation or LOSSES[objective.loss].aggregation
