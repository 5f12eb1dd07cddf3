"""The served app over plain HTTP: its events by name, and one question from joining the queue to its last word."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx

API = "gradio_api"


@dataclass(frozen=True)
class Reply:
    """How a question ended. `status`: of joining; `data`: what came last; `error`: what the page would show."""

    status: int
    data: list[Any] | None = None
    error: str = ""


def ask_data(
    question: str, model: str = "builtin:starter", second: str = "no second model", **change: Any
) -> list[Any]:
    """What the page sends when "Ask" is clicked."""
    fields = {
        "question": question, "first": model, "second": second, "image": None, "gold": "", "verifier": "math",
        "temperature": 0, "new_tokens": 64, "reflections": 1, "view": "answer", "seed": 0, "faithful": False,
    }  # fmt: skip
    return list((fields | change).values())


def ask_index(config: dict[str, Any]) -> int:
    """The number of the event behind "Ask"."""
    return next(dep["id"] for dep in config["dependencies"] if dep["api_name"] == "ask")


async def join(http: httpx.AsyncClient, index: int, data: list[Any], session: str) -> httpx.Response:
    """Ask for an event."""
    body = {"data": data, "fn_index": index, "session_hash": session, "event_data": None, "trigger_id": None}
    return await http.post(f"/{API}/queue/join", json=body)


async def messages(http: httpx.AsyncClient, session: str) -> AsyncIterator[dict[str, Any]]:
    """The server's messages to a session, as they come."""
    async with http.stream("GET", f"/{API}/queue/data", params={"session_hash": session}) as stream:
        async for line in stream.aiter_lines():
            if line.startswith("data:"):
                yield json.loads(line[5:])


async def ask(http: httpx.AsyncClient, index: int, data: list[Any], session: str) -> Reply:
    """One question, to its end."""
    joined = await join(http, index, data, session)
    if joined.status_code != 200:
        return Reply(joined.status_code, error=joined.text)
    async for message in messages(http, session):
        if message["msg"] == "process_completed":
            output = message["output"]
            return Reply(200, output.get("data"), str(output.get("error") or ""))
    return Reply(200, error="the stream ended without a last word")
