"""Log-probabilities of given tokens from hidden states, one chunk of logits at a time, forward and backward."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from spark_kernel.models.compiled import can_compile, compiled

CHUNK_LOGITS = {"cpu": 1 << 25, "cuda": 1 << 28}
"""Logits alive at once, by device: tokens in a chunk times the vocabulary. In float32 that is 128 MiB and 1 GiB."""
WEIGHT_BLOCK = {"cpu": 1 << 22, "cuda": 1 << 27}
"""Elements of the head's gradient that are computed at once where they have to change precision, by device."""


@dataclass(frozen=True, slots=True)
class OutputHead:
    """What turns a causal model's last hidden states into logits.

    logits = cap * tanh(x / cap), with x = module(hidden) * factor / divisor; a term that is None is left out.
    """

    module: Any
    factor: float | None = None
    divisor: float | None = None
    cap: float | None = None

    def __call__(self, hidden: Tensor) -> Tensor:
        """Logits [..., V] of hidden states [..., H]."""
        logits: Tensor = self.module(hidden)
        if self.factor is not None:
            logits = logits * self.factor
        if self.divisor is not None:
            logits = logits / self.divisor
        if self.cap is not None:
            logits = torch.tanh(logits / self.cap) * self.cap
        return logits

    @property
    def is_plain(self) -> bool:
        """Whether it is one matrix product (and a bias): no adapter, scaling or cap."""
        return type(self.module) is torch.nn.Linear and self.factor is self.divisor is self.cap is None


def output_projection(network: Any) -> OutputHead:
    """A causal model's output head, its own scaling and soft cap included."""
    config = network.config.get_text_config()
    return OutputHead(
        network.get_output_embeddings(),
        factor=getattr(config, "logit_scale", None),
        divisor=getattr(config, "logits_scaling", None),
        cap=getattr(config, "final_logit_softcapping", None),
    )


