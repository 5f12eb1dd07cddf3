"""What stands in front of every request: named hosts, our origin, known routes, bounded and checked bodies, and a pace.

Gradio's server brings more routes than the app needs (a proxy, recordings, monitoring, files by URL); only those that
the page and its client use are let through. Bodies are read to their end here, checked (`payload.Door`) and written
anew; uploads are taken here and never reach Gradio.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import parse_qsl, urlencode

from spark_kernel.errors import InputError
from workbench.app.access import Access
from workbench.app.asgi import App, Message, Receive, Scope, Send, all_of, body_of, one_of, replay, respond
from workbench.app.forwarded import client_of, forwarded_host, host_name, same_origin, trusted
from workbench.app.limits import Limits
from workbench.app.links import NAMES as LINK_NAMES
from workbench.app.pace import KnownSessions, OpenRequests, Pace
from workbench.app.payload import REFUSED, Door
from workbench.app.upload_form import file_of_form
from workbench.app.uploads import PREFIX, Uploads
from workbench.app.workroom import Workroom

__all__ = ["CONTENT_POLICY", "Guard"]

API = "/gradio_api"
READ = re.compile(
    r"/(?:|config/?|theme\.css|assets/.*|static/.*|svelte/.*|favicon\.ico|robots\.txt|manifest\.json|login_check/?"
    r"|gradio_api/(?:info/?|heartbeat/[A-Za-z0-9_-]{1,64}|queue/data|queue/status|upload_progress|theme\.css"
    r"|startup-events|login_check/?|user/?|app_id/?))"
)
"""What may be read, besides images that were uploaded. Gradio would also fetch a file that is named by a URL."""
JOIN, RUN, UPLOAD = f"{API}/queue/join", f"{API}/run/predict", f"{API}/upload"
STREAM = f"{API}/queue/data"
ENDINGS = (f"{API}/cancel", f"{API}/reset")
LOGIN, LOGOUT = "/login", "/logout"
WRITE = (JOIN, RUN, UPLOAD, *ENDINGS, LOGIN, LOGOUT)
"""What may be posted to, with or without a slash at the end: the page's events, their end, an image, the password."""
FILE = f"{API}/file="
PACED = re.compile(r"/(?:|config/?|gradio_api/(?:file=.*|info/?|heartbeat/.*|queue/.*|upload_progress))")
"""What of reading counts towards a client's pace, unless it answers a question; assets do not. All posts do."""
QUERIES = {
    "/": (*LINK_NAMES, "__theme"),
    STREAM: ("session_hash",), f"{API}/info": ("all_endpoints",),
}  # fmt: skip
"""The parts of an address that are passed on; of what is posted to, those of the page."""
QUERY_BYTES = 6_000
BODY_SECONDS = 30.0
"""Longest that a client may take to send a body."""
CONTENT_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
"""Nothing is loaded from or sent to anywhere else. Gradio's page and Plotly need inline scripts and eval."""
HOSTED_FRAMES = " https://huggingface.co"
UPLOAD_CHECKS, CLIENT_CHECKS = 16, 2
"""Uploads that wait to be checked, of all and of one client."""
TOO_MANY = "Too many requests: come back in a moment."
ABOUT_BODY = (b"content-length", b"content-type", b"transfer-encoding", b"accept-encoding")
"""What is written anew for a body that was checked. Gradio would compress the answer on the event loop."""
Headers = list[tuple[bytes, bytes]]


class Refused(Exception):  # noqa: N818 (no failure, an answer):
    """A request that ends here: its status, a sentence, and what the answer's head says besides."""

    def __init__(self, status: int, sentence: str, headers: Headers | None = None) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.headers = status, sentence, headers or []


