"""Weights to servers over NCCL: vLLM's own trainer side against recorded servers, with a wire that only notes.

There is no GPU here: what goes over the wire, in which order and with which requests is shown; NCCL itself is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from spark_kernel.config import load_config
from spark_kernel.config.sections import LoraSection, ModelSection, ServerSection
from spark_kernel.errors import EngineError, InputError
from spark_kernel.models.policy import Policy, load_policy
from spark_kernel.rollout import vllm_server
from spark_kernel.rollout.make_engine import check_engine
from spark_kernel.rollout.vllm_endpoint import ServerUnavailableError, VllmEndpoint
from spark_kernel.rollout.vllm_server import VllmServerEngine
from spark_kernel.rollout.vllm_servers import connect
from spark_kernel.rollout.vllm_transfer import NcclTransfer
from tests.helpers.tiny_models import save_tiny_llama
from tests.helpers.vllm import synced
from tests.test_vllm_endpoints import INFO, KEY, Recorded

pytestmark = [pytest.mark.slow, pytest.mark.vllm]
STEPS = ["/start_weight_update", "/update_weights", "/finish_weight_update"]
CAN_TRANSFER = {"vllm_config": INFO["vllm_config"] | {"weight_transfer_config": {"backend": "nccl"}}}


class Group:
    """What vLLM holds of an open NCCL group."""

    def __init__(self, info: Any) -> None:
        self.info = info
        self.left = False

    def destroy(self) -> None:
        self.left = True


class Wire:
    """Stands in for NCCL: notes the groups that were opened and what was sent through them."""

    def __init__(self) -> None:
        self.groups: list[Group] = []
        self.sent: list[dict[str, torch.Tensor]] = []
        self.fails = False

    def open(self, info: Any) -> Group:
        self.groups.append(Group(info))
        return self.groups[-1]

    def broadcast(self, iterator: Iterator[Any], group: Group, src: int, post_iter_func: Any, **_: Any) -> None:
        assert not group.left
        assert src == 0
        if self.fails:
            raise RuntimeError("NCCL error: unhandled system error\n(run with NCCL_DEBUG=INFO)")
        items = list(iterator)
        self.sent.append({name: post_iter_func((name, tensor)).clone() for name, tensor in items})


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    from vllm.distributed.weight_transfer import nccl_engine

    wire = Wire()
    monkeypatch.setattr(nccl_engine, "open_trainer_endpoint", wire.open)
    monkeypatch.setattr(nccl_engine, "packed_nccl_broadcast_producer", wire.broadcast)
    return wire


@pytest.fixture
def server() -> Iterator[Recorded]:
    server = Recorded()
    server.answers |= {
        "/server_info": CAN_TRANSFER,
        "/weight_info": {"weight_version": "default"},
        "/get_world_size": {"world_size": 2},
        "/init_weight_transfer_engine": {},
        "/reset_prefix_cache": {}, "/reset_mm_cache": {}, "/reset_encoder_cache": {}, "/update_weight_version": {},
        **{step: {} for step in STEPS},
    }  # fmt: skip
    yield server
    server.close()


@pytest.fixture
def endpoint(server: Recorded) -> Iterator[VllmEndpoint]:
    endpoint = VllmEndpoint(server.url, KEY, 10.0, 4)
    yield endpoint
    endpoint.close()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny_llama(folder)
    return folder


class Pushed:
    """A policy's full tensors, as the engine gives them."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def described(self) -> list[tuple[str, tuple[int, ...]]]:
        return list(self._policy.shapes().items())

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return self._policy.named_tensors()


def bodies(server: Recorded, path: str) -> list[Any]:
    return [body for where, body in server.bodies if where == path]


@pytest.mark.parametrize("lora", [False, True], ids=["full", "adapter-merged"])
def test_every_transfer_sends_the_weights_as_they_are_then(
    wire: Wire, server: Recorded, endpoint: VllmEndpoint, tiny: Path, lora: bool
) -> None:
    policy = load_policy(ModelSection(path=str(tiny), lora=LoraSection(enabled=lora, rank=2)))
    transfer = NcclTransfer(endpoint, Pushed(policy), "bfloat16", "10.0.0.5")
    (init,) = bodies(server, "/init_weight_transfer_engine")
    group = wire.groups[0]
    assert init["init_info"]["master_address"] == group.info.master_address == "10.0.0.5"
    assert init["init_info"]["master_port"] == group.info.master_port
    # This process is rank 0 of three, the server's two workers follow.
    assert (group.info.world_size, init["init_info"]["world_size"], init["init_info"]["rank_offset"]) == (3, 3, 1)

    expected = []
    for _ in range(2):
        transfer.send()
        expected.append({name: tensor.bfloat16() for name, tensor in policy.named_tensors(merged=True)})
        with torch.no_grad():
            for _, parameter in policy.trainable:
                parameter.add_(0.5)
    assert [path for path, _ in server.bodies if path in STEPS] == 2 * STEPS
    for sent, wanted, announced in zip(wire.sent, expected, bodies(server, "/update_weights"), strict=True):
        info = announced["update_info"]
        assert info["names"] == list(sent)
        assert info["shapes"] == [list(tensor.shape) for tensor in sent.values()]
        assert set(info["dtype_names"]) == {"bfloat16"}
        assert sent.keys() == wanted.keys()
        assert all(torch.equal(sent[name], wanted[name]) for name in wanted)
    assert any(not torch.equal(wire.sent[0][name], wire.sent[1][name]) for name in expected[0])
    assert {key for _, key in server.asked} == {f"Bearer {KEY}"}
    transfer.close()
    transfer.close()
    assert group.left


