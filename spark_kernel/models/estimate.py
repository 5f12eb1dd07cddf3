"""What a run needs of memory at the least, from the model's configuration alone.

The arithmetic is that of `models.memory`, on the network without weights. It counts no more than every run takes: a
micro-batch of one longest output, few rows side by side. Weights, gradients and optimizer are exact, activations are
an estimate. What is let in by it can still run out of memory, on long prompts for example.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from spark_kernel.config.sections import ModelSection
from spark_kernel.models import memory
from spark_kernel.models.load import autocasts, load_skeleton, pick_device
from spark_kernel.models.memory import ModelShape
from spark_kernel.models.policy import add_adapters
from spark_kernel.models.token_logprobs import CHUNK_LOGITS


@dataclass(frozen=True, slots=True)
class SamplerMemory:
    """A sampler in this process with weights of its own.

    `cache_bytes`: its key-value cache. `whole_bytes`: weights and cache together where that is fixed beforehand, else
    None. `sleeps`: it gives everything back while the policy is updated.
    """

    cache_bytes: int = 0
    whole_bytes: int | None = None
    sleeps: bool = False


@dataclass(frozen=True, slots=True)
class MemoryDemand:
    """What a run asks of memory besides its model.

    `optimizer`: "adamw" or "adamw_8bit". `reference`: whether a KL term is taken. `max_new_tokens`: longest output,
    in tokens. `rows`: outputs that the policy decodes side by side at the least; 0 where something else samples.
    `micro_batch_tokens`: as configured; None where it is planned from what is free. `sampler`: None where sampling
    takes no weights besides the policy's. `learning_rate`: what no proposal may round away; None where nothing is
    trained.
    """

    optimizer: str
    reference: bool
    max_new_tokens: int
    rows: int
    micro_batch_tokens: int | None = None
    sampler: SamplerMemory | None = None
    learning_rate: float | None = None


@dataclass(frozen=True, slots=True)
class Weights:
    """A network's weights, in bytes: all of them, and those that are trained (so much do their gradients take)."""

    shape: ModelShape
    all_bytes: int
    trained_bytes: int
    can_recompute: bool


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes at the least, by part. `fixed` parts stand always, those of `training` and `sampling` in turns.

    `bytes_per_token`: activations of a token of a micro-batch.
    """

    parameters: int
    trainable: int
    bytes_per_token: int
    fixed: Mapping[str, int]
    training: Mapping[str, int]
    sampling: Mapping[str, int]

    @property
    def parts(self) -> dict[str, int]:
        """Everything that stands at the largest moment, without empty parts."""
        phase = max(self.training, self.sampling, key=lambda parts: sum(parts.values()))
        return {name: size for name, size in {**self.fixed, **phase}.items() if size}

    @property
    def needed(self) -> int:
        """Bytes at the largest moment."""
        return sum(self.parts.values())


def weigh(settings: ModelSection) -> Weights | None:
    """The weights that these settings would load, adapters included; None where they are stored quantized.

    Raises:
        ModelError: the model's configuration cannot be had, or no module matches the adapter's targets.
    """
    network = load_skeleton(settings)
    if network is None:
        return None
    size = sum(weight.numel() for weight in network.parameters())
    autocast = autocasts(settings, pick_device(settings.device), size)
    if settings.lora.enabled:
        network = add_adapters(network, settings.lora, seed=0).get_base_model()
    weights = list(network.parameters())
    return Weights(
        shape=memory.shape_of(network, autocast=autocast),
        all_bytes=sum(weight.numel() * weight.element_size() for weight in weights),
        trained_bytes=sum(weight.numel() * weight.element_size() for weight in weights if weight.requires_grad),
        can_recompute=bool(getattr(network, "supports_gradient_checkpointing", False)),
    )


def estimate_memory(weights: Weights, settings: ModelSection, demand: MemoryDemand) -> MemoryEstimate:
    """The estimate for weights and demand.

    Always: weights, optimizer state (AdamW's two moments have the precision of what they belong to, or 8 bits) and
    the frozen copy that a KL term needs where all weights are trained. In training: gradients, the activations of one
    longest output, its logits and their softmax in float32. In sampling: keys and values of `demand.rows` longest
    outputs, or the weights and cache of a sampler that has its own.
    """
    shape = weights.shape
    tokens = max(memory.LEAST_TOKENS, demand.max_new_tokens)
    per_token = memory.training_bytes_per_token(shape, samples=1, checkpointing=settings.gradient_checkpointing)
    chunk = CHUNK_LOGITS[pick_device(settings.device).type]
    logits = 2 * 4 * shape.vocabulary * min(tokens, max(1, chunk // shape.vocabulary))
    own = _sampler_bytes(weights, demand.sampler)
    kept = 0 if demand.sampler is None or demand.sampler.sleeps else own
    cache = demand.rows * memory.decoding_bytes_per_row(shape, tokens=demand.max_new_tokens)
    all_trained = not settings.lora.enabled
    return MemoryEstimate(
        parameters=shape.parameters,
        trainable=shape.trainable,
        bytes_per_token=per_token,
        fixed={
            "weights": weights.all_bytes,
            "optimizer": 2 * (shape.trainable if demand.optimizer == "adamw_8bit" else weights.trained_bytes),
            "reference copy": weights.all_bytes if demand.reference and all_trained else 0,
        },
        training={
            "gradients": weights.trained_bytes,
            "activations": tokens * per_token + logits,
            "sampler": kept,
        },
        sampling={"key-value cache": cache, "sampler": own},
    )


def _sampler_bytes(weights: Weights, sampler: SamplerMemory | None) -> int:
    """Weights and cache of a sampler that has its own; its weights are in the precision of the arithmetic."""
    if sampler is None:
        return 0
    if sampler.whole_bytes is not None:
        return sampler.whole_bytes
    return weights.shape.parameters * weights.shape.bytes_per_activation + sampler.cache_bytes
