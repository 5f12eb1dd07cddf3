"""The policy-gradient loss per token, and how token losses become one number. Pure tensor functions.

Tokens of all sequences of a micro-batch lie one after the other: a `_N` argument holds one value per token, a `_S`
argument one per sequence, and the values of `lengths_S` add up to N. Nothing here changes a tensor's precision.
"""

from __future__ import annotations

import torch
from torch import Tensor


def sequence_sums(values_N: Tensor, lengths_S: Tensor) -> Tensor:
    """Sum over the tokens of each sequence [S]."""
    sequence_of_token = per_token(torch.arange(len(lengths_S), device=values_N.device), lengths_S, len(values_N))
    return values_N.new_zeros(len(lengths_S)).index_add(0, sequence_of_token, values_N)


def per_token(values_S: Tensor, lengths_S: Tensor, tokens: int) -> Tensor:
    """Each sequence's value for each of its tokens [N]; with N given, the device need not be asked for the sum."""
    return values_S.repeat_interleave(lengths_S, output_size=tokens)


def token_ratio(logprobs_N: Tensor, old_logprobs_N: Tensor) -> Tensor:
    """Importance ratio of each token [N]: rho = exp(logp - logp_old)."""
    return torch.exp(logprobs_N - old_logprobs_N)


def sequence_ratio(logprobs_N: Tensor, old_logprobs_N: Tensor, lengths_S: Tensor) -> Tensor:
    """GSPO's length-normalised ratio of each sequence, repeated for its tokens [N] (arXiv 2507.18071, eq. 7).

    s = exp(1/T * sum over the sequence of (logp - logp_old))
    """
    means_S = sequence_sums(logprobs_N - old_logprobs_N, lengths_S) / lengths_S
    return per_token(torch.exp(means_S), lengths_S, len(logprobs_N))


def clipped_surrogate(
    ratio_N: Tensor, advantages_N: Tensor, *, eps_low: float, eps_high: float, dual_clip: float | None = None
) -> tuple[Tensor, Tensor]:
    """PPO's clipped surrogate per token (arXiv 1707.06347, eq. 7), with an asymmetric range (arXiv 2503.14476).

        loss = -min(rho * A, clip(rho, 1 - eps_low, 1 + eps_high) * A)

    With `dual_clip` = c > 1 + eps_high the loss of a negative advantage stops growing at rho = c (arXiv 1912.09729,
    eq. 5; TRL's `delta`): rho is min(rho, c) in the first term.

    Returns:
        Loss [N], and whether a clip took the gradient away [N] (bool).
    """
    bounded_N = ratio_N.clamp(1.0 - eps_low, 1.0 + eps_high) * advantages_N
    capped_N = ratio_N if dual_clip is None else ratio_N.clamp(max=dual_clip)
    loss_N = -torch.minimum(capped_N * advantages_N, bounded_N)
    clipped_N = bounded_N < capped_N * advantages_N
    if dual_clip is not None:
        clipped_N = clipped_N | ((ratio_N > dual_clip) & (advantages_N < 0))
    return loss_N, clipped_N.detach()


def truncated_reinforce(
    logprobs_N: Tensor, ratio_N: Tensor, advantages_N: Tensor, *, ratio_cap: float
) -> tuple[Tensor, Tensor]:
    """CISPO per token (arXiv 2506.13585, eq. 4): the ratio is a weight without gradient, capped from above.

        loss = -stop_gradient(min(rho, ratio_cap)) * A * logp

    `ratio_cap` is absolute (TRL's `epsilon_high` for this loss), not a distance from 1.

    Returns:
        Loss [N], and whether the cap was active [N] (bool).
    """
    weight_N = ratio_N.detach().clamp(max=ratio_cap)
    return -weight_N * advantages_N * logprobs_N, (ratio_N > ratio_cap).detach()


def kl_estimate(logprobs_N: Tensor, reference_logprobs_N: Tensor, *, estimator: str) -> Tensor:
    """Estimate of KL(policy || reference) per token [N] (Schulman, "Approximating KL divergence", 2020).

    With d = logp_ref - logp:   k1 = -d,   k2 = d^2 / 2,   k3 = exp(d) - d - 1.

    Raises:
        ValueError: unknown estimator.
    """
    difference_N = reference_logprobs_N - logprobs_N
    if estimator == "k1":
        return -difference_N
    if estimator == "k2":
        return 0.5 * difference_N**2
    if estimator == "k3":
        return torch.expm1(difference_N) - difference_N
    raise ValueError(f"kl_estimator = {estimator!r} is unknown: k1, k2, k3")


def token_weights(lengths_S: Tensor, *, aggregation: str, constant_length: int, dtype: torch.dtype) -> Tensor:
    """What each token of a sequence weighs, per sequence [S], before division by the step's normaliser.

    - "token_mean": 1, and the normaliser is the number of loss tokens (DAPO).
    - "sequence_mean": 1 / length, and the normaliser is the number of sequences (GRPO).
    - "constant_length": 1 / constant_length, and the normaliser is the number of sequences (Dr. GRPO).

    Raises:
        ValueError: unknown aggregation.
    """
    if aggregation == "token_mean":
        return torch.ones_like(lengths_S, dtype=dtype)
    if aggregation == "sequence_mean":
        return 1.0 / lengths_S.to(dtype)
    if aggregation == "constant_length":
        return torch.full_like(lengths_S, 1.0 / constant_length, dtype=dtype)
    raise ValueError(f"aggregation = {aggregation!r} is unknown: token_mean, sequence_mean, constant_length")


def normaliser(sequences: int, tokens: int, *, aggregation: str) -> int:
    """What the summed, weighted token losses of one optimizer step are divided by."""
    return tokens if aggregation == "token_mean" else sequences