class Guard:
    """ASGI middleware; see the module.

    Args:
        uploads: the images that were uploaded; the only files that are served besides Gradio's own.
        door: checks the bodies that the page posts.
    """

    def __init__(self, app: App, access: Access, limits: Limits, uploads: Uploads, door: Door) -> None:
        self._app, self._access, self._limits, self._uploads, self._door = app, access, limits, uploads, door
        self._pace = Pace(limits.requests_per_second, limits.burst)
        self._logins = Pace(limits.logins_per_minute / 60, limits.logins_per_minute)
        self._open, self._sessions = OpenRequests(limits.open_requests), KnownSessions()
        self._checks = Workroom("upload", 2, UPLOAD_CHECKS, CLIENT_CHECKS)
        frames = HOSTED_FRAMES if access.public else ""
        self._headers: Headers = [
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
        client = client_of(scope, self._access.proxies)
        if not self._open.enter(client):
            await self._refuse(Refused(429, TOO_MANY, [(b"retry-after", b"1")]), scope, send)
            return
        try:
            await self._handle(scope, client, receive, send)
        except Refused as refusal:
            await self._refuse(refusal, scope, send)
        finally:
            self._open.leave(client)

    async def _handle(self, scope: Scope, client: str, receive: Receive, send: Send) -> None:
        host = self._check_origin(scope)
        method, path = scope["method"], scope["path"].removesuffix("/") or "/"
        if not self._is_known(method, scope["path"], path):
            raise Refused(404, "There is nothing here.")
        if len(scope.get("query_string", b"")) > QUERY_BYTES:
            raise Refused(414, REFUSED)
        session = _session(scope) if method != "POST" and path == STREAM else None
        if session is None or not self._sessions.take(session):
            self._check_pace(method, path, client)
        # What comes later asks this for the client, too.
        inner = {
            **scope, "client": (client, 0), "headers": trusted(scope["headers"], self._access, host),
            "query_string": _query(method, path, scope.get("query_string", b"")),
        }  # fmt: skip
        if method == "POST":
            await self._post(inner, path, client, receive, send)
        elif path.startswith(FILE):
            await self._serve_upload(inner, path.removeprefix(FILE), send)
        elif path == f"{API}/upload_progress":
            # An upload is answered when it is whole and checked: there is nothing between to tell.
            await self._answer(send, 200, b'data: {"msg": "done"}\n\n', b"text/event-stream")
        else:
            if path == STREAM and session not in self._sessions:
                raise Refused(404, "There is nothing here.")
            await self._app(inner, receive, self._with_headers(send))

    async def _post(self, scope: Scope, path: str, client: str, receive: Receive, send: Send) -> None:
        if path not in (LOGIN, LOGOUT) and not await self._signed_in(scope):
            raise Refused(401, "Not authenticated: give the password first.")
        most = self._most_bytes(path)
        length = one_of(scope["headers"], b"content-length") or "0"
        if not length.isdigit() or int(length[:12]) > most:
            raise Refused(413, f"At most {most} bytes are taken.")
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await body_of(receive, most)
        except TimeoutError:
            raise Refused(408, "The body did not come in time.") from None
        if body is None:
            raise Refused(413, f"At most {most} bytes are taken.")
        if path == UPLOAD:
            await self._take_upload(scope, client, body, send)
            return
        if path == LOGOUT:
            await self._log_out(scope, send)
            return
        if path != LOGIN:
            try:
                call = self._door.ending(body) if path in ENDINGS else self._door.call(body, queued=path == JOIN)
            except InputError as error:
                raise Refused(400, str(error)) from None
            if path == JOIN:
                self._sessions.add(call.session)
            body = call.body
        sized = [
            (name, value) for name, value in scope["headers"] if name not in (b"content-length", b"transfer-encoding")
        ]
        if path != LOGIN:
            sized = [(name, value) for name, value in sized if name != b"content-type"]
            sized.append((b"content-type", b"application/json"))
        sized.append((b"content-length", str(len(body)).encode()))
        await self._app({**scope, "headers": sized}, replay(body, receive), self._with_headers(send))

    async def _take_upload(self, scope: Scope, client: str, body: bytes, send: Send) -> None:
        data = await file_of_form(scope["headers"], body)
        if data is None:
            raise Refused(400, "The upload is refused: it must be a form with one file.")
        try:
            upload = await self._checks.run(client, self._uploads.add, client, data)
        except InputError as error:
            raise Refused(400, str(error)) from None
        await self._answer(send, 200, json.dumps([upload.name]).encode(), b"application/json")

    async def _serve_upload(self, scope: Scope, name: str, send: Send) -> None:
        if not await self._signed_in(scope):
            raise Refused(401, "Not authenticated: give the password first.")
        try:
            upload = self._uploads.find(name)
            data = await asyncio.to_thread(self._uploads.read, upload)
        except InputError:
            raise Refused(404, "There is nothing here.") from None
        await self._answer(send, 200, b"" if scope["method"] == "HEAD" else data, upload.media_type.encode())

    async def _log_out(self, scope: Scope, send: Send) -> None:
        """End this session and no other. Gradio would end all of a user's, at a link that any page may hold."""
        if self._access.password is None:
            raise Refused(404, "There is nothing here.")
        if one_of(scope["headers"], b"origin") is None:
            raise Refused(403, "Only this page itself may end a session.")
        cookies = b"; ".join(all_of(scope["headers"], b"cookie"))
        # Gradio ends the session that the cookie for HTTPS names, also where a browser has kept the other one only.
        alone = re.search(rb"access-token-unsecure-([\w-]+)=([\w-]+)", cookies)
        if alone is not None and b"access-token-" + alone[1] + b"=" not in cookies:
            cookies += b"; access-token-" + alone[1] + b"=" + alone[2]
        headers = [(name, value) for name, value in scope["headers"] if name != b"cookie"]
        inner = {
            **scope, "method": "GET", "path": LOGOUT, "raw_path": LOGOUT.encode(), "query_string": b"all_session=false",
            "headers": [*headers, (b"cookie", cookies)],
        }  # fmt: skip
        await self._app(inner, replay(b""), self._with_headers(send))

    async def _signed_in(self, scope: Scope) -> bool:
        """Whether the password was given, where there is one: Gradio knows."""
        if self._access.password is None:
            return True
        seen: list[int] = []

        async def note(message: Message) -> None:
            if message["type"] == "http.response.start":
                seen.append(message["status"])

        asking: MutableMapping[str, Any] = {
            **scope, "method": "GET", "path": f"{API}/login_check", "raw_path": f"{API}/login_check".encode(),
            "query_string": b"",
        }  # fmt: skip
        await self._app(asking, replay(b""), note)
        return seen == [200]

    def _check_origin(self, scope: Scope) -> str:
        """The name that the client called us by.

        Raises:
            Refused: it is none of ours, or the request comes from another site's page.
        """
        headers = scope["headers"]
        host = forwarded_host(headers) if self._access.forwarded_host else one_of(headers, b"host")
        if host is None or host_name(host) not in self._access.hosts:
            raise Refused(421, "This app does not answer to that host name.")
        origin = one_of(headers, b"origin")
        elsewhere = origin is not None and not same_origin(origin, host)
        if elsewhere or (one_of(headers, b"sec-fetch-site") == "cross-site" and scope["method"] not in ("GET", "HEAD")):
            raise Refused(403, "Requests from other sites are refused.")
        return host

    def _is_known(self, method: str, sent: str, path: str) -> bool:
        if ".." in sent or "\\" in sent or "\n" in sent or "\r" in sent:
            return False
        if method == "POST":
            return path in WRITE and (path not in (LOGIN, LOGOUT) or self._access.password is not None)
        return method in ("GET", "HEAD") and (READ.fullmatch(sent) is not None or path.startswith(f"{FILE}{PREFIX}"))

    def _check_pace(self, method: str, path: str, client: str) -> None:
        wait = self._logins.wait(client) if method == "POST" and path == LOGIN else 0.0
        if not wait and (method == "POST" or PACED.fullmatch(path)):
            wait = self._pace.wait(client)
        if wait:
            raise Refused(429, TOO_MANY, [(b"retry-after", str(int(wait) + 1).encode())])

    def _most_bytes(self, path: str) -> int:
        # A form around the image takes a little more than the image.
        return self._limits.image_bytes + 4096 if path == UPLOAD else self._limits.body_bytes

    def _with_headers(self, send: Send) -> Send:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *self._headers]}
            await send(message)

        return sending

    async def _refuse(self, refusal: Refused, scope: Scope, send: Send) -> None:
        if scope["path"].startswith(API):  # the page's script shows what stands under these names
            body = json.dumps({"detail": refusal.sentence, "error": refusal.sentence}).encode()
            await self._answer(send, refusal.status, body, b"application/json", refusal.headers)
        else:
            await self._answer(
                send, refusal.status, refusal.sentence.encode(), b"text/plain; charset=utf-8", refusal.headers
            )

    async def _answer(self, send: Send, status: int, body: bytes, kind: bytes, headers: Headers | None = None) -> None:
        await respond(send, status, body, [(b"content-type", kind), *self._headers, *(headers or [])])


def _session(scope: Scope) -> str | None:
    """The session whose messages a request wants to read."""
    return dict(parse_qsl(scope.get("query_string", b"").decode("latin-1"))).get("session_hash")


def _query(method: str, path: str, query: bytes) -> bytes:
    """The parts of an address that somebody reads; Gradio would read others."""
    wanted = QUERIES["/"] if method == "POST" else QUERIES.get(path, ())
    parts = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    return urlencode([(name, value) for name, value in parts if name in wanted]).encode("latin-1")
