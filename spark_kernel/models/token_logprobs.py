"""Log-probabilities of given tokens from hidden states, one chunk of logits at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

CHUNK_LOGITS = 1 << 25
"""Logits alive at once: tokens in a chunk times the vocabulary."""

Projection = Callable[[Tensor], Tensor]


def output_projection(network: Any) -> Projection:
    """What turns a causal model's last hidden states into logits, its own scaling and soft cap included."""
    head = network.get_output_embeddings()
    config = network.config.get_text_config()
    cap = getattr(config, "final_logit_softcapping", None)
    factor = getattr(config, "logit_scale", None)
    divisor = getattr(config, "logits_scaling", None)

    def project(hidden: Tensor) -> Tensor:
        logits: Tensor = head(hidden)
        if factor is not None:
            logits = logits * factor
        if divisor is not None:
            logits = logits / divisor
        if cap is not None:
            logits = torch.tanh(logits / cap) * cap
        return logits

    return project


def token_logprobs(
    hidden: Tensor,
    targets: Tensor,
    project: Projection,
    *,
    temperature: float = 1.0,
    chunk_logits: int = CHUNK_LOGITS,
    vocabulary: int,
) -> tuple[Tensor, Tensor]:
    """Log-probability of each target and entropy of each distribution, both [N] in float32.

    Args:
        hidden: last hidden states [N, H] at the positions that predict the targets.
        targets: token ids [N].
        project: hidden states to logits.
        temperature: divides the logits.
        chunk_logits: bound on the logits alive at once; the backward pass recomputes each chunk.
        vocabulary: V, to size the chunks.

    The entropy carries no gradient.
    """
    size = max(1, chunk_logits // vocabulary)
    if hidden.shape[0] <= size:
        return _chunk(hidden, targets, project, temperature)
    logprobs, entropies = [], []
    for start in range(0, hidden.shape[0], size):
        piece, wanted = hidden[start : start + size], targets[start : start + size]
        if torch.is_grad_enabled() and hidden.requires_grad:
            logprob, entropy = checkpoint(_chunk, piece, wanted, project, temperature, use_reentrant=False)
        else:
            logprob, entropy = _chunk(piece, wanted, project, temperature)
        logprobs.append(logprob)
        entropies.append(entropy)
    return torch.cat(logprobs), torch.cat(entropies)


def _chunk(hidden: Tensor, targets: Tensor, project: Projection, temperature: float) -> tuple[Tensor, Tensor]:
    logits = project(hidden).float()
    if temperature != 1.0:
        logits = logits / temperature
    logprobs = torch.log_softmax(logits, dim=-1)
    chosen = logprobs.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    with torch.no_grad():
        entropy = -(logprobs.exp() * logprobs).sum(dim=-1)
    return chosen, entropy
