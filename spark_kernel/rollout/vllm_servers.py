"""Several vLLM servers as one: which of them can be used, who is asked, and what happens when one fails."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from spark_kernel.config.sections import ServerSection
from spark_kernel.errors import EngineError, InputError, StopCheck
from spark_kernel.prompts.prompt import Prompt
from spark_kernel.rollout.sync_check import TOLERANCES
from spark_kernel.rollout.vllm_endpoint import ServerFacts, ServerUnavailableError, VllmEndpoint
from spark_kernel.rollout.vllm_requests import check_expanded
from spark_kernel.rollout.vllm_transfer import BACKEND, Transfer, check_transfer

STOP_SECONDS = 0.1
"""How often a wait for servers looks whether a stop was asked for."""
ABORT_SECONDS = 10.0
"""How long a stop waits for servers to end their requests."""


@dataclass(slots=True)
class Server:
    """A server and what is known of it.

    `facts`: None until it was reached. `model`: what requests name: the base model, or the last adapter. `stamp`: the
    version of the weights that this run pushed to it; None where it is left out. `transfer`: the open way of weights to
    it, where they go without a file. `fault`: why it was left out the last time.
    """

    endpoint: VllmEndpoint
    facts: ServerFacts | None = None
    model: str = ""
    adapter: str | None = None
    stamp: str | None = None
    transfer: Transfer | None = None
    fault: str = ""

    @property
    def url(self) -> str:
        """Its address."""
        return self.endpoint.url

    def drop(self) -> None:
        """Use it no more until it is connected and pushed to again."""
        self.stamp = self.facts = None
        if self.transfer is not None:
            self.transfer.close()
            self.transfer = None


@dataclass(frozen=True, slots=True)
class ServerRequest:
    """One request.

    `sent`: token ids with one for each image. `expected`: the prompt's token ids as the learner has them. `fields`:
    vLLM's sampling parameters. `images`: data URLs.
    """

    prompt: Prompt
    sent: list[int]
    expected: list[int]
    fields: dict[str, Any]
    images: tuple[str, ...]


def connect(section: ServerSection, endpoint: VllmEndpoint, *, device: str, context: int = 0) -> ServerFacts:
    """What a server says of itself, if it can be used.

    Args:
        section: the settings of servers.
        endpoint: the server.
        device: the type of the learner's device, as torch names it.
        context: tokens of prompt and output that it must take; 0 while the model is not known.

    Raises:
        ServerUnavailableError: it cannot be reached.
        InputError: it is no server that can be trained with, serves another model, or has too short a context.
    """
    facts = endpoint.facts()
    if section.model is not None and section.model not in facts.models:
        raise InputError(
            f"The server at {endpoint.url} serves {', '.join(facts.models)}, not {section.model}: correct "
            "rollout.server.model, or start the server with --served-model-name."
        )
    if facts.context < context:
        raise InputError(
            f"The server at {endpoint.url} has a context of {facts.context} tokens, and prompt and output may take "
            f"{context}: start it with --max-model-len {context}, or lower "
            "rollout.max_prompt_tokens or rollout.max_new_tokens."
        )
    if facts.dtype not in TOLERANCES:
        raise InputError(
            f"The server at {endpoint.url} computes in {facts.dtype}: start it with --dtype and one of "
            f"{', '.join(TOLERANCES)}."
        )
    if section.transfer == BACKEND:
        check_transfer(endpoint.url, facts.transfer, device)
    return facts


def check_servers(section: ServerSection, *, api_key: str | None, device: str) -> None:
    """Whether any server can be used, found out before weights are loaded.

    Args:
        section: the settings of servers.
        api_key: sent with every request.
        device: the type of the learner's device.

    Raises:
        InputError: as `connect`, or none can be reached.
    """
    faults = []
    for url in section.urls:
        endpoint = VllmEndpoint(url, api_key, section.timeout_seconds, 1)
        try:
            connect(section, endpoint, device=device)
        except ServerUnavailableError as error:
            faults.append(str(error))
        finally:
            endpoint.close()
    if len(faults) == len(section.urls):
        raise InputError(f"{'; '.join(faults)}: start it (docs/vllm.md), or correct rollout.server.urls.")


class Servers:
    """The servers of a run.

    Args:
        section: which they are, and how they are asked.
        api_key: sent with every request.
        context: most tokens of prompt and output together that the run needs.
        remark: told of every server that is left out.
    """

    def __init__(
        self, section: ServerSection, *, api_key: str | None, context: int, remark: Callable[[str], None]
    ) -> None:
        self._connections, self._context = section.connections, context
        self._remark = remark
        self.all = [
            Server(VllmEndpoint(url, api_key, section.timeout_seconds, section.connections)) for url in section.urls
        ]

    @property
    def live(self) -> list[Server]:
        """Those that hold this run's weights."""
        return [server for server in self.all if server.stamp is not None]

    @property
    def context(self) -> int:
        """Most tokens that every reached server takes; the run's own bound where none was reached."""
        contexts = [server.facts.context for server in self.all if server.facts is not None]
        return min(contexts, default=self._context)

    def leave_out(self, server: Server, error: ServerUnavailableError) -> None:
        """Use a server no more until it is pushed to again."""
        server.fault = str(error)  # first: other requests ask for it once they see that it is left out
        server.drop()
        self._remark(f"{error}: its prompts go to the other servers, and it is left out until the next update")

    def leave_out_overwritten(self) -> None:
        """Leave out servers that were restarted, or overwritten by someone else, since the last push."""
        for server in self.live:
            try:
                version = server.endpoint.version()
                if version != server.stamp:
                    raise _overwritten(server, version)
            except ServerUnavailableError as error:
                self.leave_out(server, error)

    def none_left(self, why: str) -> EngineError:
        """The error of a run without servers."""
        return EngineError(
            f"No vLLM server is left to sample with ({why}): start it again with the model of the run's start and "
            "resume the run."
        )

    def close(self) -> None:
        """Drop all connections."""
        for server in self.all:
            server.drop()
            server.endpoint.close()

    def run_all(
        self, requests: Sequence[Sequence[ServerRequest]], on_progress: Callable[[int], None], check_stop: StopCheck
    ) -> list[list[Any]]:
        """Every request's reply. Group i goes to server i modulo the live ones; an interruption ends all requests.

        Raises:
            EngineError: no server is left.
        """
        live = self.live
        if not live:
            raise self.none_left("all are left out")
        under_way: dict[str, Server] = {}
        pools = [ThreadPoolExecutor(self._connections, thread_name_prefix="vllm") for _ in live]
        futures: list[list[Future[Any]]] = []
        try:
            for index, group in enumerate(requests):
                first = index % len(live)
                order = [*live[first:], *live[:first]]
                futures.append([pools[first].submit(self._anywhere, request, order, under_way) for request in group])
            pending = {future for group in futures for future in group}
            while pending:
                check_stop()
                done, pending = wait(pending, STOP_SECONDS, FIRST_COMPLETED)
                for future in done:
                    future.result()
                if done:
                    on_progress(len(done))
        except BaseException:
            _abandon(pools, under_way)
            raise
        for pool in pools:
            pool.shutdown()
        return [[future.result() for future in group] for group in futures]

    def _anywhere(self, request: ServerRequest, order: Sequence[Server], under_way: dict[str, Server]) -> Any:
        """The reply of the first server that gives one."""
        for server in order:
            stamp = server.stamp
            if stamp is None:
                continue
            try:
                return ask(server, request, stamp, under_way)
            except ServerUnavailableError as error:
                if server.stamp is not None:
                    self.leave_out(server, error)
        raise self.none_left("; ".join(server.fault for server in order if server.fault) or "all are left out")


