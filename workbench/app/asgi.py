"""Small tools for ASGI: names for its parts, headers, bodies, and an answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = Sequence[tuple[bytes, bytes]]


def all_of(headers: Headers, name: bytes) -> list[bytes]:
    """Every value of a header, in order."""
    return [value for key, value in headers if key.lower() == name]


def one_of(headers: Headers, name: bytes) -> str | None:
    """A header's value; of one that is given twice, nothing that could be accepted."""
    found = all_of(headers, name)
    if not found:
        return None
    return found[0].decode("latin-1") if len(found) == 1 else "\0"


async def body_of(receive: Receive, most: int) -> bytes | None:
    """A request's whole body; None where it is longer than `most`, or the client went away."""
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return None
        part = message.get("body", b"")
        size += len(part)
        if size > most:
            return None
        parts.append(part)
        more = message.get("more_body", False)
    return b"".join(parts)


def replay(body: bytes, receive: Receive | None = None) -> Receive:
    """A body to read once more; afterwards what `receive` says, or that the client went away."""
    sent = False

    async def again() -> Message:
        nonlocal sent
        if sent:
            return {"type": "http.disconnect"} if receive is None else await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def respond(send: Send, status: int, body: bytes, headers: Headers) -> None:
    """A whole answer."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
