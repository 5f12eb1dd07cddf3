"""The prompt of a group computed once, in both forms, against the padded reference: values and gradients."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spark_kernel.config.sections import LoraSection, ModelSection
from spark_kernel.models import block_mask
from spark_kernel.models.block_mask import BlockBatch
from spark_kernel.models.group_batches import CachedBatch, MakeBatch, PaddedBatch
from spark_kernel.models.packed import PackedBatch
from spark_kernel.models.policy import Policy, load_policy
from spark_kernel.models.prefix_form import PrefixForm, choose_form
from spark_kernel.prompts.prompt import Prompt
from spark_kernel.records import Message
from spark_kernel.rollout.engine import Sampling
from spark_kernel.rollout.transformers_engine import TransformersEngine
from tests.helpers.tiny_models import ARCHITECTURES, save_tiny_architecture

Outputs = list[list[list[int]]]
FORMS: dict[str, MakeBatch] = {"cached": CachedBatch.make, "block": BlockBatch.make, "packed": PackedBatch.make}
OUTPUTS: Outputs = [[list(range(5, 17)), [7], list(range(40, 45))], [[20, 21], [22, 23, 24]], [[9] * 20]]
PROMPTS = ["one?", "a much longer question it is, longer than any window", "three"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("architectures")
    return {name: save_tiny_architecture(root / name, name) for name in ARCHITECTURES}


def prompts_of(texts: list[str]) -> list[Prompt]:
    return [Prompt(f"t{i}", (Message.of("user", text),), ()) for i, text in enumerate(texts)]


def run(policy: Policy, make: MakeBatch, texts: list[str], outputs: Outputs) -> tuple[torch.Tensor, dict[str, Any]]:
    """Log-probabilities of all output tokens, and the gradient of their weighted sum."""
    policy.network.zero_grad()
    logprobs, _ = policy.group_forward(make(policy.encoder, prompts_of(texts), outputs, policy.device))
    # Of one sign: where contributions cancel, rounding alone is large beside what is left.
    weights = 1.5 + torch.cos(torch.arange(len(logprobs), dtype=torch.float32, device=logprobs.device))
    (logprobs * weights).sum().backward()
    return logprobs.detach(), {name: p.grad.clone() for name, p in policy.trainable if p.grad is not None}


def differences(policy: Policy, make: MakeBatch, texts: list[str], outputs: Outputs) -> tuple[float, float]:
    """Largest difference of log-probabilities, and of gradients relative to the largest entry of their parameter."""
    expected, expected_gradient = run(policy, PaddedBatch.make, texts, outputs)
    found, gradient = run(policy, make, texts, outputs)
    assert gradient.keys() == expected_gradient.keys()
    scale = max(float(g.abs().max()) for g in expected_gradient.values())
    worst = max(float((gradient[n] - expected_gradient[n]).abs().max()) for n in gradient)
    return float((found - expected).abs().max()), worst / scale


def policy_of(folder: Path, lora: bool) -> Policy:
    policy = load_policy(ModelSection(path=str(folder), lora=LoraSection(enabled=lora, rank=4)))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in policy.trainable:
            if "lora_B" in name:  # an adapter that does nothing would prove nothing
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return policy


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_equal_to_the_padded_reference(folders: dict[str, Path], name: str, form: str, lora: bool) -> None:
    value, gradient = differences(policy_of(folders[name], lora), FORMS[form], PROMPTS, OUTPUTS)
    assert value < 1e-5
    assert gradient < 1e-5


@pytest.fixture(scope="module")
def gemma(folders: dict[str, Path]) -> Policy:
    return policy_of(folders["gemma3"], False)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.text("ab ?", min_size=1, max_size=30),
            st.lists(st.lists(st.integers(0, 250), min_size=1, max_size=12), min_size=1, max_size=4),
        ),
        min_size=1,
        max_size=3,
    )
)
@pytest.mark.parametrize("form", FORMS)
def test_any_shapes(gemma: Policy, form: str, groups: list[tuple[str, list[list[int]]]]) -> None:
    texts, outputs = [text for text, _ in groups], [output for _, output in groups]
    value, gradient = differences(gemma, FORMS[form], texts, outputs)
    assert value < 1e-5
    assert gradient < 1e-5


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_a_leak_between_two_outputs_is_noticed(
    folders: dict[str, Path], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: the second output of a group may look at the first."""
    original = block_mask.visible

    def leaking(block: torch.Tensor, positions: torch.Tensor, window: int | None) -> torch.Tensor:
        return original(torch.where(block == 2, 1, block), positions, window)

    policy = policy_of(folders[name], False)
    assert differences(policy, BlockBatch.make, PROMPTS, OUTPUTS)[0] < 1e-5
    monkeypatch.setattr(block_mask, "visible", leaking)
    value, gradient = differences(policy, BlockBatch.make, PROMPTS, OUTPUTS)
    assert value > 1e-3
    assert gradient > 1e-3


