"""What stands in front of every request: named hosts, our own origin, known routes, bounded bodies, and a pace.

Gradio's server brings more routes than the app needs (a proxy, recordings, monitoring, files by URL); only those that
the page and its client use are let through.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from workbench.app.access import Access
from workbench.app.limits import Limits

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

READ = re.compile(
    r"/(?:$|config/?$|theme\.css$|assets/|static/|svelte/|favicon\.ico$|robots\.txt$|manifest\.json$|logout$|login_check/?$"
    r"|gradio_api/(?:info/?$|heartbeat/\w+$|queue/data$|queue/status$|upload_progress$|theme\.css$|startup-events$"
    r"|login_check/?$|user/?$|app_id/?$))"
)
"""What may be read, besides images that were uploaded. Gradio would also fetch a file that is named by a URL."""
FILE = "/gradio_api/file="
WRITE = re.compile(r"/(?:login/?$|gradio_api/(?:queue/join$|run/\w+/?$|cancel$|reset/?$|upload$))")
"""What may be posted to: the page's events, their cancelling, an image, the password."""
LOGIN, UPLOAD = re.compile(r"/login/?$"), re.compile(r"/gradio_api/upload$")
PACED = re.compile(r"/(?:$|config|gradio_api/(?:queue/join|run/|upload|file=|info))")
"""What counts towards a client's pace; assets, streams and their bookkeeping do not."""
MOST_CLIENTS = 4096
CONTENT_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
"""Nothing is loaded from or sent to anywhere else. Gradio's page and Plotly need inline scripts and eval."""
HOSTED_FRAMES = " https://huggingface.co"


class Pace:
    """A token bucket per client: `rate` requests per second in the long run, `burst` at once.

    Not safe between threads; the guard runs on the server's one event loop.
    """

    def __init__(self, rate: float, burst: int, now: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._now = rate, burst, now
        self._clients: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, client: str) -> float:
        """0 if the client may go on, else the seconds until it may."""
        now = self._now()
        tokens, last = self._clients.pop(client, (float(self._burst), now))
        tokens = min(self._burst, tokens + (now - last) * self._rate)
        allowed = tokens >= 1
        self._clients[client] = (tokens - 1 if allowed else tokens, now)
        while len(self._clients) > MOST_CLIENTS:
            self._clients.popitem(last=False)
        return 0.0 if allowed else (1 - tokens) / self._rate


class Guard:
    """ASGI middleware; see the module.

    Args:
        uploads: the only folder that files are served from.
    """

    def __init__(self, app: App, access: Access, limits: Limits, uploads: str) -> None:
        self._app, self._access, self._limits = app, access, limits
        self._uploaded = f"{FILE}{uploads.rstrip('/')}/"
        self._pace = Pace(limits.requests_per_second, limits.burst)
        self._logins = Pace(limits.logins_per_minute / 60, limits.logins_per_minute)
        frames = HOSTED_FRAMES if access.public else ""
        self._headers = [
            (b"content-security-policy", (CONTENT_POLICY + frames).encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"same-origin"),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with what is wrong with it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # the app has no web sockets
            await send({"type": "websocket.close", "code": 1008})
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await _answer(send, *refusal)
            return
        # What comes later asks this for the client, too.
        trimmed = {**scope, "headers": self._trusted_headers(scope), "client": (self.client(scope), 0)}
        await self._app(trimmed, self._bounded(scope, receive), self._with_headers(send))

    def client(self, scope: Scope) -> str:
        """Who asks, for its pace: the peer, or what our outermost proxy says of it."""
        return client_of(scope, self._access.proxies)

    def _refusal(self, scope: Scope) -> tuple[int, str, list[tuple[bytes, bytes]]] | None:
        headers = scope["headers"]
        host = _one(headers, b"host")
        if host is None or host_name(host) not in self._access.hosts:
            return 421, "This app does not answer to that host name.", []
        origin = _one(headers, b"origin")
        if origin is not None and not same_origin(origin, host):
            return 403, "Requests from other sites are refused.", []
        if _one(headers, b"sec-fetch-site") == "cross-site" and scope["method"] not in ("GET", "HEAD"):
            return 403, "Requests from other sites are refused.", []
        method, path = scope["method"], scope["path"]
        if not self._is_known(method, path):
            return 404, "There is nothing here.", []
        length = _one(headers, b"content-length") or "0"
        if not length.isdigit() or int(length) > self._most_bytes(path):
            return 413, f"At most {self._most_bytes(path)} bytes are taken.", []
        client = self.client(scope)
        wait = self._logins.wait(client) if method == "POST" and LOGIN.match(path) else 0.0
        if not wait and PACED.match(path):
            wait = self._pace.wait(client)
        if wait:
            return 429, "Too many requests: come back in a moment.", [(b"retry-after", str(int(wait) + 1).encode())]
        return None

    def _is_known(self, method: str, path: str) -> bool:
        if ".." in path or "\\" in path:
            return False
        if method == "POST":
            return bool(WRITE.match(path))
        return method in ("GET", "HEAD") and (bool(READ.match(path)) or path.startswith(self._uploaded))

    def _most_bytes(self, path: str) -> int:
        # A form around the image takes a little more than the image.
        return self._limits.image_bytes + 4096 if UPLOAD.match(path) else self._limits.body_bytes

    def _bounded(self, scope: Scope, receive: Receive) -> Receive:
        """Bodies that do not say their length are cut off at the limit, as if the client had gone."""
        most, seen = self._most_bytes(scope["path"]), 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            if message["type"] == "http.request":
                seen += len(message.get("body", b""))
                if seen > most:
                    return {"type": "http.disconnect"}
            return message

        return counted

    def _trusted_headers(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        """Without what a client could write about proxies, unless there are any."""
        if self._access.proxies:
            return list(scope["headers"])
        return [(name, value) for name, value in scope["headers"] if not name.startswith(b"x-forwarded")]

    def _with_headers(self, send: Send) -> Send:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *self._headers]}
            await send(message)

        return sending


def client_of(scope: Scope, proxies: int) -> str:
    """The client's address: the peer's, or with proxies of ours the one that the outermost of them saw."""
    if proxies:
        chain = [part.strip() for part in (_one(scope["headers"], b"x-forwarded-for") or "").split(",")]
        if len(chain) >= proxies and chain[-proxies]:
            return chain[-proxies]
    peer = scope.get("client")
    return str(peer[0]) if peer else "unknown"


def host_name(host: str) -> str:
    """A Host header without its port, in lower case."""
    return re.sub(r":\d*$", "", host.strip().lower())


def same_origin(origin: str, host: str) -> bool:
    """Whether an Origin header is that of the page under this Host, port included."""
    match = re.fullmatch(r"(https?)://([^/]+)", origin.strip().lower())
    if match is None:
        return False
    default = ":443" if match[1] == "https" else ":80"
    return match[2].removesuffix(default) == host.strip().lower().removesuffix(default)


def _one(headers: list[tuple[bytes, bytes]], name: bytes) -> str | None:
    """A header's value; of one that is given twice, nothing that could be accepted."""
    found = [value for key, value in headers if key.lower() == name]
    if not found:
        return None
    return found[0].decode("latin-1") if len(found) == 1 or name == b"x-forwarded-for" else "\0"


async def _answer(send: Send, status: int, sentence: str, headers: list[tuple[bytes, bytes]]) -> None:
    body = sentence.encode()
    fixed = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*fixed, *headers]})
    await send({"type": "http.response.body", "body": body})