def ask(server: Server, request: ServerRequest, stamp: str | None, under_way: dict[str, Server]) -> Any:
    """One server's reply.

    Args:
        server: the server.
        request: the request.
        stamp: the version of the weights that must answer; None: any.
        under_way: holds the request's name as long as it runs.

    Raises:
        ServerUnavailableError: it is down, slow, gave up, or holds other weights than were pushed to it.
        ModelError: it refuses the request, or expands images to other tokens than the learner.
    """
    name = uuid.uuid4().hex
    under_way[name] = server
    try:
        reply = server.endpoint.generate(name, server.model, request.sent, request.fields, request.images)
    finally:
        del under_way[name]
    try:
        choice = reply["choices"][0]
        finish, spans = choice["finish_reason"], choice.get("weight_versions") or []
        check_expanded(request.prompt, request.expected, reply["prompt_token_ids"])
    except (KeyError, IndexError, TypeError) as error:
        raise ServerUnavailableError(
            f"The vLLM server at {server.url} answers in another form than vLLM 0.32 ({error!r})"
        ) from None
    if finish not in ("stop", "length"):
        raise ServerUnavailableError(f"The vLLM server at {server.url} gave up a request ({finish})")
    for span in spans:
        if stamp is not None and span["version"] != stamp:
            raise _overwritten(server, span["version"])
    return reply


def _abandon(pools: Sequence[ThreadPoolExecutor], under_way: dict[str, Server]) -> None:
    """End all requests: those that wait are dropped, those under way are aborted at their servers."""
    for pool in pools:
        pool.shutdown(wait=False, cancel_futures=True)
    deadline = time.monotonic() + ABORT_SECONDS
    while under_way and time.monotonic() < deadline:
        current = dict(under_way)
        for server in {id(server): server for server in current.values()}.values():
            try:
                server.endpoint.abort([name for name, where in current.items() if where is server])
            except (EngineError, InputError):
                return  # it is down, or cannot abort: its requests end when their time is over
        time.sleep(STOP_SECONDS)


def _overwritten(server: Server, version: str) -> ServerUnavailableError:
    return ServerUnavailableError(
        f"The vLLM server at {server.url} holds other weights than this run pushed ({version}): was it restarted, or "
        "does another run use it"
    )
