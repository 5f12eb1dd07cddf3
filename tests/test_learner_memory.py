"""What the learner holds in memory: the batch plan, 8-bit moments, recomputed activations, precision."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from spark_kernel.config.sections import LearnerSection, LoraSection, ModelSection
from spark_kernel.errors import InputError, NonFiniteError, Stopped
from spark_kernel.learner import optimizers
from spark_kernel.learner.torch_learner import TorchLearner
from spark_kernel.models import memory
from spark_kernel.models.memory import ModelShape
from spark_kernel.models.policy import load_policy
from spark_kernel.records import Period
from spark_kernel.runs.reader import RunReader
from spark_kernel.training import assembly
from spark_kernel.training.lifecycle import fork_run, resume_run, start_run
from tests.helpers.objective_reference import objective_of
from tests.helpers.runs import tiny_config
from tests.helpers.tiny_models import save_tiny_llama
from tests.test_learner import captured_gradient, largest_difference, make_learner, some_groups

SETTINGS = LearnerSection(learning_rate=1e-2, minibatch_sequences=3)
SHAPES = st.builds(
    ModelShape,
    layers=st.integers(1, 80),
    hidden=st.integers(32, 8192),
    intermediate=st.integers(64, 30_000),
    kv_size=st.integers(16, 8192),
    vocabulary=st.integers(100, 200_000),
    parameters=st.integers(10**4, 10**11),
    trainable=st.integers(10**3, 10**10),
    bytes_per_weight=st.sampled_from([2, 4]),
    bytes_per_activation=st.sampled_from([2, 4]),
)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("model"))


@given(SHAPES, st.integers(0, 2**38), st.integers(0, 2**36), st.sampled_from(["cpu", "cuda"]))
def test_more_memory_never_plans_less(shape: ModelShape, free: int, more: int, device: str) -> None:
    per_token = memory.training_bytes_per_token(shape, samples=8, checkpointing=False)
    saved = memory.training_bytes_per_token(shape, samples=8, checkpointing=True)
    fixed = memory.head_bytes(shape, device)
    small = memory.plan_micro_batch_tokens(free, per_token, fixed, device)
    assert memory.LEAST_TOKENS <= small <= memory.plan_micro_batch_tokens(free + more, per_token, fixed, device)
    assert small % 256 == 0
    assert saved <= per_token or shape.layers == 1
    if small > memory.LEAST_TOKENS:
        assert small * per_token + fixed <= free
    rows = memory.plan_decode_rows(free, memory.decoding_bytes_per_row(shape, tokens=512), device)
    assert memory.LEAST_ROWS <= rows <= memory.MOST_ROWS[device]


def test_the_shape_is_that_of_the_network(model_folder: Path) -> None:
    policy = load_policy(ModelSection(path=str(model_folder), lora=LoraSection(enabled=True, rank=4)))
    shape = memory.shape_of(policy.network, autocast=True)
    assert (shape.layers, shape.hidden, shape.intermediate, shape.kv_size) == (2, 32, 64, 16)
    assert shape.trainable == sum(p.numel() for _, p in policy.trainable) < shape.parameters
    assert (shape.bytes_per_weight, shape.bytes_per_activation) == (4, 2)
    full = memory.training_state_bytes(shape, optimizer_bytes=8, reference_copy=True)
    assert full == shape.trainable * 12 + shape.parameters * 4


MEASURE = """
import json, re, torch
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM
from spark_kernel.models import memory
torch.set_num_threads(1)
def peak():  # of this process alone: ru_maxrss would be the parent's too
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
network = LlamaForCausalLM(LlamaConfig(vocab_size=64, hidden_size=256, intermediate_size=704, num_hidden_layers=6,
    num_attention_heads=4, num_key_value_heads=2))
