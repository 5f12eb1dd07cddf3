"""Correction for a sampler whose log-probabilities differ from the learner's. Pure tensor functions.

vLLM computes with other kernels, another precision, or weights that are a little older, so that the tokens were drawn
from a distribution pi_sampler near, but not equal to, the learner's pi_old. The policy term is weighted by
pi_old / pi_sampler, bounded because a few tokens would dominate otherwise.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spark_kernel.objective.losses import per_token, sequence_sums


def importance_weights(
    old_logprobs_N: Tensor, sampler_logprobs_N: Tensor, lengths_S: Tensor, *, mode: str, level: str, cap: float
) -> tuple[Tensor, Tensor]:
    """Weight of each token's policy loss [N], without gradient.

    With w = exp(logp_old - logp_sampler) per token, or exp of its sum over the sequence (`level`):

    - "truncate": min(w, cap) (truncated importance sampling; arXiv 1802.01561, Yao et al. 2025).
    - "mask": w where w <= cap, else 0 (the tokens, or sequences, leave the policy loss but not its normaliser).

    Returns:
        Weights [N], and whether a token's weight was bounded [N] (bool).

    Raises:
        ValueError: unknown mode or level.
    """
    difference_N = (old_logprobs_N - sampler_logprobs_N).detach()
    if level == "sequence":
        difference_N = per_token(sequence_sums(difference_N, lengths_S), lengths_S, len(difference_N))
    elif level != "token":
        raise ValueError(f"importance_level = {level!r} is unknown: token, sequence")
    weights_N = torch.exp(difference_N)
    bounded_N = weights_N > cap
    if mode == "truncate":
        return weights_N.clamp(max=cap), bounded_N
    if mode == "mask":
        return weights_N.masked_fill(bounded_N, 0.0), bounded_N
    raise ValueError(f"importance_correction = {mode!r} is unknown: truncate, mask")
