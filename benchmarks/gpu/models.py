"""Random models of real shapes on the GPU, made in place: no network, no file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from benchmarks.shapes import NEVER, Scale, byte_tokenizer, make_groups, output_lengths
from spark_kernel.config.sections import LearnerSection, LoraSection, ObjectiveSection
from spark_kernel.learner.torch_learner import TorchLearner
from spark_kernel.models.encoder import PromptEncoder
from spark_kernel.models.grouped_attention import use_grouped_attention
from spark_kernel.models.load import LoadedModel
from spark_kernel.models.policy import Policy
from spark_kernel.models.prefix_form import ChosenForm, PrefixForm, choose_form
from spark_kernel.records import Group

SAMPLES = 8


@dataclass(frozen=True)
class Size:
    """The shape of a Qwen model."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    tied: bool
    version: int = 2


SIZES = {
    "1.5b": Size(1536, 8960, 28, 12, 2, 151_936, True),
    "4b": Size(2560, 9728, 36, 32, 8, 151_936, True, version=3),
    "7b": Size(3584, 18_944, 28, 28, 4, 152_064, False),
}
TINY = Size(64, 128, 2, 4, 2, 512, True)


@dataclass(frozen=True)
class Build:
    """A model and how it is trained; `form`: of the forward pass, None for the one that would be chosen."""

    size: str
    lora: bool = False
    checkpointing: bool = False
    form: PrefixForm | None = None

    @property
    def name(self) -> str:
        """For a finding."""
        how = "LoRA" if self.lora else "all weights"
        return f"{self.size}, {how}{', recomputing' if self.checkpointing else ''}"


def make_policy(build: Build, device: torch.device, *, tiny: bool = False) -> Policy:
    """As `load_policy` would make it on a GPU: float32 weights under autocast, frozen ones in bfloat16."""
    size = TINY if tiny else SIZES[build.size]
    shape: dict[str, Any] = {
        "vocab_size": size.vocabulary,
        "hidden_size": size.hidden,
        "intermediate_size": size.intermediate,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.kv_heads,
        "tie_word_embeddings": size.tied,
        "max_position_embeddings": 32_768,
        "attn_implementation": "sdpa",
    }
    torch.manual_seed(0)
    with torch.device(device):
        dtype = torch.bfloat16 if build.lora else torch.float32
        if size.version == 3:
            network: Any = Qwen3ForCausalLM._from_config(Qwen3Config(**shape, head_dim=128), dtype=dtype)
        else:
            network = Qwen2ForCausalLM._from_config(Qwen2Config(**shape), dtype=dtype)
    network.eval()
    use_grouped_attention(network)
    encoder = PromptEncoder(byte_tokenizer(), None, NEVER, "random")
    loaded = LoadedModel(network, encoder, device, device.type == "cuda", 32_768)
    policy = Policy(loaded, LoraSection(enabled=build.lora))
    if build.checkpointing:
        policy.checkpoint_gradients()
    return policy


def make_learner(policy: Policy, form: PrefixForm | None, *, micro_batch_tokens: int) -> TorchLearner:
    """One optimizer step an update, by the form that is chosen or a given one."""
    learner = TorchLearner(
        policy,
        ObjectiveSection(importance_correction="off"),
        LearnerSection(learning_rate=1e-6, minibatch_sequences=None, micro_batch_tokens=micro_batch_tokens),
        horizon_steps=1000,
        images_root=Path(),
    )
    checkpointing = policy.gradient_checkpointing
    learner.form = ChosenForm(form) if form else choose_form(policy.network, checkpointing=checkpointing)
    return learner


def groups_of(count: int, prompt: int, output: int) -> list[Group]:
    """Scored groups of eight, all of these lengths."""
    scale = Scale(groups=count, samples=SAMPLES)
    return make_groups(scale, prompt, output_lengths(scale, output, ragged=False))


def training_flops(policy: Policy, groups: int, prompt: int, output: int) -> float:
    """Floating-point operations that an update takes at the least: each prompt once, attention left out.

    6 a parameter and token where its gradient is taken, 4 where weights are frozen; the head for outputs only.
    """
    network = policy.network
    head = network.get_output_embeddings().weight.numel()
    embeddings = head * (1 if network.config.tie_word_embeddings else 2)
    trunk = sum(parameter.numel() for parameter in network.parameters()) - embeddings
    tokens = groups * (prompt + SAMPLES * output)
    return (4 if policy.has_adapter else 6) * (trunk * tokens + head * groups * SAMPLES * output)
