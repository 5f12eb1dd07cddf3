"""Servers that are down, slow, foreign or in the way: one sentence each, and the key goes to nobody else.

The servers here answer what vLLM 0.32 was recorded to answer; tests/test_vllm_server.py runs real ones.
"""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from spark_kernel.config import load_config
from spark_kernel.config.sections import ServerSection
from spark_kernel.errors import EngineError, InputError
from spark_kernel.prompts.prompt import Prompt
from spark_kernel.records import Message
from spark_kernel.rollout.make_engine import server_key
from spark_kernel.rollout.vllm_endpoint import ServerUnavailableError, VllmEndpoint
from spark_kernel.rollout.vllm_servers import ServerRequest, Servers, check_servers, connect
from tests.helpers.cli import tiny_flags, workbench
from tests.helpers.tiny_models import save_tiny_llama

pytestmark = pytest.mark.slow
KEY = "a-key-for-one-host"
MODELS = {
    "object": "list",
    "data": [{"id": "starter", "parent": None, "root": "/models/starter", "max_model_len": 400}],
}
INFO: dict[str, Any] = {
    "vllm_config": {
        "model_config": {"dtype": "torch.float32", "logprobs_mode": "processed_logprobs", "max_model_len": 400},
        "scheduler_config": {"enable_chunked_prefill": False},
        "device_config": {"device": "cpu"},
        "lora_config": None,
    }
}
CHOICE = {
    "index": 0,
    "finish_reason": "length",
    "token_ids": [7],
    "weight_versions": [{"version": "spark-1", "start": 0, "end": 1}],
    "logprobs": {"content": [{"token_id": 7, "logprob": -0.5, "rank": 1, "top_logprobs": []}]},
}
Answer = tuple[int, Any, dict[str, str]]


class Recorded:
    """A server with vLLM's recorded answers; `change` them by path: a value, or a function of the handler."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None]] = []
        self.bodies: list[tuple[str, Any]] = []
        self.answers: dict[str, Any] = {
            "/v1/models": MODELS,
            "/server_info": INFO,
            "/weight_info": {"weight_version": "spark-1"},
            "/inference/v1/generate": {"choices": [CHOICE], "prompt_token_ids": [1, 2]},
            "/inference/v1/abort_requests": {},
        }
        recorded = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *arguments: Any) -> None:
                pass

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                recorded.asked.append((path, self.headers.get("Authorization")))
                sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                recorded.bodies.append((path, json.loads(sent) if sent else None))
                answer = recorded.answers.get(path, (404, {"detail": "Not Found"}, {}))
                if callable(answer):
                    answer = answer(self)
                if answer is None:  # the connection just ends
                    return
                status, body, headers = answer if isinstance(answer, tuple) else (200, answer, {})
                data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            do_POST = do_GET

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def recorded() -> Iterator[Callable[[], Recorded]]:
    made: list[Recorded] = []

    def make() -> Recorded:
        made.append(Recorded())
        return made[-1]

    yield make
    for server in made:
        server.close()


def nobody() -> str:
    """An address where nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def section(*urls: str, timeout: float = 5) -> ServerSection:
    return ServerSection(urls=urls, timeout_seconds=timeout, connections=4)


def facts_of(url: str, **changes: Any) -> Any:
    used = section(url, **changes)
    endpoint = VllmEndpoint(url, KEY, used.timeout_seconds, 1)
    try:
        return connect(used, endpoint, device="cpu")
    finally:
        endpoint.close()


def slow(handler: Any) -> None:
    time.sleep(3)


def test_a_servers_own_description_is_read(recorded: Callable[[], Recorded]) -> None:
    facts = facts_of(recorded().url)
    assert (facts.models, facts.context, facts.dtype, facts.lora) == (("starter",), 400, "float32", False)


