"""Sampling with running vLLM servers: prompts are spread over them, and weights go to them by a folder."""

from __future__ import annotations

import base64
import io
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spark_kernel.errors import EngineError, InputError, ModelError, StaleEngineError, StopCheck
from spark_kernel.models.encoder import PromptEncoder
from spark_kernel.prompts.prompt import Prompt
from spark_kernel.rollout.engine import Completion, PolicyWeights, Sampling
from spark_kernel.rollout.sync_check import TOLERANCES, check_synced, difference, first_probe, longest_probe
from spark_kernel.rollout.vllm_endpoint import ServerFacts, ServerUnavailableError
from spark_kernel.rollout.vllm_requests import SCORING_FIELDS, Output, completions, sampling_fields, sent_ids
from spark_kernel.rollout.vllm_servers import Server, ServerRequest, Servers, VllmServerSettings, ask, connect
from spark_kernel.rollout.vllm_transfer import BACKEND, NcclTransfer
from spark_kernel.rollout.vllm_weights import CheckedTensors, adapter_to_push, write_adapter, write_weights

OURS = "spark-"
"""What the versions begin with that we give to a server's weights."""


class VllmServerEngine:
    """A `RolloutEngine` over running vLLM servers.

    A prompt with all its outputs goes to the server whose turn it is, by the prompt's place; so a group's prompt is
    computed once. A server that fails is left out until the next sync, its prompts go to the others, and `remark` is
    told. Servers keep their memory between updates: they are meant to run on devices of their own.

    Args:
        encoder: turns prompts into token ids and tokens into text, as for the learner.
        weights: the policy whose weights are pushed now.
        settings: see `VllmServerSettings`.
        remark: receives a sentence about whatever went wrong and was made good.

    Raises:
        EngineError: no server can be reached.
        InputError: one cannot be used, or serves another model.
        ModelError: the context is too short.
        StaleEngineError: a server does not hold the weights after the push.
    """

    def __init__(
        self,
        encoder: PromptEncoder,
        weights: PolicyWeights,
        settings: VllmServerSettings,
        remark: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._encoder = encoder
        self._settings = settings
        self._remark = remark
        self._version: int | None = None
        self._weights = weights
        self._pushes = 0
        self._tensors = CheckedTensors(weights)
        self._model = f"{OURS}{self._tensors.fingerprint()}-"
        self._run = uuid.uuid4().hex[:8]
        self._probe = first_probe(encoder, settings.context)
        if settings.folder is not None and not settings.folder.is_dir():
            raise InputError(f"rollout.server.folder = {settings.folder} is no folder: make it, or name another.")
        self._servers = Servers(settings, remark)
        self._folder = tempfile.TemporaryDirectory(prefix="spark-vllm-", dir=settings.folder)
        try:
            Path(self._folder.name).chmod(0o755)  # a server may run as another user
            self.sync(weights)
        except BaseException:
            self.close()
            raise

    @property
    def version(self) -> int:
        """The policy version that the servers hold.

        Raises:
            StaleEngineError: an update of them failed, or the engine is closed.
        """
        if self._version is None:
            raise StaleEngineError("The vLLM servers hold no finished weights of this run: call sync(policy) first.")
        return self._version

    def count_tokens(self, prompts: Sequence[Prompt]) -> list[int]:
        """Tokens of each prompt."""
        return [self._encoder.count_tokens(prompt) for prompt in prompts]

    def sample(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        *,
        on_progress: Callable[[int], None] = lambda _: None,
        check_stop: StopCheck = lambda: None,
    ) -> list[list[Completion]]:
        """See `RolloutEngine.sample`. One request per seed.

        Raises:
            EngineError: no server is left.
        """
        eos = self._encoder.eos_ids
        requests = [
            [self._request(prompt, sampling, sampling_fields(sampling, seed, eos)) for seed in prompt.seeds]
            for prompt in prompts
        ]
        started = time.perf_counter()
        replies = self._run_all(requests, on_progress, check_stop)
        outputs = [_output(reply) for group in replies for reply in group]
        groups = completions(self._encoder, prompts, outputs, started)
        self._probe = longest_probe(self._encoder, self._settings.context, prompts, groups, self._probe)
        return groups

    def score(self, prompts: Sequence[Prompt], outputs: Sequence[Sequence[Sequence[int]]]) -> list[list[list[float]]]:
        """See `RolloutEngine.score`."""
        replies = self._run_all(self._scorings(prompts, outputs), lambda _: None, lambda: None)
        return [
            [_tail_logprobs(reply, output) for reply, output in zip(row, group, strict=True)]
            for row, group in zip(replies, outputs, strict=True)
        ]

    def sync(self, weights: PolicyWeights) -> None:
        """Push the weights of a finished update to every server that can be reached, and check each.

        Raises:
            ModelError: the weights are another model's.
            InputError: a server that came back cannot be used.
            StaleEngineError: a server's log-probabilities afterwards are not the learner's.
            EngineError: no server can be reached.
        """
        self._version = None
        version = weights.version
        self._weights = weights
        self._pushes += 1
        stamp = f"{self._model}{self._run}-{version}-{self._pushes}"
        faults = [fault for fault in map(self._connected, self._servers.all) if fault]
        adapter = adapter_to_push(weights, self._settings.adapter_only)
        if adapter is not None:
            self._check_takes_adapters()
        what = "the full weights" if adapter is None else "the adapter's weights"
        sends = adapter is None and self._settings.transfer == BACKEND
        with self._new_folder(stamp) as source:
            if adapter is not None:
                write_adapter(adapter, source)
            elif not sends:
                self._write(self._tensors.of(weights), source)
            for server in self._servers.all:
                if server.facts is None:
                    continue
                try:
                    if sends:
                        self._send(server, stamp)
                    elif adapter is None:
                        server.endpoint.reload(str(source), stamp)
                        server.stamp = stamp
                    else:
                        self._push_adapter(server, source, stamp)
                    one = _OneServer(self, server)
                    check_synced(one, weights, self._probe, self._dtype(server.facts), who=server.url, pushed=what)
                except ServerUnavailableError as error:
                    server.drop()
                    faults.append(str(error))
        if not self._servers.live:
            raise self._servers.none_left("; ".join(faults))
        for fault in faults:
            self._remark(f"{fault}: it is left out until it is back")
        self._version = version

    def sleep(self) -> None:
        """Servers keep their memory."""

    def wake(self) -> None:
        """Servers are awake."""

    def close(self) -> None:
        """Drop the connections and what was written for the servers, which run on; calling it twice is fine."""
        self._version = None
        self._servers.close()
        self._folder.cleanup()

    # --- weights

    def _connected(self, server: Server) -> str | None:
        """Find out what a server is before anything is pushed to it for the first time; why it cannot be reached."""
        if server.stamp is not None:
            return None
        try:
            facts = server.facts = connect(self._settings, server.endpoint)
            server.model, server.adapter = self._settings.model or facts.models[0], None
            self._check_model(server, facts)
        except ServerUnavailableError as error:
            server.facts = None
            return str(error)
        return None

    def _check_model(self, server: Server, facts: ServerFacts) -> None:
        """A server that was never pushed to must hold the run's initial model: weights of other shapes crash it."""
        if facts.version.startswith(self._model) or self._weights.version > 0:
            return
        if facts.version.startswith(OURS):
            found = "weights of another model were pushed to it"
        else:
            try:
                nats = difference(_OneServer(self, server), self._weights, self._probe)
            except ModelError as error:
                found = str(error)
            else:
                if nats <= TOLERANCES[self._dtype(facts)]:
                    return
                found = f"their log-probabilities differ by {nats:.3g} nats per token"
        raise InputError(
            f"The server at {server.url} serves another model than {self._encoder.name} ({found}): start it with that "
            "model."
        )

    def _dtype(self, facts: ServerFacts) -> str:
        """The coarser of the server's and the learner's precision."""
        return max(facts.dtype, self._settings.dtype, key=TOLERANCES.__getitem__)

    def _check_takes_adapters(self) -> None:
        for server in self._servers.all:
            if server.facts is not None and not server.facts.lora:
                raise InputError(
                    f"The server at {server.url} takes no adapters: start it with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 "
                    'and --enable-lora (docs/vllm.md), or use rollout.server.lora_sync = "merged".'
                )

    def _send(self, server: Server, stamp: str) -> None:
        """Have a server take the weights from this process's GPU."""
        if server.transfer is None:
            assert server.facts is not None
            address = self._settings.transfer_address
            server.transfer = NcclTransfer(server.endpoint, _Sent(self), server.facts.dtype, address)
        server.transfer.send()
        server.endpoint.set_version(stamp)
        server.stamp = stamp

    def _push_adapter(self, server: Server, source: Path, stamp: str) -> None:
        """Have a server take an adapter under a new name, and its base where an earlier run may have changed that."""
        if server.adapter is None and server.facts is not None and server.facts.version.startswith(OURS):
            with self._new_folder(f"{stamp}-base") as base:
                self._write(self._tensors.of(self._weights, merged=False), base)
                server.endpoint.reload(str(base), stamp)
        before = server.adapter
        server.endpoint.load_adapter(stamp, str(source), stamp)
        server.adapter = server.model = server.stamp = stamp
        if before is not None:
            server.endpoint.unload_adapter(before)

    @contextmanager
    def _new_folder(self, name: str) -> Iterator[Path]:
        """A folder for the servers to read, gone afterwards."""
        folder = Path(self._folder.name) / name
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder)

    def _write(self, tensors: Iterator[tuple[str, Any]], folder: Path) -> None:
        self._weights.save_description(folder)
        write_weights(tensors, folder)

    # --- requests

    def _run_all(
        self, requests: Sequence[Sequence[ServerRequest]], on_progress: Callable[[int], None], check_stop: StopCheck
    ) -> list[list[Any]]:
        _ = self.version
        self._servers.leave_out_overwritten()
        if not self._servers.live:  # perhaps one is back
            self.sync(self._weights)
        return self._servers.run_all(requests, on_progress, check_stop)

    def _request(
        self, prompt: Prompt, sampling: Sampling, fields: dict[str, Any], tail: Sequence[int] = ()
    ) -> ServerRequest:
        sent, expected = sent_ids(self._encoder, prompt, sampling, self._servers.context, tail)
        images = tuple(map(_data_url, self._encoder.open_images(prompt))) if prompt.images else ()
        return ServerRequest(prompt, sent, expected, fields, images)

    def _scorings(
        self, prompts: Sequence[Prompt], outputs: Sequence[Sequence[Sequence[int]]]
    ) -> list[list[ServerRequest]]:
        return [
            [self._request(prompt, Sampling(len(output) + 1), dict(SCORING_FIELDS), output) for output in group]
            for prompt, group in zip(prompts, outputs, strict=True)
        ]


