"""Weights as they are published: in the form that was asked for, and plain data unless it is this process's memory."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load
from transformers import AutoModelForCausalLM

from spark_kernel.config.sections import LoraSection, ModelSection
from spark_kernel.errors import ModelError, StaleEngineError
from spark_kernel.models import publishing
from spark_kernel.models.policy import Policy, load_policy
from spark_kernel.models.published_weights import AdapterBytes, Form, InMemory, Probe, Wanted, WeightFolder
from spark_kernel.prompts.prompt import Prompt
from spark_kernel.records import Message
from spark_kernel.rollout.sync_check import check_taken
from tests.helpers.tiny_models import save_tiny_llama
from tests.helpers.vllm import Tampered
from tests.test_architecture import imported, reached

PROBE = Probe(Prompt("probe", (Message.of("user", "one?"),), ()), (5, 6, 7))
ALL = (Form.ADAPTER, Form.FOLDER, Form.MEMORY)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("model"))


def policy_of(model: Path, **lora: Any) -> Policy:
    policy = load_policy(ModelSection(path=str(model), lora=LoraSection(enabled=bool(lora), rank=2, **lora)))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _, parameter in policy.trainable:
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return policy


def stored(folder: Path) -> dict[str, torch.Tensor]:
    return dict(AutoModelForCausalLM.from_pretrained(folder).state_dict())


def assert_same(found: dict[str, torch.Tensor], expected: Iterator[tuple[str, torch.Tensor]]) -> None:
    wanted = dict(expected)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())


def test_the_first_form_that_can_be_had_is_taken(model: Path, tmp_path: Path) -> None:
    full, adapted = policy_of(model), policy_of(model, rslora=True)
    assert isinstance(full.publish().way, InMemory)
    assert isinstance(full.publish(Wanted(ALL)).way, InMemory)  # no adapter, and no folder named
    assert isinstance(full.publish(Wanted(ALL, folder=tmp_path)).way, WeightFolder)
    assert isinstance(adapted.publish(Wanted(ALL, folder=tmp_path)).way, AdapterBytes)
    refused = Wanted(ALL, folder=tmp_path, refused=("use_dora", "use_rslora"))
    assert isinstance(adapted.publish(refused).way, WeightFolder)
    with pytest.raises(ModelError, match=r"version 0 cannot be published as adapter or folder: .* ask for memory too"):
        full.publish(Wanted((Form.ADAPTER, Form.FOLDER)))
    full.begin_update()
    with pytest.raises(StaleEngineError, match="mid-update"):
        full.publish()


@pytest.mark.parametrize("shard_bytes", [publishing.SHARD_BYTES, 20_000])
def test_a_folder_holds_the_merged_weights_and_a_base_the_unmerged_ones(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard_bytes: int
) -> None:
    monkeypatch.setattr(publishing, "SHARD_BYTES", shard_bytes)
    policy = policy_of(model, rslora=True)
    whole = policy.publish(Wanted((Form.FOLDER,), folder=tmp_path))
    assert whole.folders() == [whole.way.path]
    assert (len(list(whole.way.path.glob("*.safetensors"))) == 1) is (shard_bytes > 20_000)
    assert_same(stored(whole.way.path), policy.named_tensors(merged=True))
    part = policy.publish(Wanted((Form.ADAPTER,), folder=tmp_path, base=True))
    assert part.folders() == [part.way.base]
    assert_same(stored(part.way.base), policy.named_tensors(merged=False))
    assert load(part.way.tensors).keys() == policy.adapter().tensors.keys()
    assert {folder.stat().st_mode & 0o777 for folder in tmp_path.iterdir()} == {0o755}  # read by another user
    assert policy.publish(Wanted((Form.ADAPTER,), folder=tmp_path)).folders() == []


def test_what_is_not_in_memory_can_go_to_another_process(model: Path, tmp_path: Path) -> None:
    policy = policy_of(model, rslora=True)
    for form in (Form.ADAPTER, Form.FOLDER):
        published = policy.publish(Wanted((form,), PROBE, tmp_path))
        assert len(pickle.dumps(published)) < 100_000
        assert pickle.loads(pickle.dumps(published)) == published
        assert published.scored.logprobs == tuple(policy.score([PROBE.prompt], [[PROBE.output]])[0][0])
        assert published.shapes == {name: tuple(t.shape) for name, t in policy.named_tensors()}


def test_the_description_is_read_without_torch() -> None:
    modules = reached({"spark_kernel.models.published_weights"}, later=True)
    needed = {name.split(".")[0] for module in modules for name in imported(module, later=True)}
    assert not needed & {"torch", "transformers", "safetensors", "peft", "pydantic"}


@pytest.mark.parametrize("change", ["shape", "interrupt"])
def test_a_folder_is_written_whole_or_not_at_all(model: Path, tmp_path: Path, change: str) -> None:
    tampered = Tampered(policy_of(model), change)
    with pytest.raises((ModelError, KeyboardInterrupt), match="has shape" if change == "shape" else ""):
        tampered.publish(Wanted((Form.FOLDER,), folder=tmp_path))
    assert tampered.pushed
    assert list(tmp_path.iterdir()) == []


def test_weights_without_the_probe_that_was_asked_for_are_refused(model: Path) -> None:
    """And a sampler is compared with the learner's figures of the version that was published, not of now."""
    policy, scorer = policy_of(model), policy_of(model)
    with pytest.raises(StaleEngineError, match="published without log-probabilities to check it by"):
        check_taken(scorer, policy.publish(), "float32", who="it", pushed="all")
    published = policy.publish(Wanted(probe=PROBE))
    with torch.no_grad():
        for _, parameter in policy.trainable:
            parameter.add_(0.2)
    check_taken(scorer, published, "float32", who="it", pushed="all")
    with pytest.raises(StaleEngineError, match=r"differ from the learner's by .* over 3 tokens of probe"):
        check_taken(policy, published, "float32", who="it", pushed="all")
