"""One running vLLM server over HTTP: token ids in and out, weights by a folder that both sides can read.

The API key goes to the server's own address and nowhere else: redirects are not followed, and neither a proxy nor a
netrc file of this machine is asked.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from spark_kernel.errors import EngineError, InputError, ModelError
from spark_kernel.rollout.vllm_requests import one_line

CONNECT_SECONDS = 10.0
KEEP_ALIVE_SECONDS = 4.0
"""Below the 5 seconds after which vLLM's server drops an idle connection."""
ATTEMPTS = 2
"""Tries of a request whose connection broke: an idle one may have been dropped just then."""
START_FLAGS = "VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --enable-scale-out --logprobs-mode processed_logprobs"
"""What a server must be started with (docs/vllm.md)."""


class ServerUnavailableError(EngineError):
    """A server that is down, too slow, broken or overwritten: its prompts may be sampled elsewhere."""


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a server says of itself.

    `models`: names it answers to, the first its own. `context`: most tokens of prompt and output together. `dtype`:
    of its weights, as torch names it. `lora`: whether it takes adapters. `version`: of its weights. `transfer`: how
    weights can be sent to it without a file, None for not at all.
    """

    models: tuple[str, ...]
    context: int
    dtype: str
    lora: bool
    version: str
    transfer: str | None = None


class VllmEndpoint:
    """A vLLM server at a URL. Every method raises `ServerUnavailableError` where the server cannot be reached.

    Args:
        url: "http://host:port", without a path.
        api_key: sent with every request, or None.
        timeout: seconds that one answer may take.
        connections: most requests under way.
    """

    def __init__(self, url: str, api_key: str | None, timeout: float, connections: int) -> None:
        self.url = url
        self._key = api_key
        self._timeout = timeout
        self._client = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx.Timeout(timeout, connect=min(CONNECT_SECONDS, timeout), pool=None),
            limits=httpx.Limits(
                max_connections=connections + 2,
                max_keepalive_connections=connections + 2,
                keepalive_expiry=KEEP_ALIVE_SECONDS,
            ),
            follow_redirects=False,
            trust_env=False,
            verify=ssl.create_default_context(),
        )

    def facts(self) -> ServerFacts:
        """What the server is.

        Raises:
            InputError: it is no vLLM server that can be used for training; says how to start one.
        """
        cards = self._get("/v1/models")
        info = self._get("/server_info", params={"config_format": "json"})
        version = self.version()
        try:
            return self._usable(cards["data"], info["vllm_config"], version)
        except (KeyError, TypeError) as error:
            raise InputError(
                f"The server at {self.url} describes itself in another form than vLLM 0.32 ({error!r}): use that "
                'version, or rollout.engine = "transformers".'
            ) from error

    def _usable(self, cards: Any, config: Any, version: str) -> ServerFacts:
        """What the server is, refused where it was started in a way that would train wrongly."""
        model, scheduler = config["model_config"], config["scheduler_config"]
        if model["logprobs_mode"] != "processed_logprobs":
            raise InputError(
                f"The server at {self.url} reports {model['logprobs_mode']}, not the log-probabilities it samples "
                f"with: start it as {START_FLAGS}."
            )
        if config["device_config"]["device"] == "cpu" and scheduler["enable_chunked_prefill"]:
            raise InputError(
                f"The server at {self.url} runs on a CPU and cuts long prompts in two, after which it cannot keep to a "
                "seed: start it with --no-enable-chunked-prefill."
            )
        return ServerFacts(
            models=tuple(card["id"] for card in cards if card.get("parent") is None),
            context=int(model["max_model_len"]),
            dtype=str(model["dtype"]).removeprefix("torch."),
            lora=config["lora_config"] is not None,
            version=version,
            transfer=(config.get("weight_transfer_config") or {}).get("backend"),
        )

    def version(self) -> str:
        """The version of the weights it holds; "default" where none was ever pushed."""
        return str(self._get("/weight_info")["weight_version"])

    def generate(self, name: str, model: str, token_ids: Sequence[int], fields: Mapping[str, Any], images: Any) -> Any:
        """One request, with vLLM's sampling parameters; `images` are data URLs, one for each image token."""
        body: dict[str, Any] = {
            "request_id": name,
            "model": model,
            "token_ids": list(token_ids),
            "sampling_params": dict(fields),
            "return_token_ids": True,
        }
        if images:
            body["content_parts"] = [{"type": "image_url", "url": url} for url in images]
        return self._post("/inference/v1/generate", body)

    def abort(self, names: Sequence[str]) -> None:
        """End requests early: they answer with what they have."""
        self._post("/inference/v1/abort_requests", {"request_ids": [f"generate-tokens-{name}" for name in names]})

    def reload(self, folder: str, version: str) -> None:
        """Have it read full weights from a folder, and forget what it had computed with the old ones."""
        self._post("/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": folder}})
        self.set_version(version)

    def load_adapter(self, name: str, folder: str, version: str) -> None:
        """Have it read an adapter from a folder; it is a model of that name from then on."""
        self._post("/v1/load_lora_adapter", {"lora_name": name, "lora_path": folder})
        self.set_version(version)

    def unload_adapter(self, name: str) -> None:
        """Have it forget an adapter."""
        self._post("/v1/unload_lora_adapter", {"lora_name": name})

    # The four names below are vLLM's: its trainer side calls them (`vllm_transfer`).

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """Have its workers join a group; answers once all have."""
        self._post("/init_weight_transfer_engine", {"init_info": init_info})

    def start_weight_update(self) -> None:
        """Have it get ready for new weights."""
        self._post("/start_weight_update", None)

    def update_weights(self, update_info: Any) -> None:
        """Have its workers take what is being sent; answers once they have."""
        self._post("/update_weights", {"update_info": update_info})

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """Have it put the new weights to use."""
        self._post("/finish_weight_update", {"weight_version": weight_version} if weight_version else None)

    def workers(self) -> int:
        """How many processes hold its weights, over all parallel groups."""
        return int(self._get("/get_world_size", params={"include_dp": "true"})["world_size"])

    def set_version(self, version: str) -> None:
        """Name the weights it holds, and empty the caches that other weights may have filled."""
        for cache in ("prefix", "mm", "encoder"):
            self._post(f"/reset_{cache}_cache", None)
        self._post("/update_weight_version", {"new_version": version})

    def close(self) -> None:
        """Drop the connections."""
        self._client.close()

    def _get(self, path: str, params: Mapping[str, str] | None = None) -> Any:
        return self._answer("GET", path, params=params)

    def _post(self, path: str, body: Any) -> Any:
        return self._answer("POST", path, json=body)

    def _answer(self, method: str, path: str, **what: Any) -> Any:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                response = self._client.request(method, path, **what)
                break
            except httpx.ConnectError as error:
                raise self._unavailable(f"cannot be reached ({one_line(error)})") from None
            except httpx.TimeoutException:
                raise self._unavailable(f"did not answer within {self._timeout:g} s") from None
            except httpx.TransportError as error:
                if attempt == ATTEMPTS:
                    raise self._unavailable(f"broke off ({one_line(error)})") from None
        self._check(response, path)
        if not response.headers.get("content-type", "").startswith("application/json"):
            return None
        try:
            return response.json()
        except ValueError:
            raise self._unavailable(f"answered {path} with something that is not JSON") from None

    def _check(self, response: httpx.Response, path: str) -> None:
        status = response.status_code
        if status < 300:
            return
        if status < 400:
            target = urlsplit(response.headers.get("location", ""))
            raise InputError(
                f"The server at {self.url} redirects to {target.scheme}://{target.netloc}{target.path}, and redirects "
                "are not followed, so that an API key goes to no other host: name the final address in "
                "rollout.server.urls."
            )
        said = self._without_key(one_line(response.text))
        if status in (401, 403) and not path.startswith("/inference/v1/"):
            raise InputError(
                f"The server at {self.url} refuses the API key: name the environment variable that holds it in "
                f"rollout.server.api_key_env ({said})."
            )
        if status in (401, 403):
            raise InputError(f"The server at {self.url} does not let us sample ({said}): start it as {START_FLAGS}.")
        if status == 404 and "does not exist" not in said:
            raise InputError(
                f"The server at {self.url} has no {path}, so it is no vLLM server of version 0.32 or newer that can be "
                f"trained with: start it as {START_FLAGS}."
            )
        if status < 500:
            raise ModelError(f"The server at {self.url} refuses a request ({said}).")
        raise self._unavailable(f"failed ({said})")

    def _unavailable(self, what: str) -> ServerUnavailableError:
        return ServerUnavailableError(f"The vLLM server at {self.url} {what}")

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text