network(input_ids=torch.zeros(1, 8, dtype=torch.long)).logits.sum().backward()
before = peak()
tokens = 4096
network(input_ids=torch.zeros(16, tokens // 16, dtype=torch.long)).logits.sum().backward()
grown = peak() - before
shape = memory.shape_of(network, autocast=False)
print(json.dumps([grown, tokens * memory.training_bytes_per_token(shape, samples=0, checkpointing=False)]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of memory where Linux shows it")
def test_the_estimate_is_near_what_a_pass_takes() -> None:
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True)
    measured, estimated = json.loads(done.stdout)
    assert 0.5 < estimated / measured < 2.0


@pytest.mark.slow
def test_the_plan_is_made_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much memory there is when the run is resumed or forked, it is cut as it was when it began."""
    config = tiny_config(tmp_path, learner__micro_batch_tokens=None, rollout__batch_size=None, rounds=1)
    monkeypatch.setattr(memory, "free_bytes", lambda _device: 266 * 2**20)
    with start_run(config, tmp_path / "run") as trainer:
        planned = trainer.config.learner.micro_batch_tokens, trainer.config.rollout.batch_size
        assert trainer.parts.learner.settings.micro_batch_tokens == planned[0]
        trainer.train()
    stored = yaml.safe_load(RunReader(tmp_path / "run").config_yaml)
    assert (stored["learner"]["micro_batch_tokens"], stored["rollout"]["batch_size"]) == planned
    assert planned[0] is not None
    assert memory.LEAST_TOKENS < planned[0] < memory.MOST_TOKENS["cpu"]
    monkeypatch.setattr(memory, "free_bytes", lambda _device: 16 * 2**20)
    with resume_run(tmp_path / "run") as trainer:
        assert trainer.parts.learner.settings.micro_batch_tokens == planned[0]
    with fork_run(tmp_path / "run", 1, tmp_path / "fork") as trainer:
        assert (trainer.config.learner.micro_batch_tokens, trainer.config.rollout.batch_size) == planned
    with start_run(config, tmp_path / "other") as trainer:
        assert trainer.config.learner.micro_batch_tokens == memory.LEAST_TOKENS


def make_8bit(folder: Path) -> TorchLearner:
    policy = load_policy(ModelSection(path=str(folder)))
    settings = SETTINGS.model_copy(update={"optimizer": "adamw_8bit"})
    return TorchLearner(policy, objective_of(), settings, horizon_steps=10, images_root=Path())


@pytest.fixture(scope="module")
def wide_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """bitsandbytes keeps tensors below 4,096 values in full precision, so the model must have larger ones."""
    return save_tiny_llama(tmp_path_factory.mktemp("wide"), layers=1)


def test_8_bit_moments_are_8_bits_and_survive_a_checkpoint_in_mid_update(wide_folder: Path, tmp_path: Path) -> None:
    straight = make_8bit(wide_folder)
    straight.update(some_groups(), period=Period.POLICY, round=1)
    kinds = {v.dtype for state in straight.optimizer.state.values() for v in state.values() if torch.is_tensor(v)}
    assert torch.uint8 in kinds
    stopped = make_8bit(wide_folder)
    checks = 0

    def check() -> None:
        nonlocal checks
        checks += 1
        if checks == 6:
            raise Stopped

    with pytest.raises(Stopped):
        stopped.update(some_groups(), period=Period.POLICY, round=1, check_stop=check)
    assert stopped.steps_taken > 0
    stopped.save(tmp_path)
    resumed = make_8bit(wide_folder)
    resumed.load(tmp_path)
    resumed.update(some_groups(), period=Period.POLICY, round=1)
    assert resumed.steps_taken == straight.steps_taken == 3
    for (name, a), (_, b) in zip(straight.policy.trainable, resumed.policy.trainable, strict=True):
        assert torch.equal(a, b), name
        for key, value in straight.optimizer.state[a].items():
            other = resumed.optimizer.state[b][key]
            assert torch.equal(value, other) if torch.is_tensor(value) else value == other, (name, key)


def test_8_bits_without_bitsandbytes_is_a_sentence_before_a_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    config = tiny_config(tmp_path, learner__optimizer="adamw_8bit", model__path=str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"needs bitsandbytes, which is not installed: pip install"):
        assembly.assemble(config, images_root=tmp_path)
    with pytest.raises(InputError, match=r"learner\.optimizer = 'sgd' is unknown: adamw, adamw_8bit"):
        optimizers.make_optimizer([], SETTINGS.model_copy(update={"optimizer": "sgd"}), torch.device("cpu"))


@pytest.mark.parametrize("optimizer", ["adamw", "adamw_8bit"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_gradient_stops_the_step_and_changes_nothing(model_folder: Path, optimizer: str, bad: float) -> None:
    """A finite loss whose gradient is not; after a good step, so that the optimizer has state to lose."""
    policy = load_policy(ModelSection(path=str(model_folder)))
    settings = SETTINGS.model_copy(update={"optimizer": optimizer, "minibatch_sequences": None})
    learner = TorchLearner(policy, objective_of(), settings, horizon_steps=10, images_root=Path())
    learner.update(some_groups(), period=Period.POLICY, round=1)

    def contents() -> list[Any]:
        states = [learner.optimizer.state[p] for _, p in policy.trainable]
        return [p.detach().clone() for _, p in policy.trainable] + [
            v.clone() if torch.is_tensor(v) else v for state in states for _, v in sorted(state.items())
        ]

    before, steps = contents(), learner.steps_taken
    weight = policy.trainable[3][1]
    hook = weight.register_hook(lambda gradient: gradient * bad)
    with pytest.raises(NonFiniteError, match=r"gradient is not finite.*Rollouts involved: .*[abc]#0"):
        learner.update(some_groups(), period=Period.POLICY, round=2)
    hook.remove()
    for old, new in zip(before, contents(), strict=True):
        assert torch.equal(old, new) if torch.is_tensor(old) else old == new
    assert (learner.steps_taken, policy.version) == (steps, 1)
    assert all(p.grad is None for _, p in policy.trainable)
    learner.update(some_groups(), period=Period.POLICY, round=2)
    assert policy.version == 2


@pytest.mark.parametrize(
    "lora",
    [LoraSection(), LoraSection(enabled=True, rank=4), LoraSection(enabled=True, rank=4, dora=True, rslora=True)],
)
def test_checkpointed_gradients_are_the_same_and_the_report_says_how(model_folder: Path, lora: LoraSection) -> None:
    plain = make_learner(model_folder, lora=lora, max_grad_norm=1e9)
    policy = load_policy(ModelSection(path=str(model_folder), lora=lora))
    policy.checkpoint_gradients()
    saving = TorchLearner(policy, objective_of(), plain.settings, horizon_steps=10, images_root=Path())
    seen: dict[str, Any] = {}
    expected = captured_gradient(plain, some_groups())
    original = saving.update

    def reporting(*args: Any, **kwargs: Any) -> Any:
        seen["stats"], exclusions = original(*args, **kwargs)
        return seen["stats"], exclusions

    saving.update = reporting  # type: ignore[method-assign]
    assert largest_difference(expected, captured_gradient(saving, some_groups())) < 1e-5
    assert "block mask" in seen["stats"].notes[0]
    assert not policy.network.training


def test_bfloat16_weights_train_near_float32_ones(model_folder: Path) -> None:
    gradients = []
    for dtype in ("float32", "bfloat16"):
        policy = load_policy(ModelSection(path=str(model_folder), dtype=dtype))
        settings = SETTINGS.model_copy(update={"minibatch_sequences": None, "max_grad_norm": 1e9})
        learner = TorchLearner(policy, objective_of(), settings, horizon_steps=10, images_root=Path())
        assert policy.trainable[0][1].dtype == getattr(torch, dtype)
        found = captured_gradient(learner, some_groups())
        gradients.append(torch.cat([g.float().flatten() for g in found.values()]))
    cosine = torch.nn.functional.cosine_similarity(gradients[0], gradients[1], dim=0)
    assert float(cosine) > 0.98
