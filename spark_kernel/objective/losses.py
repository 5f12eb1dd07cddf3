"""The policy-gradient loss per token, and how token losses become one number. Pure tensor functions.

Tokens of all sequences of a micro-batch lie one after the other: every argument is [N] unless said otherwise.
"""

from __future__ import annotations

import torch
from torch import Tensor


def clipped_surrogate(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, *, eps_low: float, eps_high: float
) -> tuple[Tensor, Tensor, Tensor]:
    """PPO's clipped surrogate per token (arXiv 1707.06347, eq. 7), with an asymmetric range (arXiv 2503.14476).

        rho = exp(logp - logp_old);   loss = -min(rho * A, clip(rho, 1 - eps_low, 1 + eps_high) * A)

    Returns:
        Loss [N], ratio [N] without gradient, and whether the clip was active [N] (bool).
    """
    ratio = torch.exp(logprobs - old_logprobs)
    clipped = ratio.clamp(1.0 - eps_low, 1.0 + eps_high)
    plain, bounded = ratio * advantages, clipped * advantages
    loss = -torch.minimum(plain, bounded)
    return loss, ratio.detach(), (bounded < plain).detach()


def kl_estimate(logprobs: Tensor, reference_logprobs: Tensor, *, estimator: str) -> Tensor:
    """Estimate of KL(policy || reference) per token [N] (Schulman, "Approximating KL divergence", 2020).

    With d = logp_ref - logp:   k1 = -d,   k2 = d^2 / 2,   k3 = exp(d) - d - 1.

    Raises:
        ValueError: unknown estimator.
    """
    difference = reference_logprobs - logprobs
    if estimator == "k1":
        return -difference
    if estimator == "k2":
        return 0.5 * difference**2
    if estimator == "k3":
        return torch.expm1(difference) - difference
    raise ValueError(f"kl_estimator = {estimator!r} is unknown: k1, k2, k3")


def token_weights(lengths: Tensor, *, aggregation: str, constant_length: int) -> Tensor:
    """What each token of a sequence weighs, per sequence [S], before division by the step's normaliser.

    - "token_mean": 1, and the normaliser is the number of loss tokens (DAPO).
    - "sequence_mean": 1 / length, and the normaliser is the number of sequences (GRPO).
    - "constant_length": 1 / constant_length, and the normaliser is the number of sequences (Dr. GRPO).

    Raises:
        ValueError: unknown aggregation.
    """
    if aggregation == "token_mean":
        return torch.ones_like(lengths, dtype=torch.float32)
    if aggregation == "sequence_mean":
        return 1.0 / lengths.to(torch.float32)
    if aggregation == "constant_length":
        return torch.full_like(lengths, 1.0 / constant_length, dtype=torch.float32)
    raise ValueError(f"aggregation = {aggregation!r} is unknown: token_mean, sequence_mean, constant_length")


def normaliser(sequences: int, tokens: int, *, aggregation: str) -> int:
    """What the summed, weighted token losses of one optimizer step are divided by."""
    return tokens if aggregation == "token_mean" else sequences