class _Sent:
    """The weights of the push that is under way, for a transfer that stays open."""

    def __init__(self, engine: VllmServerEngine) -> None:
        self._engine = engine

    def described(self) -> list[tuple[str, tuple[int, ...]]]:
        return self._engine._tensors.described()

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return self._engine._tensors.of(self._engine._weights)


class _OneServer:
    """A single server as a scorer, for the check after a push."""

    def __init__(self, engine: VllmServerEngine, server: Server) -> None:
        self._engine = engine
        self._server = server

    def score(self, prompts: Sequence[Prompt], outputs: Sequence[Sequence[Sequence[int]]]) -> list[list[list[float]]]:
        requests = self._engine._scorings(prompts, outputs)
        return [
            [
                _tail_logprobs(ask(self._server, request, self._server.stamp, {}), output)
                for request, output in zip(row, group, strict=True)
            ]
            for row, group in zip(requests, outputs, strict=True)
        ]


def _output(reply: Any) -> Output:
    choice = reply["choices"][0]
    content = choice["logprobs"]["content"]
    ids = tuple(int(token) for token in choice["token_ids"])
    if [entry["token_id"] for entry in content] != list(ids):
        raise EngineError("A vLLM server gave log-probabilities of other tokens than it sampled.")
    return Output(ids, tuple(float(entry["logprob"]) for entry in content), choice["finish_reason"] == "stop")


def _tail_logprobs(reply: Any, output: Sequence[int]) -> list[float]:
    """The log-probabilities of the last prompt tokens, which are an output's."""
    positions = reply["prompt_logprobs"][len(reply["prompt_logprobs"]) - len(output) :]
    return [float(position[str(token)]["logprob"]) for token, position in zip(output, positions, strict=True)]


def _data_url(image: Any) -> str:
    """An image without loss, as the learner's processor is given it."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
