"""The objective of a whole optimizer step, token by token, from its definitions: an oracle without tensors' axes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from spark_kernel.config.sections import ObjectiveSection
from spark_kernel.objective.named_losses import LOSSES, aggregation_of

CONSTANT_LENGTH = 7


def objective_of(**changes: Any) -> ObjectiveSection:
    """An objective whose correction for the sampler is decided: off, unless stated."""
    return ObjectiveSection(**({"importance_correction": "off"} | changes))


def written_out(
    new: Tensor,
    old: Tensor,
    sampler: Tensor,
    reference: Tensor,
    advantages: list[float],
    spans: list[range],
    scales: list[float],
    chosen: ObjectiveSection,
) -> Tensor:
    """The loss. `spans`: the tokens of each sequence; `scales`: its kind's weight over the step's normaliser."""
    total = new.new_zeros(())
    for advantage, span, scale in zip(advantages, spans, scales, strict=True):
        weight = {"token_mean": 1.0, "sequence_mean": 1 / len(span), "constant_length": 1 / CONSTANT_LENGTH}
        mean_log = torch.stack([new[t] - old[t] for t in span]).mean()
        whole_output = sum(float(old[t] - sampler[t]) for t in span)
        for t in span:
            ratio = torch.exp(mean_log if LOSSES[chosen.loss].ratio_level == "sequence" else new[t] - old[t])
            if LOSSES[chosen.loss].surrogate == "cispo":
                loss = -min(float(ratio.detach()), chosen.ratio_cap) * advantage * new[t]
            else:
                bounded = min(max(float(ratio.detach()), 1 - chosen.eps_low), 1 + chosen.eps_high) * advantage
                loss = -ratio * advantage if float(ratio.detach()) * advantage <= bounded else new.new_tensor(-bounded)
            if chosen.importance_correction != "off":
                by_token = float(old[t] - sampler[t])
                w = math.exp(whole_output if chosen.importance_level == "sequence" else by_token)
                above = chosen.importance_cap if chosen.importance_correction == "truncate" else 0.0
                loss = loss * (above if w > chosen.importance_cap else w)
            d = reference[t] - new[t]
            total = total + scale * weight[aggregation_of(chosen)] * (loss + chosen.beta * (torch.exp(d) - d - 1))
    return total
