"""The estimate of memory before weights are loaded, the refusal of what cannot fit, and what it proposes instead."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import Qwen2Config

from spark_kernel.config import RunConfig, load_config, merge_settings, validate_config
from spark_kernel.config.sections import LearnerSection, LoraSection, ModelSection
from spark_kernel.errors import InputError, ModelError
from spark_kernel.learner.torch_learner import TorchLearner
from spark_kernel.models import memory
from spark_kernel.models.estimate import MemoryDemand, SamplerMemory, Weights, estimate_memory, weigh
from spark_kernel.models.policy import load_policy
from spark_kernel.models.preflight import apply, check_memory, proposals
from spark_kernel.records import Period
from spark_kernel.rollout.memory_use import memory_demand
from spark_kernel.runs.reader import RunReader
from spark_kernel.training.lifecycle import start_run
from tests.helpers.objective_reference import objective_of
from tests.helpers.runs import tiny_config
from tests.helpers.tiny_models import ARCHITECTURES, save_tiny_architecture, save_tiny_idefics3, save_tiny_llama
from tests.test_learner import some_groups

pytestmark = pytest.mark.slow
GIB = 2**30
LORAS = (LoraSection(), LoraSection(enabled=True, rank=4), LoraSection(enabled=True, rank=3, dora=True))
DEMAND = MemoryDemand("adamw", reference=True, max_new_tokens=768, rows=8)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def qwen_7b(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The configuration of Qwen2.5-7B-Instruct, without weights or tokenizer."""
    folder = tmp_path_factory.mktemp("qwen")
    Qwen2Config(
        hidden_size=3584,
        intermediate_size=18944,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
        vocab_size=152064,
        tie_word_embeddings=False,
    ).save_pretrained(folder)
    return str(folder)


def weighed(settings: ModelSection) -> Weights:
    found = weigh(settings)
    assert found is not None
    return found