@pytest.mark.parametrize(
    ("path", "answer", "sentence"),
    [
        ("/v1/models", (401, {"error": "Unauthorized"}, {}), "refuses the API key: name the environment variable"),
        ("/v1/models", (404, {"detail": "Not Found"}, {}), "has no /v1/models, so it is no vLLM server .* start it as"),
        ("/server_info", (404, {"detail": "Not Found"}, {}), "has no /server_info.*VLLM_SERVER_DEV_MODE=1 vllm serve"),
        ("/server_info", {"vllm_config": {}}, r"in another form than vLLM 0.32 \(KeyError\('model_config'\)\)"),
        ("/v1/models", "<html>", "answered /v1/models with something that is not JSON"),
        ("/v1/models", slow, r"did not answer within 0.5 s"),
        ("/v1/models", lambda handler: None, "broke off"),
        ("/v1/models", (500, {"error": f"the key was {KEY}"}, {}), r"failed \(.*the key was \*\*\*"),
    ],
    ids=["401", "another-server", "no-dev-mode", "another-form", "html", "slow", "breaks-off", "500"],
)
def test_what_a_server_does_wrong_is_one_sentence(
    recorded: Callable[[], Recorded], path: str, answer: Any, sentence: str
) -> None:
    server = recorded()
    server.answers[path] = answer
    with pytest.raises((InputError, ServerUnavailableError), match=sentence) as found:
        facts_of(server.url, timeout=0.5)
    assert server.url in str(found.value)
    assert KEY not in str(found.value)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("part", "change", "sentence"),
    [
        ("model_config", {"logprobs_mode": "raw_logprobs"}, "not the log-probabilities it samples with: start it as"),
        ("model_config", {"dtype": "torch.float8"}, "computes in float8: start it with --dtype"),
        ("scheduler_config", {"enable_chunked_prefill": True}, "start it with --no-enable-chunked-prefill"),
    ],
)
def test_a_server_started_in_a_way_that_would_train_wrongly_is_refused(
    recorded: Callable[[], Recorded], part: str, change: dict[str, Any], sentence: str
) -> None:
    server = recorded()
    config = INFO["vllm_config"]
    server.answers["/server_info"] = {"vllm_config": config | {part: config[part] | change}}
    with pytest.raises(InputError, match=sentence):
        facts_of(server.url)


def test_a_redirect_is_not_followed_and_the_key_stays_where_it_belongs(
    recorded: Callable[[], Recorded], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, stranger = recorded(), recorded()
    monkeypatch.setenv("HTTP_PROXY", stranger.url)
    monkeypatch.setenv("http_proxy", stranger.url)
    facts_of(server.url)
    assert {key for _, key in server.asked} == {f"Bearer {KEY}"}
    server.answers["/v1/models"] = (307, {}, {"Location": f"{stranger.url}/v1/models"})
    with pytest.raises(InputError, match=rf"redirects to {stranger.url}/v1/models, and redirects are not followed"):
        facts_of(server.url)
    assert stranger.asked == []


def test_servers_that_cannot_be_reached_are_found_before_a_model_is_loaded(recorded: Callable[[], Recorded]) -> None:
    dead, other = nobody(), nobody()
    check_servers(section(dead, recorded().url), api_key=KEY, device="cpu")  # one is enough
    with pytest.raises(InputError, match=rf"{dead} cannot be reached .*; .*{other} cannot be reached .*: start it"):
        check_servers(section(dead, other), api_key=KEY, device="cpu")


def group(place: int, samples: int) -> list[ServerRequest]:
    prompt = Prompt(f"t{place}", (Message.of("user", "?"),), tuple(range(samples)))
    return [ServerRequest(prompt, [1, 2], [1, 2], {"seed": seed}, ()) for seed in prompt.seeds]


def live(used: ServerSection, remarks: list[str]) -> Servers:
    servers = Servers(used, api_key=KEY, context=0, remark=remarks.append)
    for server in servers.all:
        server.stamp, server.model = "spark-1", "starter"
    return servers


def asked_to_generate(server: Recorded) -> int:
    return sum(path == "/inference/v1/generate" for path, _ in server.asked)


def test_groups_take_turns(recorded: Callable[[], Recorded]) -> None:
    made = [recorded(), recorded(), recorded()]
    servers = live(section(*(server.url for server in made)), [])
    done: list[int] = []
    replies = servers.run_all([group(place, 4) for place in range(7)], done.append, lambda: None)
    servers.close()
    assert [len(replies_of) for replies_of in replies] == [4] * 7
    assert [asked_to_generate(server) for server in made] == [12, 8, 8]
    assert sum(done) == 28


def restarted(handler: Any) -> Answer:
    return 200, {"choices": [CHOICE | {"weight_versions": [{"version": "default"}]}], "prompt_token_ids": [1, 2]}, {}


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda handler: None, "broke off"),
        (slow, "did not answer within 0.5 s"),
        ((500, {"error": {"message": "EngineCore encountered an issue"}}, {}), "EngineCore encountered an issue"),
        (
            {"choices": [CHOICE | {"finish_reason": "abort"}], "prompt_token_ids": [1, 2]},
            r"gave up a request \(abort\)",
        ),
        (restarted, r"holds other weights than this run pushed \(default\)"),
        ({"text": "hello"}, "answers in another form than vLLM 0.32"),
    ],
    ids=["breaks-off", "slow", "500", "abort", "restarted", "another-form"],
)
def test_what_one_server_fails_at_another_does_and_it_is_said_once(
    recorded: Callable[[], Recorded], answer: Any, why: str
) -> None:
    good, bad = recorded(), recorded()
    bad.answers["/inference/v1/generate"] = answer
    remarks: list[str] = []
    servers = live(section(bad.url, good.url, timeout=0.5), remarks)
    replies = servers.run_all([group(place, 3) for place in range(4)], lambda _: None, lambda: None)
    assert [[reply["choices"][0]["token_ids"] for reply in row] for row in replies] == [[[7]] * 3] * 4
    assert asked_to_generate(good) == 12
    assert [server.url for server in servers.live] == [good.url]
    assert remarks
    assert all(bad.url in remark and re.search(why, remark) for remark in remarks)
    good.answers["/inference/v1/generate"] = lambda handler: None
    with pytest.raises(EngineError, match=r"No vLLM server is left .*broke off.*resume the run"):
        servers.run_all([group(0, 2)], lambda _: None, lambda: None)
    servers.close()


