"""On a GPU: the packed form by FlexAttention, and the head's compiled kernels, against the plain ways."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from spark_kernel.config.sections import LoraSection, ModelSection
from spark_kernel.models.flex_attention import MaskRule, attend, block_mask, dense_mask
from spark_kernel.models.packed import PackedBatch
from spark_kernel.models.policy import load_policy
from spark_kernel.models.prefix_form import PrefixForm, choose_form
from spark_kernel.models.token_logprobs import OutputHead, plain_logprobs, token_logprobs
from tests.helpers.tiny_models import save_tiny_architecture
from tests.test_shared_prefix import OUTPUTS, PROMPTS, differences

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("name", ["qwen2", "qwen3", "qwen2-sliding"])
def test_packed_groups_are_the_padded_reference(tmp_path: Path, name: str, lora: bool) -> None:
    folder = save_tiny_architecture(tmp_path, name)
    settings = ModelSection(path=str(folder), device="cuda", dtype="float32", lora=LoraSection(enabled=lora, rank=4))
    policy = load_policy(settings)
    assert choose_form(policy.network).form is choose_form(policy.network, checkpointing=True).form is PrefixForm.PACKED
    value, gradient = differences(policy, PackedBatch.make, PROMPTS, OUTPUTS)
    assert value < 1e-4
    assert gradient < 1e-4


def test_one_token_more_in_sight_is_noticed() -> None:
    """Negative control of the kernel's mask, and its agreement with attention under the same mask as a tensor."""

    def causal(_batch: object, _head: object, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return query >= key

    def one_further(_batch: object, _head: object, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return query + 1 >= key

    device = torch.device("cuda")
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, heads, 256, 64, device=device) for heads in (4, 2, 2))

    def found(rule: MaskRule) -> torch.Tensor:
        return attend(query, key, value, block_mask(rule, 256, device), None).transpose(1, 2)

    expected = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=dense_mask(causal, 256, device), enable_gqa=True
    )
    torch.testing.assert_close(found(causal), expected, atol=2e-3, rtol=0)
    assert float((found(one_further) - expected).abs().max()) > 0.05


def test_the_heads_kernels_are_the_plain_way() -> None:
    torch.manual_seed(0)
    head = OutputHead(torch.nn.Linear(64, 5000, bias=False, device="cuda"))
    hidden, targets = torch.randn(40, 64, device="cuda"), torch.randint(0, 5000, (40,), device="cuda")
    results = []
    for chunk in (None, 5000 * 7, 5000 * 64):
        leaf = hidden.clone().requires_grad_()
        head.module.zero_grad()
        if chunk is None:
            logprobs, entropy = plain_logprobs(leaf, targets, head, 0.8)
        else:
            logprobs, entropy = token_logprobs(
                leaf, targets, head, temperature=0.8, chunk_logits=chunk, vocabulary=5000
            )
        logprobs.sum().backward()
        results.append((logprobs.detach(), entropy, leaf.grad, head.module.weight.grad.clone()))
    for found in results[1:]:
        for mine, expected in zip(found, results[0], strict=True):
            torch.testing.assert_close(mine, expected, atol=2e-4, rtol=1e-3)
