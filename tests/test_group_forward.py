"""The group forward as one module: everything that touches a parameter goes through it, and it can be sharded."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

import spark_kernel
from spark_kernel.config.sections import LoraSection, ModelSection
from spark_kernel.models.group_forward import GroupForward
from spark_kernel.models.policy import Policy, load_policy
from spark_kernel.models.prefix_form import BATCHES, PrefixForm
from spark_kernel.prompts.prompt import Prompt
from spark_kernel.records import Message, Period
from tests.helpers.objective_reference import objective_of
from tests.helpers.tiny_models import save_tiny_architecture, save_tiny_llama
from tests.test_learner import make_learner, some_groups

LORA = LoraSection(enabled=True, rank=4)
PROMPTS = [
    Prompt(f"t{i}", (Message.of("user", text),), ()) for i, text in enumerate(["one?", "a longer question", "x", "yz"])
]
OUTPUTS = [[list(range(5, 17)), [7]], [[20, 21], [22, 23, 24]], [[9] * 20, [8, 9]], [[11], [12, 13, 14, 15]]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same shape with input and output embeddings tied, and apart."""
    root = tmp_path_factory.mktemp("models")
    tied = save_tiny_llama(root / "tied")
    apart = save_tiny_architecture(root / "apart", "llama")
    return {"tied": tied, "apart": apart}


def policy_of(folder: Path, lora: LoraSection = LoraSection()) -> Policy:
    policy = load_policy(ModelSection(path=str(folder), dtype="float32", device="cpu", lora=lora))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in policy.trainable:
            if "lora_B" in name:  # an adapter that does nothing would prove nothing
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return policy


def run(
    policy: Policy, form: PrefixForm, groups: slice = slice(None), scale: float = 1.0
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Log-probabilities, and the whole gradient of their sum, by the module's own call."""
    batch = BATCHES[form](policy.encoder, PROMPTS[groups], OUTPUTS[groups], policy.device)
    with policy.recomputing():
        logprobs, _ = policy.group_forward(batch, 0.9)
        (scale * logprobs.sum()).backward()
    return logprobs.detach(), {name: whole(p.grad) for name, p in policy.trainable if p.grad is not None}


def whole(gradient: Any) -> torch.Tensor:
    """A gradient gathered from all ranks, where it is sharded."""
    return (gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient).clone()


def shard(policy: Policy, ranks: int) -> None:
    """As a cluster would: every layer, and then the module that holds the rest."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (ranks,))
    for layer in policy.network.base_model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(policy.group_forward, mesh=mesh)


@pytest.fixture
def one_rank() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def assert_equal_gradients(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5 * float(gradient.abs().max()), rtol=0)


CASES = [
    ("tied", PrefixForm.CACHED, LoraSection()),
    ("tied", PrefixForm.BLOCK, LoraSection()),
    ("apart", PrefixForm.CACHED, LoraSection()),
    ("tied", PrefixForm.PADDED, LORA),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "form", "lora"), CASES, ids=["tied", "block", "apart", "lora-padded"])
@pytest.mark.usefixtures("one_rank")
def test_sharded_it_computes_the_same(folders: dict[str, Path], name: str, form: PrefixForm, lora: LoraSection) -> None:
    policies = [policy_of(folders[name], lora) for _ in range(2)]
    for policy in policies:
        if form is PrefixForm.BLOCK:
            policy.checkpoint_gradients()
    shard(policies[1], 1)
    (expected, wanted), (found, gradients) = (run(policy, form) for policy in policies)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert_equal_gradients(gradients, wanted)


@pytest.mark.usefixtures("one_rank")
def test_a_pass_that_goes_around_the_module_meets_parameters_that_are_not_gathered(folders: dict[str, Path]) -> None:
    """Negative control: what `hidden` alone does on a sharded model, which is why nobody else may call it."""
    policy = policy_of(folders["tied"])
    shard(policy, 1)
    batch = BATCHES[PrefixForm.CACHED](policy.encoder, PROMPTS, OUTPUTS, policy.device)
    with pytest.raises(RuntimeError, match="DTensor"):
        batch.hidden(policy.network)


def rank_of_two(rank: int, folder: str, port: int, found: Any) -> None:
    """Half of the groups each; the gradient is the mean over ranks, so the sum is scaled by two."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    policy = policy_of(Path(folder))
    shard(policy, 2)
    logprobs, gradients = run(policy, PrefixForm.CACHED, slice(2 * rank, 2 * rank + 2), scale=2.0)
    found[rank] = (logprobs.tolist(), {name: gradient.tolist() for name, gradient in gradients.items()})
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_with_half_of_the_groups_each_are_as_one_with_all(folders: dict[str, Path]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = mp.get_context("spawn")
    found = context.Manager().dict()
    mp.spawn(rank_of_two, (str(folders["tied"]), port, found), nprocs=2)
    expected, wanted = run(policy_of(folders["tied"]), PrefixForm.CACHED)
    together = torch.tensor(found[0][0] + found[1][0])
    torch.testing.assert_close(together, expected, atol=1e-5, rtol=0)
    for rank in (0, 1):
        assert_equal_gradients({name: torch.tensor(rows) for name, rows in found[rank][1].items()}, wanted)


@pytest.mark.parametrize("lora", [LoraSection(), LORA], ids=["full", "lora"])
def test_every_training_and_scoring_pass_goes_through_the_module(
    folders: dict[str, Path], lora: LoraSection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several optimizer steps with old log-probabilities and a KL term, then scores: every way a pass is made."""
    inside: list[GroupForward] = []
    passes: list[bool] = []
    original = GroupForward.forward

    def watched(self: GroupForward, *given: Any) -> Any:
        inside.append(self)
        try:
            return original(self, *given)
        finally:
            inside.pop()

    monkeypatch.setattr(GroupForward, "forward", watched)
    learner = make_learner(folders["tied"], objective_of(beta=0.1), lora, epochs=2, minibatch_sequences=3)
    copies = [] if learner._reference is None else [learner._reference.network]
    assert len(copies) == (0 if lora.enabled else 1)
    for network in (learner.policy.network, *copies):
        network.base_model.register_forward_pre_hook(lambda *_: passes.append(bool(inside)))
    learner.update(some_groups(), period=Period.POLICY, round=1)
    trained = len(passes)
    learner.policy.score(PROMPTS, OUTPUTS)
    assert trained > 10
    assert len(passes) > trained
    assert all(passes)


def test_nothing_but_the_module_and_the_sampler_runs_trunk_or_head() -> None:
    """Which files of the kernel call the trunk, run a batch by hand, or ask for the output head."""
    root = Path(spark_kernel.__file__).parent
    sources = {str(path.relative_to(root)): path.read_text(encoding="utf-8") for path in root.rglob("*.py")}

    def files(pattern: str) -> set[str]:
        return {name for name, text in sources.items() if re.search(pattern, text)}

    assert files(r"\.base_model\(") == {
        "models/group_batches.py",
        "models/block_mask.py",
        "models/packed.py",
        "rollout/decoding.py",
        "rollout/slot_decoding.py",
    }
    assert files(r"\.hidden\(") == {"models/group_forward.py"}
    assert files(r"import .*output_projection") == {
        "models/group_forward.py",
        "rollout/decoding.py",
        "rollout/slot_decoding.py",
    }