def test_windows_are_measured_in_positions(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: measured along the row, the last output of a group would lose sight of its prompt."""
    original = block_mask.visible

    def along_the_row(block: torch.Tensor, positions: torch.Tensor, window: int | None) -> torch.Tensor:
        return original(block, torch.arange(block.shape[1]).expand_as(block), window)

    policy = policy_of(folders["mistral-sliding"], False)
    monkeypatch.setattr(block_mask, "visible", along_the_row)
    assert differences(policy, BlockBatch.make, PROMPTS, OUTPUTS)[0] > 1e-3


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_both_kinds_of_attention(folders: dict[str, Path], attention: str) -> None:
    policy = policy_of(folders["qwen3"], False)
    policy.network.set_attn_implementation(attention)
    for make in FORMS.values():
        assert differences(policy, make, PROMPTS, OUTPUTS)[0] < 1e-5


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_sampled_logprobs_are_those_of_the_learner(folders: dict[str, Path], name: str) -> None:
    """Decoding, with its own cache, and scoring by the shared prefix agree: also where windows slide."""
    engine = TransformersEngine(load_policy(ModelSection(path=str(folders[name]))))
    prompts = [replace(prompt, seeds=(1, 2, 3)) for prompt in prompts_of(PROMPTS)]
    groups = engine.sample(prompts, Sampling(24))
    scored = engine.score(prompts, [[c.token_ids for c in group] for group in groups])
    for group, rows in zip(groups, scored, strict=True):
        for completion, row in zip(group, rows, strict=True):
            assert row == pytest.approx(completion.logprobs, abs=2e-5)


@pytest.mark.parametrize("name", ["llama", "gemma3"])
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_gradient_checkpointing_runs_the_block_form_and_really_recomputes(
    folders: dict[str, Path], name: str, lora: bool
) -> None:
    policy = policy_of(folders[name], lora)
    _, expected = run(policy, PaddedBatch.make, PROMPTS, OUTPUTS)
    policy.checkpoint_gradients()
    chosen = choose_form(policy.network, checkpointing=policy.gradient_checkpointing)
    assert chosen.form is PrefixForm.BLOCK
    assert "checkpointing" in chosen.note
    calls = []
    layer = policy.network.base_model.layers[0]
    layer.self_attn.register_forward_hook(lambda *_: calls.append(1))
    with policy.recomputing():
        _, gradient = run(policy, chosen.batch, PROMPTS, OUTPUTS)
    assert len(calls) == 2  # forward, and again in the backward pass
    scale = max(float(g.abs().max()) for g in expected.values())
    assert max(float((gradient[n] - expected[n]).abs().max()) for n in expected) / scale < 1e-5
    run(policy, PaddedBatch.make, PROMPTS, OUTPUTS)
    assert len(calls) == 3  # outside of an update nothing is recomputed


def network_with(attention: str = "sdpa", **config: Any) -> Any:
    text = SimpleNamespace(**config)
    own = SimpleNamespace(
        get_text_config=lambda: text, _attn_implementation=attention, vision_config=config.get("vision_config")
    )
    return SimpleNamespace(config=own, _is_stateful=config.get("stateful", False))


@pytest.mark.parametrize(
    ("network", "checkpointing", "form", "said"),
    [
        (network_with(), False, PrefixForm.CACHED, ""),
        (network_with(layer_types=["full_attention", "sliding_attention"]), False, PrefixForm.CACHED, ""),
        (
            network_with(layer_types=["linear_attention", "full_attention"]),
            False,
            PrefixForm.PADDED,
            "linear_attention",
        ),
        (network_with(stateful=True), False, PrefixForm.PADDED, "state"),
        (network_with(num_kv_shared_layers=2), False, PrefixForm.PADDED, "share keys"),
        (network_with("flash_attention_2"), True, PrefixForm.PADDED, "flash_attention_2"),
        (network_with(vision_config={}), True, PrefixForm.PADDED, "images"),
    ],
)
def test_the_form_is_chosen_by_what_the_network_can(
    network: Any, checkpointing: bool, form: PrefixForm, said: str
) -> None:
    chosen = choose_form(network, checkpointing=checkpointing)
    assert chosen.form is form
    assert said in chosen.note