def test_what_fails_is_the_servers_failure_in_one_line(
    wire: Wire, server: Recorded, endpoint: VllmEndpoint, tiny: Path
) -> None:
    transfer = NcclTransfer(endpoint, Pushed(load_policy(ModelSection(path=str(tiny)))), "float32", "10.0.0.5")
    server.answers["/update_weights"] = (500, {"error": "out of memory"}, {})
    with pytest.raises(ServerUnavailableError, match="out of memory"):
        transfer.send()
    server.answers["/update_weights"] = {}
    wire.fails = True
    with pytest.raises(
        ServerUnavailableError, match=r"got no whole transfer over NCCL .*unhandled system error"
    ) as found:
        transfer.send()
    assert "\n" not in str(found.value)
    server.answers["/init_weight_transfer_engine"] = (500, {"error": "no such backend"}, {})
    with pytest.raises(ServerUnavailableError, match="no such backend"):
        NcclTransfer(endpoint, Pushed(load_policy(ModelSection(path=str(tiny)))), "float32", "10.0.0.5")


class Noted:
    """A transfer of which only its use is noted."""

    def __init__(self, endpoint: VllmEndpoint, tensors: Any, dtype: str, address: str | None) -> None:
        self.used = [dtype, address]
        self.sends: list[dict[str, Any]] = []
        self.fails = self.closed = False
        self._tensors, self.url = tensors, endpoint.url

    def send(self) -> None:
        if self.fails:
            raise ServerUnavailableError(f"The vLLM server at {self.url} broke off")
        self.sends.append({name: tensor.clone() for name, tensor in self._tensors})

    def close(self) -> None:
        self.closed = True


def test_the_engine_keeps_one_way_to_a_server_and_opens_a_new_one_after_a_failure(
    server: Recorded, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways: list[Noted] = []
    monkeypatch.setattr(vllm_server, "NcclTransfer", lambda *given: ways.append(Noted(*given)) or ways[-1])
    monkeypatch.setattr(vllm_server, "check_taken", lambda *_, **__: None)  # the server samples nothing real
    monkeypatch.setattr(vllm_server, "difference", lambda *_: 0.0)
    policy = load_policy(ModelSection(path=str(tiny)))
    section = ServerSection(urls=(server.url,), timeout_seconds=5, transfer="nccl", transfer_address="10.0.0.5")
    engine = VllmServerEngine(policy.encoder, policy, section, device="cuda", dtype="float32", context=400, api_key=KEY)
    synced(engine, policy)
    assert [(way.used, len(way.sends)) for way in ways] == [(["float32", "10.0.0.5"], 2)]
    assert "/collective_rpc" not in [path for path, _ in server.asked]  # no folder was read
    versions = [body["new_version"] for body in bodies(server, "/update_weight_version")]
    assert len(set(versions)) == 2
    ways[0].fails = True
    with pytest.raises(EngineError, match="No vLLM server is left"):
        synced(engine, policy)
    assert ways[0].closed
    synced(engine, policy)  # it is back
    assert [len(way.sends) for way in ways] == [2, 1]
    engine.close()
    assert ways[1].closed


@pytest.mark.parametrize(
    ("config", "device", "sentence"),
    [
        (CAN_TRANSFER, "cpu", 'goes from GPU to GPU, and training is on cpu: use "folder"'),
        (INFO, "cuda", "has no weight transfer: start it with --weight-transfer-config"),
        (
            {"vllm_config": INFO["vllm_config"] | {"weight_transfer_config": {"backend": "ipc"}}},
            "cuda",
            "has weight transfer by ipc: start it with",
        ),
    ],
    ids=["no-gpu", "not-configured", "another-backend"],
)
def test_what_cannot_work_is_refused_before_a_model_is_loaded(
    server: Recorded, endpoint: VllmEndpoint, config: Any, device: str, sentence: str
) -> None:
    server.answers["/server_info"] = config
    with pytest.raises(InputError, match=sentence):
        connect(ServerSection(urls=(server.url,), transfer="nccl"), endpoint, device=device)


def test_the_transfer_is_one_of_two(server: Recorded) -> None:
    section = {"urls": [server.url], "transfer": "nccl", "transfer_address": "10.0.0.5"}
    config = load_config("quickstart", rollout={"engine": "vllm-server", "server": section}, model={"device": "cpu"})
    with pytest.raises(InputError, match="goes from GPU to GPU, and training is on cpu"):
        check_engine(config)
    with pytest.raises(InputError, match=r"folder.*nccl"):
        load_config("quickstart", rollout={"server": {"transfer": "rdma"}})
