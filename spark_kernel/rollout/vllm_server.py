"""Sampling with running vLLM servers: prompts are spread over them, and weights go to them by a folder."""

from __future__ import annotations

import base64
import io
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from spark_kernel.config.sections import ServerSection
from spark_kernel.errors import EngineError, InputError, ModelError, StaleEngineError, StopCheck
from spark_kernel.models.encoder import PromptEncoder
from spark_kernel.models.published_weights import AdapterBytes, Form, PublishedWeights, Publisher, Wanted, WeightFolder
from spark_kernel.models.publishing import checked_tensors
from spark_kernel.prompts.prompt import Prompt
from spark_kernel.rollout.engine import Completion, Sampling
from spark_kernel.rollout.sync_check import TOLERANCES, check_taken, difference, first_probe, longest_probe, probe_of
from spark_kernel.rollout.vllm_endpoint import ServerFacts, ServerUnavailableError
from spark_kernel.rollout.vllm_requests import SCORING_FIELDS, Output, completions, sampling_fields, sent_ids
from spark_kernel.rollout.vllm_servers import Server, ServerRequest, Servers, ask, connect
from spark_kernel.rollout.vllm_transfer import BACKEND, NcclTransfer
from spark_kernel.rollout.vllm_weights import REFUSED_ADAPTERS, SameModel, write_adapter

OURS = "spark-"
"""What the versions begin with that we give to a server's weights."""


