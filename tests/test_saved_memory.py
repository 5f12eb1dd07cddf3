"""What packed groups save for the backward pass: the plan against FakeTensor's count, and against an H200's peaks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AttentionInterface, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from benchmarks.gpu.models import SIZES, Size
from spark_kernel.config.sections import LoraSection
from spark_kernel.models import memory
from spark_kernel.models.policy import _keep_inputs, add_adapters
from tests.helpers.saved_bytes import counting, fake_weights, fused

pytestmark = pytest.mark.slow
TOKENS = 2048
GIB = 2**30
SIZES_HERE = SIZES | {"0.5b": Size(896, 4864, 24, 14, 2, 151_936, True)}


def attention(
    _module: Any, query: Tensor, key: Tensor, value: Tensor, *_rest: Any, **_keywords: Any
) -> tuple[Tensor, None]:
    """As `models.flex_attention.attend` prepares it, the kernel left out."""
    query, key = query.to(value.dtype), key.to(value.dtype)
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:
        key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
    return fused(query, key, value).transpose(1, 2).contiguous(), None


AttentionInterface.register("counted", attention)


def meta_network(size: Size, layers: int, *, dtype: torch.dtype, lora: bool, autocast: bool) -> Any:
    shape: dict[str, Any] = {
        "vocab_size": size.vocabulary,
        "hidden_size": size.hidden,
        "intermediate_size": size.intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.kv_heads,
        "tie_word_embeddings": size.tied,
        "attn_implementation": "counted",
    }
    with torch.device("meta"):
        if size.version == 3:
            network: Any = Qwen3ForCausalLM._from_config(Qwen3Config(**shape, head_dim=128), dtype=dtype)
        else:
            network = Qwen2ForCausalLM._from_config(Qwen2Config(**shape), dtype=dtype)
    network.eval()
    if lora:
        network = add_adapters(network, LoraSection(enabled=True), 0).get_base_model()
        if autocast:
            _keep_inputs(network)
    return network


def counted(network: Any, *, autocast: bool, checkpointing: bool) -> int:
    """Bytes that the trunk's pass over one row saves."""
    if checkpointing:
        network.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        network.train()
    with FakeTensorMode(allow_non_fake_inputs=True):
        fake_weights(network)
        ids = torch.zeros(1, TOKENS, dtype=torch.long)
        mask = torch.ones(1, 1, 1, TOKENS, dtype=torch.bool)
        with counting(network) as found, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            network.base_model(input_ids=ids, attention_mask=mask, position_ids=ids, use_cache=False)
    return found.total()


CASES = {
    "all weights": (torch.float32, False, True),
    "adapter": (torch.bfloat16, True, True),
    "bfloat16": (torch.bfloat16, False, False),
    "float32": (torch.float32, False, False),
}


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", SIZES_HERE)
def test_the_plan_is_what_is_counted(name: str, case: str, checkpointing: bool) -> None:
    """Two depths, so that what a layer saves is known apart from the rest."""
    dtype, lora, autocast = CASES[case]
    found, planned = [], []
    for layers in (2, 4):
        network = meta_network(SIZES_HERE[name], layers, dtype=dtype, lora=lora, autocast=autocast)
        shape = memory.shape_of(network, autocast=autocast)
        found.append(counted(network, autocast=autocast, checkpointing=checkpointing))
        casts = 0 if checkpointing else shape.cast_bytes
        planned.append(TOKENS * memory.packed_bytes_per_token(shape, checkpointing=checkpointing) + casts)
    assert (planned[1] - planned[0]) / (found[1] - found[0]) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(
    ("name", "lora", "tokens", "held", "peak"),
    [("1.5b", False, 8192, 5.88, 53.45), ("1.5b", False, 16_384, 5.88, 79.01), ("7b", True, 8192, 14.53, 61.13)],
)
def test_the_plan_is_an_h200s_peak(name: str, lora: bool, tokens: int, held: float, peak: float) -> None:
    """Of `benchmarks/results/2026-11-28T034644Z-gpu-check.jsonl`, with key heads repeated since."""
    size = SIZES[name]
    dtype = torch.bfloat16 if lora else torch.float32
    shape = memory.shape_of(meta_network(size, size.layers, dtype=dtype, lora=lora, autocast=True), autocast=True)
    repeated = 2 * 2 * (shape.query_size - shape.kv_size) * shape.layers
    activations = tokens * (memory.packed_bytes_per_token(shape, checkpointing=False) - repeated)
    state = memory.training_state_bytes(shape, optimizer_bytes=8, reference_copy=False)
    planned = held + (activations + state + shape.cast_bytes + memory.head_bytes(shape, "cuda")) / GIB
    assert planned == pytest.approx(peak, rel=0.1)