def token_logprobs(
    hidden: Tensor,
    targets: Tensor,
    project: OutputHead,
    *,
    temperature: float = 1.0,
    chunk_logits: int | None = None,
    vocabulary: int,
) -> tuple[Tensor, Tensor]:
    """Log-probability of each target and entropy of each distribution, both [N], in float32 (float64 stays).

    Args:
        hidden: last hidden states [N, H] at the positions that predict the targets.
        targets: token ids [N].
        project: the output head.
        temperature: divides the logits.
        chunk_logits: bound on the logits alive at once, by default the device's; of several chunks the backward pass
            computes each again.
        vocabulary: V, to size the chunks.

    The entropy carries no gradient. Under autocast the head computes in its precision, as it does in sampling.
    """
    device = hidden.device.type
    rows = max(1, (chunk_logits or CHUNK_LOGITS[device]) // vocabulary)
    if torch.is_autocast_enabled(device):
        hidden = hidden.to(torch.get_autocast_dtype(device))
    if project.is_plain:
        logprobs, entropy = _LinearLogprobs.apply(
            hidden, project.module.weight, project.module.bias, targets, temperature, rows
        )
        return logprobs, entropy
    parts = []
    for chunk in _chunks(len(hidden), rows):
        arguments = (hidden[chunk], targets[chunk], project, temperature)
        if torch.is_grad_enabled() and hidden.requires_grad and len(hidden) > rows:
            parts.append(checkpoint(plain_logprobs, *arguments, use_reentrant=False))
        else:
            parts.append(plain_logprobs(*arguments))
    logprobs, entropy = (torch.cat(column) for column in zip(*parts, strict=True))
    return logprobs, entropy


def plain_logprobs(hidden: Tensor, targets: Tensor, project: OutputHead, temperature: float) -> tuple[Tensor, Tensor]:
    """The same by the plain way, all logits at once: the reference, and what any output head can do."""
    logits = _wide(project(hidden))
    if temperature != 1.0:
        logits = logits / temperature
    logprobs = torch.log_softmax(logits, dim=-1)
    chosen = logprobs.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    with torch.no_grad():
        entropy = -(logprobs.exp() * logprobs).sum(dim=-1)
    return chosen, entropy


class _LinearLogprobs(torch.autograd.Function):
    """`plain_logprobs` of a linear head, in chunks.

    With z = (h W^T + b) / t:  logp = z_target - logsumexp(z),  entropy = logsumexp(z) - sum(softmax(z) * z), and in the
    backward pass  d logp / d z = onehot(target) - softmax(z).  A single chunk's softmax (on a GPU: its logits) is kept;
    of several, each is computed again. On a GPU the sums over the vocabulary are compiled into one kernel.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, temperature: float, rows: int
    ) -> tuple[Tensor, Tensor]:
        ctx.temperature, ctx.rows = temperature, rows
        kept: Tensor | None = None
        wide = torch.promote_types(hidden.dtype, torch.float32)
        logprobs, entropy, totals = (torch.empty(len(targets), dtype=wide, device=hidden.device) for _ in range(3))
        fused = can_compile(hidden.device)
        with torch.autocast(hidden.device.type, enabled=False):
            matrix, shift = _like(hidden, weight), _like(hidden, bias)
            for chunk in _chunks(len(targets), rows):
                logits = functional.linear(hidden[chunk], matrix, shift)
                sums = compiled(_sums) if fused else _sums
                logprobs[chunk], entropy[chunk], totals[chunk], probabilities = sums(
                    logits, targets[chunk], temperature, not fused
                )
                if len(targets) <= rows:
                    kept = logits if fused else probabilities
                del logits, probabilities
        ctx.save_for_backward(hidden, weight, bias, targets, totals, kept)
        ctx.mark_non_differentiable(entropy)
        return logprobs, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_logprobs: Tensor, _grad_entropy: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets, totals, kept = ctx.saved_tensors
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        grad_hidden = torch.empty_like(hidden) if wants_hidden else None
        grad_weight = torch.zeros_like(weight) if wants_weight else None
        grad_bias = torch.zeros_like(bias) if wants_bias else None
        matrix, shift = _like(hidden, weight), _like(hidden, bias)
        fused = can_compile(hidden.device)
        for chunk in _chunks(len(targets), ctx.rows):
            scale = (grad_logprobs[chunk] / ctx.temperature).unsqueeze(-1)
            if fused:
                logits = kept if kept is not None else functional.linear(hidden[chunk], matrix, shift)
                slope = compiled(_slope)(logits, targets[chunk], totals[chunk], scale, ctx.temperature)
                del logits
            elif kept is None:
                logits = _logits(hidden[chunk], matrix, shift, ctx.temperature)
                slope = torch.softmax(logits, dim=-1).mul_(-scale)
                del logits
                slope.scatter_add_(-1, targets[chunk].unsqueeze(-1), scale)
            else:
                slope = kept * -scale
                slope.scatter_add_(-1, targets[chunk].unsqueeze(-1), scale)
            if grad_bias is not None:
                grad_bias += slope.sum(dim=0)
            narrow = slope.to(hidden.dtype)
            if grad_hidden is not None:
                grad_hidden[chunk] = narrow @ matrix
            if grad_weight is not None:
                _add_product(grad_weight, narrow, hidden[chunk])
            del slope, narrow
        return grad_hidden, grad_weight, grad_bias, None, None, None


def _sums(
    logits: Tensor, targets: Tensor, temperature: float, keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Log-probabilities, entropies and log-normalisers [n] of a chunk's logits [n, V]; its softmax if it is kept."""
    z = _tempered(logits, temperature)
    total = torch.logsumexp(z, dim=-1)
    chosen = z.gather(-1, targets.unsqueeze(-1)).squeeze(-1) - total
    if not keep:
        entropy = total - ((z - total.unsqueeze(-1)).exp() * z).sum(dim=-1)
        return chosen, entropy, total, None
    probabilities = (z - total.unsqueeze(-1)).exp_()
    return chosen, total - torch.einsum("nv,nv->n", probabilities, z), total, probabilities


def _slope(logits: Tensor, targets: Tensor, total: Tensor, scale: Tensor, temperature: float) -> Tensor:
    """scale * (onehot(target) - softmax(z)) of a chunk [n, V], in the precision of its logits."""
    z = _tempered(logits, temperature)
    chosen = torch.arange(z.shape[-1], device=z.device) == targets.unsqueeze(-1)
    return (scale * (chosen.to(z.dtype) - (z - total.unsqueeze(-1)).exp())).to(logits.dtype)


def _add_product(grad_weight: Tensor, slope: Tensor, hidden: Tensor) -> None:
    """grad_weight [V, H] += slope [N, V]^T hidden [N, H], without a second tensor of that size."""
    if grad_weight.dtype == hidden.dtype:
        grad_weight.addmm_(slope.t(), hidden)
        return
    block = max(1, WEIGHT_BLOCK[hidden.device.type] // hidden.shape[-1])
    for part in _chunks(len(grad_weight), block):
        grad_weight[part] += slope[:, part].t() @ hidden


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, temperature: float) -> Tensor:
    return _tempered(functional.linear(hidden, weight, bias), temperature)


def _tempered(logits: Tensor, temperature: float) -> Tensor:
    logits = _wide(logits)
    return logits if temperature == 1.0 else logits / temperature


def _like(hidden: Tensor, weight: Any) -> Any:
    """A weight in the precision of the hidden states, as autocast would have it."""
    return None if weight is None else weight.to(hidden.dtype)


def _wide(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _chunks(count: int, rows: int) -> Iterator[slice]:
    return (slice(start, min(start + rows, count)) for start in range(0, count, rows))
