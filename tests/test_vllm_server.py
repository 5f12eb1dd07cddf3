"""The engine for vLLM servers, against real servers: what is sampled, pushed, spread, left out and brought back."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from spark_kernel.config.sections import LoraSection, ModelSection, ServerSection
from spark_kernel.errors import EngineError, InputError, ModelError, StaleEngineError, Stopped
from spark_kernel.models.policy import Policy, load_policy
from spark_kernel.prompts.prompt import Prompt
from spark_kernel.records import Message
from spark_kernel.rollout.engine import Sampling
from spark_kernel.rollout.vllm_server import VllmServerEngine
from tests.helpers.tiny_models import save_tiny_idefics3, save_tiny_llama
from tests.helpers.vllm import (
    QUESTION,
    Tampered,
    assert_ends_are_marked,
    assert_greedy_as_transformers,
    assert_images_as_learner,
    assert_seeds_decide,
    image_prompts,
    killed_and_resumed,
    largest_difference,
    moved,
    prompts,
    synced,
)
from tests.helpers.vllm_servers import API_KEY, LORA, VllmServer, start_together

pytestmark = [pytest.mark.vllm, pytest.mark.slow]
CONTEXT = 400


@pytest.fixture(scope="module")
def policy() -> Policy:
    return load_policy(ModelSection(path="builtin:starter"))


@pytest.fixture(scope="module")
def servers(policy: Policy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[VllmServer]]:
    """Two servers of the starter; the first takes adapters."""
    folder = tmp_path_factory.mktemp("servers")
    policy.save(folder / "model")
    started = start_together(folder / "model", folder, [LORA, []])
    yield started
    for server in started:
        server.stop()


@pytest.fixture(scope="module")
def section(servers: list[VllmServer]) -> ServerSection:
    return ServerSection(urls=tuple(server.url for server in servers), timeout_seconds=120)


def make_engine(policy: Any, section: ServerSection, **changes: Any) -> VllmServerEngine:
    given = {"device": "cpu", "dtype": "float32", "context": CONTEXT, "api_key": API_KEY} | changes
    return VllmServerEngine(policy.encoder, policy, section, **given)


@pytest.fixture
def remarks() -> list[str]:
    return []


@pytest.fixture
def engine(policy: Policy, section: ServerSection, remarks: list[str]) -> Iterator[VllmServerEngine]:
    made = make_engine(policy, section, remark=remarks.append)
    yield made
    made.close()


# First, while the servers hold what they were started with.
def test_a_server_of_another_model_is_refused_before_anything_is_pushed_to_it(
    servers: list[VllmServer], section: ServerSection, policy: Policy, tmp_path: Path
) -> None:
    other = load_policy(ModelSection(path=str(save_tiny_llama(tmp_path / "other"))))
    with pytest.raises(InputError, match=r"serves another model than .*other \(.*\): start it with that model"):
        make_engine(other, section)
    changed = load_policy(ModelSection(path="builtin:starter"))
    moved(changed)
    changed.finish_update(0)
    with pytest.raises(InputError, match=r"another model than .* by .* nats per token"):
        make_engine(changed, section)
    for server in servers:
        make_engine(policy, section.model_copy(update={"urls": (server.url,)})).close()  # it is unharmed
    with pytest.raises(InputError, match="weights of another model were pushed to it"):
        make_engine(other, section)


def test_greedy_outputs_are_the_learners_and_prompts_take_turns(
    engine: VllmServerEngine, policy: Policy, servers: list[VllmServer]
) -> None:
    before = [server.metric("vllm:request_success_total") for server in servers]
    assert_greedy_as_transformers(engine, policy, 5)
    after = [server.metric("vllm:request_success_total") for server in servers]
    assert [b - a for a, b in zip(before, after, strict=True)] == [3, 2]


def test_an_output_depends_on_its_seed_and_not_on_server_or_neighbours(engine: VllmServerEngine) -> None:
    assert_seeds_decide(engine, 4)  # the other order has each prompt on the other server


def test_logprobs_are_those_of_the_sampled_distribution_and_outputs_say_how_they_ended(
    engine: VllmServerEngine, policy: Policy
) -> None:
    asked = Prompt("ends", (Message.of("user", QUESTION),), tuple(range(60)))
    completions = engine.sample([asked], Sampling(24, temperature=0.8))[0]
    prefix = list(policy.encoder.prompt_ids(asked))
    assert_ends_are_marked(completions, policy.encoder.eos_ids)
    for completion in completions:
        ids = torch.tensor([prefix + list(completion.token_ids)])
        with torch.no_grad():
            logits = policy.network(ids).logits[0, len(prefix) - 1 : -1] / 0.8
        expected = logits.log_softmax(-1).gather(-1, ids[0, len(prefix) :, None])[:, 0]
        torch.testing.assert_close(torch.tensor(completion.logprobs), expected, atol=1e-3, rtol=0)


def test_full_weights_are_pushed_to_every_server_and_checked(
    engine: VllmServerEngine, servers: list[VllmServer], remarks: list[str]
) -> None:
    policy = load_policy(ModelSection(path="builtin:starter"))
    synced(engine, policy)
    for version in (1, 2):
        moved(policy)
        assert largest_difference(engine, policy) > 0.1  # what a missing sync looks like
        synced(engine, policy)
        assert engine.version == version
        assert largest_difference(engine, policy) < 1e-3  # its prompts are spread over both
    with pytest.raises(StaleEngineError, match=rf"policy version 2 were pushed to {servers[0].url}, its log-prob"):
        synced(engine, Tampered(policy, "value"))
    with pytest.raises(StaleEngineError, match=r"call take\(.*\) first"):
        engine.sample(prompts(1), Sampling(4))
    with pytest.raises(ModelError, match=r"down_proj.weight has shape .* not \("):
        synced(engine, Tampered(policy, "shape"))
    policy.begin_update()
    with pytest.raises(StaleEngineError, match="mid-update"):
        synced(engine, policy)
    policy.finish_update(2)
    synced(engine, policy)
    assert largest_difference(engine, policy) < 1e-3
    assert remarks == []


@pytest.mark.parametrize("adapter_only", [True, False], ids=["adapter", "merged"])
def test_adapters_are_pushed_alone_or_merged(
    servers: list[VllmServer], section: ServerSection, adapter_only: bool
) -> None:
    """The test before has left other full weights in the server: its base is pushed too, once."""
    policy = load_policy(ModelSection(path="builtin:starter", lora=LoraSection(enabled=True, rank=4)))
    watched = Tampered(policy)
    way = "adapter" if adapter_only else "merged"
    engine = make_engine(watched, section.model_copy(update={"urls": (servers[0].url,), "lora_sync": way}))
    try:
        for version in (1, 2):
            moved(policy, 0.05)
            assert largest_difference(engine, policy) > 0.05
            watched.pushed.clear()
            synced(engine, watched)
            assert bool(watched.pushed) is not adapter_only
            assert engine.version == version
            assert largest_difference(engine, policy) < 1e-3
        assert_greedy_as_transformers(engine, policy, 1, tokens=20)
    finally:
        engine.close()


def test_a_server_that_takes_no_adapters_is_named(servers: list[VllmServer], section: ServerSection) -> None:
    policy = load_policy(ModelSection(path="builtin:starter", lora=LoraSection(enabled=True, rank=4)))
    with pytest.raises(InputError, match=rf"{servers[1].url} takes no adapters: start it with .* --enable-lora"):
        make_engine(policy, section.model_copy(update={"lora_sync": "adapter"}))


def test_settings_that_do_not_fit_the_server_are_one_sentence(
    policy: Policy, section: ServerSection, servers: list[VllmServer], tmp_path: Path
) -> None:
    for change, sentence in {
        "a context of 400 tokens, and prompt and output may take 1000: start it with --max-model-len 1000": {
            "context": 1000
        },
        "serves starter, not gpt-9: correct rollout.server.model": {"model": "gpt-9"},
        "refuses the API key: name the environment variable": {"api_key": "wrong"},
        "no folder: make it, or name another": {"folder": tmp_path / "none"},
    }.items():
        own = section.model_copy(update={name: sentence.pop(name) for name in ("model", "folder") if name in sentence})
        with pytest.raises(InputError, match=change) as refused:
            make_engine(policy, own, **sentence)
        assert "wrong" not in str(refused.value)


def test_a_prompt_that_does_not_fit_is_refused_by_name(engine: VllmServerEngine) -> None:
    with pytest.raises(ModelError, match=r"task-1 .* vLLM's context of 400"):
        engine.sample(prompts(1), Sampling(399))


def test_a_stop_ends_the_requests_at_the_servers(engine: VllmServerEngine, servers: list[VllmServer]) -> None:
    started = threading.Event()

    def stop() -> None:
        if any(server.metric("vllm:num_requests_running") for server in servers):
            started.set()
            raise Stopped

    with pytest.raises(Stopped):
        engine.sample(prompts(8, 64), Sampling(300, temperature=2.0), check_stop=stop)
    assert started.is_set()
    deadline = time.monotonic() + 30
    while any(server.metric("vllm:num_requests_running") for server in servers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [server.metric("vllm:num_requests_running") for server in servers] == [0, 0]
    finished: list[int] = []
    assert engine.sample(prompts(2), Sampling(8), on_progress=finished.append)
    assert sum(finished) == 8


def test_a_server_with_other_weights_is_left_out_until_the_next_sync(
    engine: VllmServerEngine, policy: Policy, servers: list[VllmServer], remarks: list[str]
) -> None:
    expected = engine.sample(prompts(3), Sampling(12))
    httpx.post(f"{servers[1].url}/update_weight_version", json={"new_version": "somebody"}).raise_for_status()
    before = servers[1].metric("vllm:request_success_total")
    again = engine.sample(prompts(3), Sampling(12))
    assert [[c.token_ids for c in g] for g in again] == [[c.token_ids for c in g] for g in expected]
    assert servers[1].metric("vllm:request_success_total") == before
    assert len(remarks) == 1
    assert f"{servers[1].url} holds other weights than this run pushed (somebody): was it restarted" in remarks[0]
    synced(engine, policy)
    engine.sample(prompts(3), Sampling(12))
    assert servers[1].metric("vllm:request_success_total") > before


def test_a_run_is_sampled_by_servers_killed_and_resumed(servers: list[VllmServer], tmp_path: Path) -> None:
    flags = ["--rollout.engine", "vllm-server", "--rollout.server.urls", *(server.url for server in servers)]
    flags += ["--rollout.server.api-key-env", "SERVERS_KEY"]
    run = tmp_path / "run"
    reports, said = killed_and_resumed(run, flags, SERVERS_KEY=API_KEY)
    assert [report["policy_version"] for report in reports] == [2, 4]
    for report in reports:
        for update in report["updates"]:
            assert 0.0 < update["sampler_mismatch"]["mean_abs_logprob"] < 1e-3
    assert "Sampler against learner" in said
    for file in run.rglob("*"):
        assert not file.is_file() or API_KEY.encode() not in file.read_bytes()


def test_images_reach_the_server_as_the_learner_sees_them(tmp_path: Path) -> None:
    policy = load_policy(ModelSection(path=str(save_tiny_idefics3(tmp_path / "model", heads=1))))
    server = VllmServer(tmp_path / "model", tmp_path / "log")
    try:
        engine = make_engine(policy, ServerSection(urls=(server.wait().url,), timeout_seconds=120))
        asked = image_prompts(tmp_path, 4)
        assert_images_as_learner(engine, policy, asked)
        synced(engine, moved(policy, 0.05))  # checked on a prompt with an image
        assert largest_difference(engine, policy, asked) < 1e-3
        engine.close()
    finally:
        server.stop()


# Last: the servers do not survive it.
def test_a_server_that_dies_is_replaced_by_the_others_and_none_is_one_sentence(
    engine: VllmServerEngine, policy: Policy, servers: list[VllmServer], remarks: list[str]
) -> None:
    sampling = Sampling(200, temperature=1.5)
    alone = make_engine(policy, ServerSection(urls=(servers[0].url,)))
    wanted = alone.sample(prompts(6, 8), sampling)
    alone.close()
    synced(engine, policy)

    def kill_one() -> None:
        if servers[1].metric("vllm:num_requests_running") > 0:
            servers[1].kill()
            checks.append(None)

    checks: list[None] = []
    groups = engine.sample(prompts(6, 8), sampling, check_stop=lambda: None if checks else kill_one())
    assert checks
    assert [[c.token_ids for c in g] for g in groups] == [[c.token_ids for c in g] for g in wanted]
    assert any(f"{servers[1].url} " in remark and "prompts go to the other servers" in remark for remark in remarks)
    remarks.clear()
    synced(engine, policy)
    assert engine.sample(prompts(2), Sampling(4))
    assert [f"{servers[1].url} cannot be reached" in remark for remark in remarks] == [True]
    servers[0].kill()
    with pytest.raises(EngineError, match=r"No vLLM server is left to sample with \(.*start it again .* resume"):
        engine.sample(prompts(2), Sampling(4))
    with pytest.raises(EngineError, match="No vLLM server is left"):
        synced(engine, policy)
