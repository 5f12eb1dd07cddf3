"""The app's guard around an application that says what reached it, and pictures to send there."""

from __future__ import annotations

import asyncio
import io
import struct
import zlib
from pathlib import Path

import httpx
from PIL import Image

from workbench.app.access import decide_access
from workbench.app.guard import Guard
from workbench.app.limits import LOCAL, Limits
from workbench.app.payload import Action, Door
from workbench.app.uploads import Uploads


async def echo(scope, receive, send):
    """An application that reads its whole body and says how long it was, and who asked."""
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    forwarded = [value.decode() for name, value in scope["headers"] if name.startswith(b"x-forwarded")]
    body = f"{size} {scope['client'][0]} {forwarded}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


NOTHING = Action(queued=True, slots=(), event=False)
JOINS = {"data": [], "fn_index": 0, "session_hash": "s1"}
"""A body that the page of these tests would send."""


def guard(access=None, limits: Limits = LOCAL) -> Guard:
    """The guard with one function that a page may call, and `echo` behind it."""
    return Guard(echo, access or decide_access(), limits, Uploads(Path("/nowhere"), limits), Door({0: NOTHING}))


def client(access=None, limits: Limits = LOCAL, base: str = "http://127.0.0.1:7860") -> httpx.AsyncClient:
    """A client of the guard, in this process: every request comes from 10.0.0.9."""
    transport = httpx.ASGITransport(app=guard(access, limits), client=("10.0.0.9", 4711))
    return httpx.AsyncClient(transport=transport, base_url=base)


def run_async(coroutine):
    """What a coroutine returns, in a loop of its own."""
    return asyncio.run(coroutine)


async def get(path: str = "/", *, access=None, limits: Limits = LOCAL, **headers: str) -> httpx.Response:
    """The answer to a GET with these headers."""
    async with client(access, limits) as http:
        return await http.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})


def png_of(width: int, height: int) -> bytes:
    """A PNG that claims this size and holds almost nothing: what a decompression bomb looks like."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


def red_png() -> bytes:
    """A picture of 8 x 8 red pixels."""
    data = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(data, "PNG")
    return data.getvalue()
