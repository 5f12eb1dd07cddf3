"""From training groups to the objective's inputs, and from its outputs to the sums of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spark_kernel.config.sections import ObjectiveSection
from spark_kernel.learner.progress import Totals
from spark_kernel.learner.selection import TrainingGroup
from spark_kernel.objective.losses import normaliser
from spark_kernel.objective.named_losses import aggregation_of
from spark_kernel.objective.policy_loss import LossInputs, PolicyLoss, policy_loss

OVER = 0.01
"""A token counts as mismatched where sampler and learner differ by more than this, in natural log."""


def step_scales(step: Sequence[TrainingGroup], objective: ObjectiveSection) -> dict[str, float]:
    """What each kind's token losses are multiplied by in an optimizer step: its weight over the step's normaliser."""
    pooled = objective.kinds == "pooled"
    counts: dict[str, tuple[int, int]] = {}
    for group in step:
        name = "all" if pooled else str(group.kind)
        sequences, tokens = counts.get(name, (0, 0))
        counts[name] = (sequences + len(group.rollouts), tokens + group.loss_tokens)
    scales = {}
    for kind in {group.kind for group in step}:
        sequences, tokens = counts["all" if pooled else str(kind)]
        weight = objective.kind_weights.get(kind.value, 1.0)
        scales[str(kind)] = weight / normaliser(sequences, tokens, aggregation=aggregation_of(objective))
    return scales


def micro_batch_loss(
    batch: Sequence[TrainingGroup],
    logprobs_N: Tensor,
    old_logprobs_N: Tensor,
    reference_logprobs_N: Tensor | None,
    scales: Mapping[str, float],
    objective: ObjectiveSection,
    *,
    constant_length: int,
) -> PolicyLoss:
    """The loss of one micro-batch.

    Args:
        batch: its groups; tokens of all their rollouts, in order, are the N of the tensors.
        logprobs_N: by the policy, with gradient.
        old_logprobs_N: before the period's first step.
        reference_logprobs_N: by the initial policy, or None.
        scales: of `step_scales`, for the whole optimizer step.
        objective: as `policy_loss` takes it.
        constant_length: likewise.
    """
    rollouts = [rollout for group in batch for rollout in group.rollouts]
    dtype = logprobs_N.dtype

    def there(values: Tensor) -> Tensor:
        return values.to(logprobs_N.device, non_blocking=True)

    advantages = [_advantage(rollout.advantage, objective) for rollout in rollouts]
    kinds = [str(group.kind) for group in batch for _ in group.rollouts]
    return policy_loss(
        LossInputs(
            logprobs_N=logprobs_N,
            old_logprobs_N=old_logprobs_N,
            sampler_logprobs_N=there(sampler_logprobs(batch).to(dtype)),
            reference_logprobs_N=reference_logprobs_N,
            advantages_S=there(torch.tensor(advantages, dtype=dtype)),
            lengths_S=there(torch.tensor([len(rollout.token_ids) for rollout in rollouts])),
            scales_S=there(torch.tensor([scales[kind] for kind in kinds], dtype=dtype)),
        ),
        objective,
        constant_length=constant_length,
    )


def sampler_logprobs(groups: Sequence[TrainingGroup]) -> Tensor:
    """What the engine reported for every token [N], on the CPU, in float64 as it was recorded."""
    values = [x for group in groups for rollout in group.rollouts for x in rollout.logprobs]
    return torch.tensor(values, dtype=torch.float64)


@dataclass(frozen=True, slots=True)
class BatchSums:
    """A micro-batch's token sums, over all kinds and for each, left where they were computed.

    Reading them waits for the device, so they are read once, when the optimizer step's last micro-batch is under way.
    `values` [K] by `names`, float64, the whole loss first; `counts` are known without the device.
    """

    counts: Mapping[str, int]
    names: tuple[str, ...]
    values: Tensor


def batch_sums(batch: Sequence[TrainingGroup], loss: PolicyLoss, entropy_N: Tensor) -> BatchSums:
    """The sums of a micro-batch."""
    tokens = {
        "loss": loss.loss_N,
        "kl": loss.kl_N,
        "entropy": entropy_N,
        "clip_share": loss.clipped_N,
        "ratio": loss.ratio_N,
        "bounded_share": loss.bounded_N,
    }
    counts = {"tokens": len(entropy_N)}
    values = {"total_loss": loss.total.detach().double()}
    values |= {name: value_N.double().sum() for name, value_N in tokens.items()}
    for kind, places in _places_of_kinds(batch).items():
        counts[f"{kind}/tokens"] = len(places)
        chosen = places.to(entropy_N.device, non_blocking=True)
        values |= {f"{kind}/{key}": value_N[chosen].double().sum() for key, value_N in tokens.items()}
    return BatchSums(counts, tuple(values), torch.stack(list(values.values())))


def add_sums(totals: Totals, sums: BatchSums, values: Sequence[float]) -> None:
    """Add a micro-batch's sums, `values` being its tensor of them as numbers."""
    for name, count in sums.counts.items():
        totals.add(name, count)
    for name, value in zip(sums.names, values, strict=True):
        totals.add(name, value)


def _places_of_kinds(batch: Sequence[TrainingGroup]) -> dict[str, Tensor]:
    """For every kind which of the batch's tokens are of it, on the CPU."""
    places: dict[str, list[Tensor]] = {}
    start = 0
    for group in batch:
        places.setdefault(str(group.kind), []).append(torch.arange(start, start + group.loss_tokens))
        start += group.loss_tokens
    return {kind: torch.cat(parts) for kind, parts in sorted(places.items())}


def add_mismatch(totals: Totals, learner_N: Tensor, sampler_N: Tensor) -> None:
    """Add how far the sampler's log-probabilities are from the learner's, before the update's first step.

    Called once an update, with all its tokens [N], so that the 99th percentile of the ratio is exact.
    """
    if learner_N.numel() == 0:
        return
    difference_N = learner_N.double().cpu() - sampler_N.double().cpu()
    totals.add("mismatch/tokens", difference_N.numel())
    totals.add("mismatch/absolute", float(difference_N.abs().sum()))
    totals.add("mismatch/over_1_percent", int((difference_N.abs() > OVER).sum()))
    ordered = difference_N.sort().values
    totals.add("mismatch/ratio_p99", float(ordered[int(0.99 * (len(ordered) - 1))].exp()))
    totals.add("mismatch/ratio_max", float(ordered[-1].exp()))


def mismatch_figures(totals: Totals) -> dict[str, float]:
    """Sampler against learner, for the report: mean |d|, share of tokens over 1 %, ratio's p99 and maximum."""
    return {
        "mean_abs_logprob": totals.mean("mismatch/absolute", "mismatch/tokens"),
        "share_over_1_percent": totals.mean("mismatch/over_1_percent", "mismatch/tokens"),
        "ratio_p99": totals.get("mismatch/ratio_p99"),
        "ratio_max": totals.get("mismatch/ratio_max"),
        "share_bounded": totals.mean("bounded_share", "tokens"),
    }


def _advantage(advantage: float | None, objective: ObjectiveSection) -> float:
    if advantage is None:
        raise ValueError("a rollout in the loss has no advantage: verify the groups first")
    return advantage * objective.negative_advantage_scale if advantage < 0 else advantage
