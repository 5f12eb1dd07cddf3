"""Models that cannot be used are refused in a sentence; those that can are loaded as the settings say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from spark_kernel.config.sections import LoraSection, ModelSection
from spark_kernel.errors import ModelError
from spark_kernel.models import load
from spark_kernel.models.estimate import weigh
from spark_kernel.models.grouped_attention import NAME, grouped_attention
from spark_kernel.models.load import load_encoder, load_model, resolve_model
from spark_kernel.models.memory import shape_of
from spark_kernel.models.policy import load_policy
from spark_kernel.prompts.prompt import Prompt
from spark_kernel.records import Message
from spark_kernel.rollout.engine import Sampling
from spark_kernel.rollout.transformers_engine import TransformersEngine
from tests.helpers.tiny_models import save_tiny_llama


def edit_json(path: Path, **changes: object) -> None:
    values = json.loads(path.read_text(encoding="utf-8"))
    values.update(changes)
    path.write_text(json.dumps({k: v for k, v in values.items() if v is not None}), encoding="utf-8")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("builtin:nothing", r'no built-in model "builtin:nothing"; there is builtin:starter'),
        ("no/such/folder", "There is no model"),
        ("model.gguf", "no GGUF file model.gguf"),
        ("/nowhere", "There is no model"),
    ],
)
def test_a_model_that_is_not_there(path: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        resolve_model(path)


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no config\.json"):
        resolve_model(str(tmp_path))


def test_damaged_weights_are_one_sentence(tmp_path: Path) -> None:
    folder = save_tiny_llama(tmp_path)
    (folder / "model.safetensors").write_bytes(b"not tensors")
    with pytest.raises(ModelError, match="cannot be loaded") as caught:
        load_model(ModelSection(path=str(folder)))
    assert "\n" not in str(caught.value)


def test_no_chat_template(tmp_path: Path) -> None:
    folder = save_tiny_llama(tmp_path)
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match="has no chat template"):
        load_encoder(ModelSection(path=str(folder)))


def test_no_end_of_sequence_token(tmp_path: Path) -> None:
    folder = save_tiny_llama(tmp_path)
    edit_json(folder / "tokenizer_config.json", eos_token=None)
    (folder / "generation_config.json").unlink()
    with pytest.raises(ModelError, match="no end-of-sequence token"):
        load_encoder(ModelSection(path=str(folder)))


def test_adapter_targets_that_match_nothing_are_named_with_what_there_is(tmp_path: Path) -> None:
    folder = save_tiny_llama(tmp_path)
    with pytest.raises(ModelError, match=r"\['nope'\] match no module .* q_proj"):
        load_policy(ModelSection(path=str(folder), lora=LoraSection(enabled=True, target_modules=("nope",))))


def test_adapters_begin_at_the_base_model_and_merge_into_it(tmp_path: Path) -> None:
    folder = save_tiny_llama(tmp_path)
    plain = load_policy(ModelSection(path=str(folder)))
    adapted = load_policy(ModelSection(path=str(folder), lora=LoraSection(enabled=True, rank=4)))
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        assert torch.equal(plain.network(ids).logits, adapted.network(ids).logits)
        for _, parameter in adapted.trainable:
            parameter.add_(0.05)
        moved = adapted.network(ids).logits
        assert not torch.allclose(moved, plain.network(ids).logits, atol=1e-3)
        with adapted.initial() as initial:
            assert torch.equal(initial(ids).logits, plain.network(ids).logits)
        merged = dict(adapted.named_tensors())
        assert merged.keys() == dict(plain.named_tensors()).keys()
        plain.network.load_state_dict(merged)
        torch.testing.assert_close(plain.network(ids).logits, moved, atol=1e-4, rtol=1e-4)


def test_the_device_that_is_not_here(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(ModelError, match="finds no CUDA device"):
        load_model(ModelSection(path=str(save_tiny_llama(tmp_path)), device="cuda"))


def test_grouped_attention_equals_attention_with_repeated_heads(tmp_path: Path) -> None:
    model = load_model(ModelSection(path=str(save_tiny_llama(tmp_path)))).model
    assert model.config._attn_implementation == NAME
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 4, 1, 8), torch.randn(3, 2, 9, 8), torch.randn(3, 2, 9, 8)
    mask = torch.rand(3, 1, 1, 9) > 0.3
    output, _ = grouped_attention(model.model.layers[0].self_attn, query, key, value, mask, scaling=0.3)
    repeated = [states.repeat_interleave(2, dim=1) for states in (key, value)]
    expected = torch.nn.functional.scaled_dot_product_attention(query, *repeated, attn_mask=mask, scale=0.3)
    torch.testing.assert_close(output, expected.transpose(1, 2))
    wrong_heads = torch.nn.functional.scaled_dot_product_attention(
        query, *[states.repeat(1, 2, 1, 1) for states in (key, value)], attn_mask=mask, scale=0.3
    )
    assert not torch.allclose(output, wrong_heads.transpose(1, 2), atol=1e-3)


@pytest.mark.parametrize(
    ("able", "dtype", "fewest", "expected"),
    [
        ({"avx512_bf16": True}, "auto", 1_000, True),
        ({"amx_bf16": True}, "auto", 1_000, True),
        ({"avx512_bf16": True}, "auto", 5_000_000, False),  # the model is too small to gain
        ({"avx512_f": True}, "auto", 1_000, False),
        ({"avx512_bf16": True}, "float32", 1_000, False),
    ],
)
def test_a_cpu_that_has_bfloat16_computes_larger_models_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, able: dict[str, bool], dtype: str, fewest: int, expected: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    monkeypatch.setattr(load, "FEWEST_FOR_BFLOAT16", fewest)
    settings = ModelSection(
        path=str(save_tiny_llama(tmp_path)), dtype=dtype, device="cpu", lora=LoraSection(enabled=True, rank=2)
    )
    policy = load_policy(settings)
    assert policy.loaded.autocast is expected
    found = weigh(settings)
    assert found is not None
    assert found.shape == shape_of(policy.network, autocast=expected)
    assert {p.dtype for p in policy.network.parameters()} == {torch.float32}
    prompts = [Prompt("t", (Message.of("user", "3 + 4?"),), (1, 2, 3))]
    engine = TransformersEngine(policy)
    (group,) = engine.sample(prompts, Sampling(12))
    (scores,) = engine.score(prompts, [[c.token_ids for c in group]])
    reference = load_policy(settings.model_copy(update={"dtype": "float32"})).score(
        prompts, [[c.token_ids for c in group]]
    )[0]
    for completion, same, exact in zip(group, scores, reference, strict=True):
        assert same == pytest.approx(completion.logprobs, abs=0.2 if expected else 1e-4)
        assert (max(abs(a - b) for a, b in zip(same, exact, strict=True)) > 1e-4) is expected
