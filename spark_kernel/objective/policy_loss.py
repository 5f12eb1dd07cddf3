"""The loss of one micro-batch: what goes in, by name and shape, and what comes out.

Every formula is a function of its own in `losses.py` and `importance.py`; here they are put together.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spark_kernel.config.sections import ObjectiveSection
from spark_kernel.objective.importance import importance_weights
from spark_kernel.objective.losses import (
    clipped_surrogate,
    kl_estimate,
    per_token,
    sequence_ratio,
    token_ratio,
    token_weights,
    truncated_reinforce,
)
from spark_kernel.objective.named_losses import LOSSES, aggregation_of


@dataclass(frozen=True, slots=True)
class LossInputs:
    """One micro-batch: S sequences whose N output tokens lie one after the other.

    `logprobs_N`: by the policy in training, with gradient. `old_logprobs_N`: by the policy before the period's first
    step. `sampler_logprobs_N`: what the engine reported. `reference_logprobs_N`: by the run's initial policy; needed
    where beta > 0. All are natural logarithms at the sampling temperature. `advantages_S`, `lengths_S` (tokens):
    per sequence. `scales_S`: w_k / N_k of the sequence's kind, N_k being the normaliser of the whole optimizer step
    (`losses.normaliser`), so that the losses of a step's micro-batches add up whatever the cut.
    """

    logprobs_N: Tensor
    old_logprobs_N: Tensor
    sampler_logprobs_N: Tensor
    reference_logprobs_N: Tensor | None
    advantages_S: Tensor
    lengths_S: Tensor
    scales_S: Tensor


@dataclass(frozen=True, slots=True)
class PolicyLoss:
    """`total` carries the gradient; the rest is for the report, per token and without gradient.

    `loss_N`: policy and KL term before weighting. `ratio_N`: pi / pi_old. `clipped_N`, `bounded_N`: whether a clip,
    or the bound of the importance correction, was active (bool).
    """

    total: Tensor
    loss_N: Tensor
    kl_N: Tensor
    ratio_N: Tensor
    clipped_N: Tensor
    bounded_N: Tensor


def policy_loss(inputs: LossInputs, objective: ObjectiveSection, *, constant_length: int) -> PolicyLoss:
    """The loss that the objective names (algorithm.md section 3).

        total = sum over sequences s and their tokens t of  scale_s * weight_s * (w_t * policy_t + beta * kl_t)

    with `weight_s` by the aggregation and `w_t` the importance correction (1 where it is off).

    Args:
        inputs: the micro-batch.
        objective: which formulas make up the loss; whether it corrects for the sampler must be decided (not "auto").
        constant_length: the divisor per sequence of aggregation "constant_length", in tokens.

    Raises:
        ValueError: the correction is not decided, or beta > 0 without reference log-probabilities.
    """
    lengths_S = inputs.lengths_S
    ratio_N = _ratio(inputs, objective)
    loss_N, clipped_N = _surrogate(inputs, ratio_N, objective)
    bounded_N = torch.zeros_like(clipped_N)
    if objective.importance_correction == "auto":
        raise ValueError("importance_correction = auto is to be decided before the loss: off, truncate or mask")
    if objective.importance_correction != "off":
        weights_N, bounded_N = importance_weights(
            inputs.old_logprobs_N,
            inputs.sampler_logprobs_N,
            lengths_S,
            mode=objective.importance_correction,
            level=objective.importance_level,
            cap=objective.importance_cap,
        )
        loss_N = loss_N * weights_N
    kl_N = torch.zeros_like(loss_N)
    if objective.beta > 0:
        kl_N = _kl(inputs, ratio_N, objective)
        loss_N = loss_N + objective.beta * kl_N
    weights_S = token_weights(
        lengths_S,
        aggregation=aggregation_of(objective),
        constant_length=constant_length,
        dtype=inputs.scales_S.dtype,
    )
    total = (loss_N * per_token(weights_S * inputs.scales_S, lengths_S, len(loss_N))).sum()
    return PolicyLoss(total, loss_N.detach(), kl_N.detach(), ratio_N.detach(), clipped_N, bounded_N)


def _ratio(inputs: LossInputs, objective: ObjectiveSection) -> Tensor:
    if LOSSES[objective.loss].ratio_level == "sequence":
        return sequence_ratio(inputs.logprobs_N, inputs.old_logprobs_N, inputs.lengths_S)
    return token_ratio(inputs.logprobs_N, inputs.old_logprobs_N)


def _surrogate(inputs: LossInputs, ratio_N: Tensor, objective: ObjectiveSection) -> tuple[Tensor, Tensor]:
    advantages_N = per_token(inputs.advantages_S, inputs.lengths_S, len(ratio_N))
    if LOSSES[objective.loss].surrogate == "cispo":
        return truncated_reinforce(inputs.logprobs_N, ratio_N, advantages_N, ratio_cap=objective.ratio_cap)
    return clipped_surrogate(
        ratio_N,
        advantages_N,
        eps_low=objective.eps_low,
        eps_high=objective.eps_high,
        dual_clip=objective.dual_clip,
    )


def _kl(inputs: LossInputs, ratio_N: Tensor, objective: ObjectiveSection) -> Tensor:
    if inputs.reference_logprobs_N is None:
        raise ValueError(f"beta = {objective.beta} needs the reference policy's log-probabilities")
    kl_N = kl_estimate(inputs.logprobs_N, inputs.reference_logprobs_N, estimator=objective.kl_estimator)
    return kl_N * ratio_N if objective.kl_times_ratio else kl_N