def size_of(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@pytest.mark.parametrize("name", [*ARCHITECTURES, "idefics3"])
def test_the_weights_are_counted_exactly_before_they_are_loaded(tmp_path: Path, name: str) -> None:
    if name == "idefics3":
        save_tiny_idefics3(tmp_path)
    else:
        save_tiny_architecture(tmp_path, name)
    for lora, dtype in itertools.product(LORAS, ("float32", "bfloat16")):
        settings = ModelSection(path=str(tmp_path), dtype=dtype, lora=lora)
        found, network = weighed(settings), load_policy(settings).network
        trained = [weight for weight in network.parameters() if weight.requires_grad]
        assert found.shape == memory.shape_of(network, autocast=False)
        assert found.shape.trainable == sum(weight.numel() for weight in trained)
        assert found.all_bytes == size_of(network.parameters())
        assert found.trained_bytes == size_of(trained)


def test_a_published_count_is_met_without_the_weights(qwen_7b: str) -> None:
    found = weighed(ModelSection(path=qwen_7b))
    assert found.shape.parameters == 7_615_616_512
    rank, layers, hidden, inner, kv = 16, 28, 3584, 18944, 512
    by_hand = layers * rank * (2 * (hidden + hidden) + 2 * (hidden + kv) + 3 * (hidden + inner))
    assert weighed(ModelSection(path=qwen_7b, lora=LoraSection(enabled=True, rank=rank))).shape.trainable == by_hand


@pytest.mark.parametrize(("lora", "dtype"), [*itertools.product(LORAS, ("float32", "bfloat16"))])
def test_gradients_moments_and_reference_copy_are_those_of_a_real_learner(
    tiny: Path, lora: LoraSection, dtype: str
) -> None:
    settings = ModelSection(path=str(tiny), dtype=dtype, lora=lora)
    policy = load_policy(settings)
    learner = TorchLearner(
        policy,
        objective_of(beta=0.01),
        LearnerSection(learning_rate=1e-3, minibatch_sequences=None),
        horizon_steps=10,
        images_root=Path(),
    )
    gradients: list[int] = []
    for _, parameter in policy.trainable:
        parameter.register_post_accumulate_grad_hook(lambda p: gradients.append(size_of([p.grad])))
    learner.update(some_groups(), period=Period.POLICY, round=1)
    moments = [value for state in learner.optimizer.state.values() for value in state.values() if value.dim()]
    estimate = estimate_memory(weighed(settings), settings, DEMAND)
    assert estimate.fixed["weights"] == size_of(policy.network.parameters())
    assert estimate.fixed["optimizer"] == size_of(moments)
    copy = 0 if lora.enabled else size_of(learner._reference.parameters())  # type: ignore[union-attr]
    assert estimate.fixed["reference copy"] == copy
    assert estimate.training["gradients"] == sum(gradients)


QWEN = {
    "gsm8k-0.5b": (24, {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
                        "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151936}),
    "gsm8k-1.5b": (24, {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
                        "num_attention_heads": 12, "num_key_value_heads": 2, "vocab_size": 151936}),
    "math-7b-lora": (80, {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
                          "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064}),
}  # fmt: skip
"""Presets for one card: its GB, and the published shape of their model (Qwen2.5; the 7B has a head of its own)."""


@pytest.mark.parametrize("preset", QWEN)
def test_presets_for_one_card_fit_it_and_say_what_they_take(tmp_path: Path, preset: str) -> None:
    card, shape = QWEN[preset]
    Qwen2Config(**shape, tie_word_embeddings=card < 80).save_pretrained(tmp_path)
    config = load_config(preset)
    dtype = "bfloat16" if config.model.lora.enabled else "float32"  # what `auto` is on a card (docs/training.md)
    settings = config.model.model_copy(update={"path": str(tmp_path), "dtype": dtype, "device": "cpu"})
    tokens = config.rollout.max_prompt_tokens + config.rollout.max_new_tokens
    demand = MemoryDemand(max_new_tokens=tokens, rows=1, reference=False, optimizer="adamw")
    estimate = estimate_memory(weighed(settings), settings, demand)
    gib = {name: size / 2**30 for name, size in (*estimate.fixed.items(), *estimate.training.items())}
    header = (resources.files("spark_kernel.config") / "presets" / f"{preset}.yaml").read_text("utf-8")
    assert f"weights {gib['weights']:.1f}" in header
    if config.model.lora.enabled:
        assert f"adapter with AdamW and gradients {gib['optimizer'] + gib['gradients']:.1f} GiB" in header
    else:
        assert f"AdamW {gib['optimizer']:.1f}, gradients {gib['gradients']:.1f} GiB" in header
    free = 0.9 * card * 1e9 / 2**30
    assert estimate.needed / 2**30 < free
    # While it samples the learner keeps weights and moments.
    held = gib["weights"] + gib["optimizer"] + config.rollout.vllm.memory_share * card * 1e9 / 2**30
    assert held < free


def test_every_setting_that_saves_memory_lowers_the_estimate(qwen_7b: str) -> None:
    settings = ModelSection(path=qwen_7b, dtype="float32")
    plain = estimate_memory(weighed(settings), settings, DEMAND)
    size = plain.parameters * 4
    assert plain.fixed == {"weights": size, "optimizer": 2 * size, "reference copy": size}
    assert plain.needed == 5 * size + plain.training["activations"]
    eight = estimate_memory(weighed(settings), settings, replace(DEMAND, optimizer="adamw_8bit"))
    assert plain.needed - eight.needed == 6 * plain.parameters
    assert plain.needed - estimate_memory(weighed(settings), settings, replace(DEMAND, reference=False)).needed == size
    for saving in ({"dtype": "bfloat16"}, {"lora": LoraSection(enabled=True)}, {"gradient_checkpointing": True}):
        saved: Any = settings.model_copy(update=saving)
        assert estimate_memory(weighed(saved), saved, DEMAND).needed < plain.needed
    shorter = estimate_memory(weighed(settings), settings, replace(DEMAND, max_new_tokens=384))
    assert shorter.training["activations"] < plain.training["activations"]
    assert shorter.sampling["key-value cache"] < plain.sampling["key-value cache"]


def test_a_sampler_with_weights_of_its_own_counts_and_may_sleep(qwen_7b: str) -> None:
    settings = ModelSection(path=qwen_7b, dtype="bfloat16", lora=LoraSection(enabled=True))
    weights = weighed(settings)
    alone = estimate_memory(weights, settings, replace(DEMAND, rows=0))
    awake = estimate_memory(weights, settings, replace(DEMAND, rows=0, sampler=SamplerMemory(cache_bytes=GIB)))
    assert awake.needed - alone.needed == weights.shape.parameters * 2 + GIB
    share = SamplerMemory(whole_bytes=30 * GIB, sleeps=True)
    asleep = estimate_memory(weights, settings, replace(DEMAND, rows=0, sampler=share))
    assert asleep.needed == sum(asleep.fixed.values()) + 30 * GIB
    assert sum(asleep.training.values()) == sum(alone.training.values())


def test_to_the_byte_it_is_let_in_or_refused_and_no_weights_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_tiny_llama(tmp_path)
    (folder / "model.safetensors").write_bytes(b"not to be read")
    settings = ModelSection(path=str(folder))
    needed = estimate_memory(weighed(settings), settings, DEMAND).needed
    monkeypatch.setattr(memory, "free_bytes", lambda _device: needed)
    passed = check_memory(settings, DEMAND)
    assert passed is not None
    assert passed.estimate.needed == passed.free == needed
    assert sum(passed.estimate.parts.values()) == needed
    monkeypatch.setattr(memory, "free_bytes", lambda _device: needed - 1)
    with pytest.raises(
        InputError, match=r"needs at least .* MiB \(weights .*\), and .* MiB of main memory are free: set"
    ):
        check_memory(settings, DEMAND)


def config_with(config: RunConfig, words: str) -> RunConfig:
    """The configuration with a setting in a refusal's own words."""
    name, _, value = words.partition(" = ")
    nested: Any = yaml.safe_load(value)
    for part in reversed(name.split(".")):
        nested = {part: nested}
    return validate_config(merge_settings(config.model_dump(), nested))


@pytest.mark.slow
@pytest.mark.parametrize("free_gib", [120, 37, 18, 15, 14])
def test_what_is_proposed_fits_and_nothing_less_does(
    qwen_7b: str, monkeypatch: pytest.MonkeyPatch, free_gib: float
) -> None:
    config = load_config("spark-7b", model__path=qwen_7b)
    settings, demand = config.model, memory_demand(config)
    free = int(free_gib * GIB)
    monkeypatch.setattr(memory, "free_bytes", lambda _device: free)
    # The numbers below are those of a processor without bfloat16 instructions, whatever runs the test.
    monkeypatch.setattr("spark_kernel.models.load.computes_in_bfloat16", lambda _device, _size: False)
    with pytest.raises(InputError, match=r"needs at least 150\.6 GiB") as refused:
        check_memory(settings, demand)
    known = cache(lambda lora, dtype: weighed(settings.model_copy(update={"lora": lora, "dtype": dtype})))
    found, least = proposals(known(settings.lora, settings.dtype), settings, demand, free)
    assert bool(found) == (least <= free) == (free_gib > 14.9)
    if not found:
        assert "choose a model of about 6.4B parameters at most" in str(refused.value)
    for changes, needed in found:
        assert " and ".join(change.words for change in changes) in str(refused.value)
        changed = config
        for change in changes:
            changed = config_with(changed, change.words)
        assert (changed.model, memory_demand(changed)) == apply(changes, settings, demand)
        passed = check_memory(changed.model, memory_demand(changed))
        assert passed is not None
        assert passed.estimate.needed == needed <= free
        for fewer in itertools.combinations(changes, len(changes) - 1):
            other, demanded = apply(fewer, settings, demand)
            assert estimate_memory(known(other.lora, other.dtype), other, demanded).needed > free


def test_the_largest_model_that_is_named_is_about_right(qwen_7b: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told that 6.4B parameters would do, the same model with 22 instead of 28 layers (6.2B) is let in."""
    config = json.loads((Path(qwen_7b) / "config.json").read_text())
    config |= {"num_hidden_layers": 22, "layer_types": ["full_attention"] * 22}
    monkeypatch.setattr(memory, "free_bytes", lambda _device: 14 * GIB)
    smaller = Path(qwen_7b).with_name("smaller")
    smaller.mkdir()
    (smaller / "config.json").write_text(json.dumps(config))
    settings = ModelSection(
        path=str(smaller), dtype="bfloat16", lora=LoraSection(enabled=True), gradient_checkpointing=True
    )
    passed = check_memory(settings, replace(DEMAND, optimizer="adamw_8bit", max_new_tokens=96))
    assert passed is not None
    assert 6.2e9 < passed.estimate.parameters < 6.4e9


def test_a_micro_batch_that_may_be_too_large_is_a_warning(qwen_7b: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ModelSection(path=qwen_7b, lora=LoraSection(enabled=True))
    monkeypatch.setattr(memory, "free_bytes", lambda _device: 60 * GIB)
    passed = check_memory(settings, replace(DEMAND, micro_batch_tokens=16_384))
    assert passed is not None
    (warning,) = passed.warnings
    fitting = int(warning.rstrip(".").rpartition(" ")[2])
    assert "learner.micro_batch_tokens = 16384 may take" in passed.line
    again = check_memory(settings, replace(DEMAND, micro_batch_tokens=fitting))
    assert again is not None
    assert again.warnings == ()
    more = check_memory(settings, replace(DEMAND, micro_batch_tokens=fitting + 256))
    assert more is not None
    assert len(more.warnings) == 1


def test_quantized_weights_are_not_estimated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_tiny_llama(tmp_path)
    monkeypatch.setattr(memory, "free_bytes", lambda _device: 0)
    with pytest.raises(InputError, match="needs at least"):
        check_memory(ModelSection(path=str(folder)), DEMAND)
    config = json.loads((folder / "config.json").read_text())
    quantized = config | {"quantization_config": {"quant_method": "fp8", "activation_scheme": "dynamic"}}
    (folder / "config.json").write_text(json.dumps(quantized))
    assert check_memory(ModelSection(path=str(folder)), DEMAND) is None


def test_targets_that_match_nothing_are_refused_before_the_weights(tmp_path: Path) -> None:
    folder = save_tiny_llama(tmp_path)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"match no module of this model; it has down_proj"):
        check_memory(
            ModelSection(path=str(folder), lora=LoraSection(enabled=True, target_modules=("nowhere",))), DEMAND
        )


def test_a_run_says_what_it_needs_and_a_refused_one_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(tmp_path / "parts", rounds=1, evaluation__every=0)
    with start_run(config, tmp_path / "run") as trainer:
        preflight = trainer.parts.preflight
        assert preflight is not None
        trainable = sum(p.numel() for _, p in trainer.parts.learner.policy.trainable)
        assert preflight.estimate.trainable == preflight.estimate.parameters == trainable
        trainer.train()
    started = [event for event in RunReader(tmp_path / "run").events() if event["event"] == "run_started"]
    assert [event["memory"] for event in started] == [preflight.line]
    monkeypatch.setattr(memory, "free_bytes", lambda _device: 1000)
    with pytest.raises(InputError, match="choose a model of about"):
        start_run(config, tmp_path / "refused")
    assert not (tmp_path / "refused").exists()


def test_vllm_in_this_process_asks_for_its_own_weights_and_cache(qwen_7b: str) -> None:
    ours = memory_demand(load_config("spark-7b", model__path=qwen_7b, model__device="cpu"))
    assert (ours.rows, ours.sampler) == (memory.LEAST_ROWS, None)
    config = load_config("spark-7b", model__device="cpu", rollout__engine="vllm", rollout__vllm__cache_gib=3)
    theirs = memory_demand(config)
    assert (theirs.rows, theirs.sampler) == (0, SamplerMemory(cache_bytes=3 * GIB))


def test_copies_of_files_do_not_count_against_a_control_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (
        ("CGROUP_LIMIT", f"{100 * 2**20}\n"),
        ("CGROUP_USED", f"{90 * 2**20}\n"),
        ("CGROUP_DETAILS", f"anon {30 * 2**20}\nactive_file {15 * 2**20}\ninactive_file {45 * 2**20}\nshmem 5\n"),
    ):
        (tmp_path / name).write_text(text)
        monkeypatch.setattr(memory, name, tmp_path / name)
    assert memory.free_bytes(torch.device("cpu")) == 70 * 2**20
    (tmp_path / "CGROUP_DETAILS").unlink()
    assert memory.free_bytes(torch.device("cpu")) == 10 * 2**20


@pytest.mark.gpu
def test_what_torch_keeps_of_a_gpu_for_later_counts_as_free(tiny: Path) -> None:
    device, size, slack = torch.device("cuda"), 2**29, 2**26
    torch.cuda.empty_cache()
    before = memory.free_bytes(device)
    block = torch.empty(size, dtype=torch.uint8, device=device)
    assert abs(before - memory.free_bytes(device) - size) < slack
    del block
    assert torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device) >= size
    assert abs(before - memory.free_bytes(device)) < slack
    passed = check_memory(ModelSection(path=str(tiny), device="cuda"), DEMAND)
    assert passed is not None
    assert passed.free <= torch.cuda.mem_get_info(device)[1]
    torch.cuda.empty_cache()
