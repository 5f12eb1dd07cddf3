"""From logits to tokens, each row by its own random numbers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spark_kernel.rollout.engine import Sampling


def row_uniforms(seeds: Sequence[int], length: int, device: torch.device) -> Tensor:
    """Uniform numbers in [0, 1), [rows, length] in float64, row i from a generator seeded with seeds[i] alone."""
    numbers = torch.empty(len(seeds), length, dtype=torch.float64)
    generator = torch.Generator()
    for row, seed in enumerate(seeds):
        generator.manual_seed(seed)
        torch.rand(length, generator=generator, dtype=torch.float64, out=numbers[row])
    return numbers.to(device)


def choose_tokens(logits: Tensor, sampling: Sampling, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """Draw one token per row and give its log-probability under the distribution it was drawn from.

    Args:
        logits: [B, V].
        sampling: temperature 0 takes the likeliest token.
        uniforms: one number per row in [0, 1) [B]; the token is where the cumulative distribution passes it.

    Returns:
        Token ids [B] and their log-probabilities [B], float32.
    """
    if sampling.temperature == 0:
        logprobs = torch.log_softmax(logits.float(), dim=-1)
        best = logprobs.max(dim=-1)
        return best.indices, best.values
    scaled = logits.float() if sampling.temperature == 1.0 else logits.float() / sampling.temperature
    if sampling.top_k or sampling.top_p < 1.0:
        scaled = _filtered(scaled, sampling)
    logprobs = torch.log_softmax(scaled, dim=-1)
    cumulative = logprobs.exp().cumsum(dim=-1, dtype=torch.float64)
    threshold = uniforms.unsqueeze(-1) * cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, threshold, right=True).clamp(max=logits.shape[-1] - 1)
    return tokens.squeeze(-1), logprobs.gather(-1, tokens).squeeze(-1)


def _filtered(logits: Tensor, sampling: Sampling) -> Tensor:
    """Logits with everything outside top-k and top-p at minus infinity; the likeliest token always stays."""
    if sampling.top_k and sampling.top_k < logits.shape[-1]:
        kth = logits.topk(sampling.top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < kth, float("-inf"))
    if sampling.top_p < 1.0:
        ordered = logits.sort(dim=-1, descending=True)
        mass = ordered.values.softmax(dim=-1)
        beyond = mass.cumsum(dim=-1) - mass >= sampling.top_p
        cut = torch.zeros_like(beyond).scatter(-1, ordered.indices, beyond)
        logits = logits.masked_fill(cut, float("-inf"))
    return logits