class VllmServerEngine:
    """A `RolloutEngine` over running vLLM servers.

    A prompt with all its outputs goes to the server whose turn it is, by the prompt's place; so a group's prompt is
    computed once. A server that fails is left out until weights are taken again, its prompts go to the others, and
    `remark` is told. Servers keep their memory between updates: they are meant to run on devices of their own.

    Args:
        encoder: turns prompts into token ids and tokens into text, as for the learner.
        weights: the policy whose weights are pushed now.
        section: which servers, and how they are used.
        device: the learner's, as torch names its type.
        dtype: of the learner's arithmetic, as torch names it.
        context: most tokens of prompt and output together.
        api_key: sent to the servers with every request.
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
        weights: Publisher,
        section: ServerSection,
        *,
        device: str,
        dtype: str,
        context: int,
        api_key: str | None = None,
        remark: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._encoder = encoder
        self._section = section
        self._device, self._dtype, self._context = device, dtype, context
        self._remark = remark
        self._version: int | None = None
        self._published: PublishedWeights | None = None
        self._pushes = 0
        self._base_wanted = False
        self._run = uuid.uuid4().hex[:8]
        self._probe = first_probe(encoder, context)
        if section.folder is not None and not section.folder.is_dir():
            raise InputError(f"rollout.server.folder = {section.folder} is no folder: make it, or name another.")
        self._servers = Servers(section, api_key=api_key, context=context, remark=remark)
        self._folder = tempfile.TemporaryDirectory(prefix="spark-vllm-", dir=section.folder)
        try:
            Path(self._folder.name).chmod(0o755)  # a server may run as another user
            self._base_wanted = section.lora_sync == "adapter" and self._any_holds_our_weights()
            first = weights.publish(self.wanted)
            self._model = SameModel(first)
            self._name = f"{OURS}{self._model.fingerprint()}-"
            self.take(first)
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
            raise StaleEngineError(
                "The vLLM servers hold no finished weights of this run: call take(policy.publish(engine.wanted)) first."
            )
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
        self._probe = longest_probe(self._encoder, self._context, prompts, groups, self._probe)
        return groups

    def score(self, prompts: Sequence[Prompt], outputs: Sequence[Sequence[Sequence[int]]]) -> list[list[list[float]]]:
        """See `RolloutEngine.score`."""
        replies = self._run_all(self._scorings(prompts, outputs), lambda _: None, lambda: None)
        return [
            [_tail_logprobs(reply, output) for reply, output in zip(row, group, strict=True)]
            for row, group in zip(replies, outputs, strict=True)
        ]

    @property
    def wanted(self) -> Wanted:
        """A folder of full weights, or an adapter alone; what goes over NCCL is read from this process's memory."""
        forms: tuple[Form, ...] = (Form.MEMORY,) if self._section.transfer == BACKEND else (Form.FOLDER,)
        if self._section.lora_sync == "adapter":
            forms = (Form.ADAPTER, *forms)
        return Wanted(forms, self._probe, Path(self._folder.name), REFUSED_ADAPTERS, self._base_wanted)

    def take(self, published: PublishedWeights) -> None:
        """Push the weights of a finished update to every server that can be reached, and check each.

        Raises:
            ModelError: the weights are another model's.
            InputError: a server that came back cannot be used.
            StaleEngineError: a server's log-probabilities afterwards are not the learner's.
            EngineError: no server can be reached.
        """
        self._version, self._base_wanted = None, False  # asked for again where a server turns out to need it
        self._forget(published)
        self._published = published
        self._model.check(published)
        self._pushes += 1
        stamp = f"{self._name}{self._run}-{published.version}-{self._pushes}"
        faults = [fault for fault in (self._connected(server, published) for server in self._servers.all) if fault]
        if isinstance(published.way, AdapterBytes):
            self._check_takes_adapters()
        what = "the adapter's weights" if isinstance(published.way, AdapterBytes) else "the full weights"
        for server in self._servers.all:
            if server.facts is None:
                continue
            try:
                self._push(server, published, stamp)
                one = _OneServer(self, server)
                check_taken(one, published, self._coarser_dtype(server.facts), who=server.url, pushed=what)
            except ServerUnavailableError as error:
                server.drop()
                faults.append(str(error))
        if not self._servers.live:
            raise self._servers.none_left("; ".join(faults))
        for fault in faults:
            self._remark(f"{fault}: it is left out until it is back")
        self._version = published.version

    def sleep(self) -> None:
        """Servers keep their memory; a folder of weights that an update is about to replace is deleted."""
        self._forget(None)

    def wake(self) -> None:
        """Servers are awake."""

    def close(self) -> None:
        """Drop the connections and what was written for the servers, which run on; calling it twice is fine."""
        self._version = None
        self._servers.close()
        self._folder.cleanup()

    # --- weights

    def _any_holds_our_weights(self) -> bool:
        """Whether an earlier run may have changed the base of a server that can be reached."""
        for server in self._servers.all:
            with suppress(ServerUnavailableError):  # whether any can be reached is found out when weights are taken
                if self._connect(server).version.startswith(OURS):
                    return True
        return False

    def _connect(self, server: Server) -> ServerFacts:
        return connect(self._section, server.endpoint, device=self._device, context=self._context)

    def _connected(self, server: Server, published: PublishedWeights) -> str | None:
        """Find out what a server is before anything is pushed to it for the first time; why it cannot be reached."""
        if server.stamp is not None:
            return None
        try:
            facts = server.facts = self._connect(server)
            server.model, server.adapter = self._section.model or facts.models[0], None
            self._check_model(server, facts, published)
        except ServerUnavailableError as error:
            server.facts = None
            return str(error)
        return None

    def _check_model(self, server: Server, facts: ServerFacts, published: PublishedWeights) -> None:
        """A server that was never pushed to must hold the run's initial model: weights of other shapes crash it."""
        if facts.version.startswith(self._name) or published.version > 0:
            return
        if facts.version.startswith(OURS):
            found = "weights of another model were pushed to it"
        else:
            try:
                nats = difference(_OneServer(self, server), probe_of(published))
            except ModelError as error:
                found = str(error)
            else:
                if nats <= TOLERANCES[self._coarser_dtype(facts)]:
                    return
                found = f"their log-probabilities differ by {nats:.3g} nats per token"
        raise InputError(
            f"The server at {server.url} serves another model than {self._encoder.name} ({found}): start it with that "
            "model."
        )

    def _coarser_dtype(self, facts: ServerFacts) -> str:
        """The coarser of the server's and the learner's precision."""
        return max(facts.dtype, self._dtype, key=TOLERANCES.__getitem__)

    def _check_takes_adapters(self) -> None:
        for server in self._servers.all:
            if server.facts is not None and not server.facts.lora:
                raise InputError(
                    f"The server at {server.url} takes no adapters: start it with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 "
                    'and --enable-lora (docs/vllm.md), or use rollout.server.lora_sync = "merged".'
                )

    def _push(self, server: Server, published: PublishedWeights, stamp: str) -> None:
        """Have a server take the weights, and name them."""
        if isinstance(published.way, AdapterBytes):
            self._push_adapter(server, published.way, stamp)
        elif isinstance(published.way, WeightFolder):
            server.endpoint.reload(str(published.way.path), stamp)
            server.stamp = stamp
        else:
            self._send(server, published, stamp)

    def _send(self, server: Server, published: PublishedWeights, stamp: str) -> None:
        """Have a server take the weights from this process's GPU."""
        published.source()  # refused here, where nothing was started yet
        if server.transfer is None:
            assert server.facts is not None
            address = self._section.transfer_address
            server.transfer = NcclTransfer(server.endpoint, _Sent(self), server.facts.dtype, address)
        server.transfer.send()
        server.endpoint.set_version(stamp)
        server.stamp = stamp

    def _push_adapter(self, server: Server, adapter: AdapterBytes, stamp: str) -> None:
        """Have a server take an adapter under a new name, and its base where an earlier run may have changed that."""
        assert server.facts is not None
        held = server.facts.version
        if server.adapter is None and held.startswith(OURS) and not held.startswith(f"{self._name}{self._run}-"):
            if adapter.base is None:
                self._base_wanted = True
                raise ServerUnavailableError(
                    f"The vLLM server at {server.url} holds another run's weights, and the base of the adapter comes "
                    "with the next update"
                )
            server.endpoint.reload(str(adapter.base), stamp)
        before = server.adapter
        with self._new_folder(stamp) as source:
            write_adapter(adapter, source)
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

    def _forget(self, following: PublishedWeights | None) -> None:
        """Delete the folder of what was published before; it was kept for servers that come back."""
        before, self._published = self._published, None
        if before is not None and before is not following:
            for folder in before.folders():
                shutil.rmtree(folder)

    # --- requests

    def _run_all(
        self, requests: Sequence[Sequence[ServerRequest]], on_progress: Callable[[int], None], check_stop: StopCheck
    ) -> list[list[Any]]:
        _ = self.version
        self._servers.leave_out_overwritten()
        if not self._servers.live and self._published is not None:  # perhaps one is back
            self.take(self._published)
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
        return list(self._engine._model.shapes.items())

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        published = self._engine._published
        assert published is not None
        return checked_tensors(published.source().named_tensors(), self._engine._model.shapes)


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