def test_an_idle_connection_that_was_dropped_is_no_dead_server(recorded: Callable[[], Recorded]) -> None:
    server = recorded()
    drops = iter([True])

    def once(handler: Any) -> Any:
        return None if next(drops, False) else {"choices": [CHOICE], "prompt_token_ids": [1, 2]}

    server.answers["/inference/v1/generate"] = once
    remarks: list[str] = []
    servers = live(section(server.url), remarks)
    assert servers.run_all([group(0, 1)], lambda _: None, lambda: None)
    assert remarks == []
    servers.close()


def test_addresses_and_keys_are_checked_in_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    for urls, sentence in {
        (): "needs rollout.server.urls",
        ("localhost:8000",): "is no address such as http://host:8000",
        ("http://me:secret@host:8000",): "must not hold a password: use rollout.server.api_key_env",
        ("http://host:8000/v1",): "must end after host and port",
        ("http://host:8000", "http://host:8000"): "stands there twice",
    }.items():
        with pytest.raises(InputError, match=sentence):
            load_config("quickstart", rollout__engine="vllm-server", rollout__server__urls=urls)
    config = load_config(
        "quickstart",
        rollout__engine="vllm-server",
        rollout__server__urls=("http://host:8000/",),
        rollout__server__api_key_env="SERVERS_KEY",
    )
    with pytest.raises(InputError, match="names SERVERS_KEY, but that environment variable is not set"):
        server_key(config.rollout.server)
    monkeypatch.setenv("SERVERS_KEY", KEY)
    assert server_key(config.rollout.server) == KEY
    assert config.rollout.server.urls == ("http://host:8000",)
    assert KEY not in config.to_yaml() + repr(config)


@pytest.mark.slow
def test_a_run_whose_server_is_down_says_so_and_leaves_no_folder(tmp_path: Path) -> None:
    run = tmp_path / "run"
    flags = [*tiny_flags(save_tiny_llama(tmp_path / "model")), "--rollout.engine", "vllm-server"]
    done = workbench("run", "quickstart", "--out", run, *flags, "--rollout.server.urls", nobody())
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "cannot be reached" in done.stderr
    assert not run.exists()
