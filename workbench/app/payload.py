"""What a client may post: checked against the page that was built before Gradio sees it, and written anew.

Every function of the page that runs on the server has an `Action` here, made from the page itself; every kind of
component that may be an input has a rule below. A page with another kind of input does not start, so that nothing is
let through because nobody thought of it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from spark_kernel.errors import InputError

REFUSED = "This is no request that the page makes."
"""The one answer to a body that the page would not send."""
SESSION = re.compile(r"[A-Za-z0-9_-]{1,64}")
EVENT = re.compile(r"[0-9a-f]{32}")
NAME_CHARS = 300
"""Longest name that is chosen from a list: of a run, a model, a filter."""
MOST_CHOSEN = 32
LARGEST_NUMBER = 1e12
EMPTY_EXTRAS = {"event_id": None, "oauth_token": None, "simple_format": False, "batched": False}
"""Keys that clients send and that must say nothing: they would change how Gradio runs the function."""

Rule = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Action:
    """A function of the page: whether it waits in the queue, a rule for each input, whether it hears of clicks."""

    queued: bool
    slots: tuple[Rule, ...]
    event: bool


@dataclass(frozen=True, slots=True)
class Call:
    """A body that was checked: what Gradio gets, and the session that it is for."""

    body: bytes
    session: str


class Door:
    """Checks bodies.

    Args:
        actions: by the number that a body names them with (`fn_index`).
    """

    def __init__(self, actions: Mapping[int, Action]) -> None:
        self._actions = dict(actions)

    def call(self, body: bytes, *, queued: bool) -> Call:
        """A body for one of the page's functions.

        Args:
            queued: whether it was posted to the queue.

        Raises:
            InputError: `REFUSED`.
        """
        sent = _object(body)
        known = {"data", "fn_index", "session_hash", "event_data", "trigger_id", *EMPTY_EXTRAS}
        if not {"data", "fn_index", "session_hash"} <= sent.keys() <= known:
            raise InputError(REFUSED)
        if any(key in sent and sent[key] not in (None, empty) for key, empty in EMPTY_EXTRAS.items()):
            raise InputError(REFUSED)
        index, data, session = sent["fn_index"], sent["data"], _matching(SESSION, sent["session_hash"])
        if (
            not _whole(index)
            or index not in self._actions
            or not (sent.get("trigger_id") is None or _whole(sent["trigger_id"]))
        ):
            raise InputError(REFUSED)
        action = self._actions[index]
        if action.queued is not queued or not isinstance(data, list):
            raise InputError(REFUSED)
        # What was clicked is needed by the functions that ask for it only; nothing here needs the component.
        written = {
            "data": self.values(index, data), "fn_index": index, "session_hash": session, "trigger_id": None,
            "event_data": _clicked(sent.get("event_data")) if action.event else None,
        }  # fmt: skip
        return Call(json.dumps(written).encode(), session)

    def values(self, index: int, data: list[Any]) -> list[Any]:
        """The inputs of one of the page's functions.

        Raises:
            InputError: `REFUSED`.
        """
        slots = self._actions[index].slots
        if len(data) != len(slots):
            raise InputError(REFUSED)
        return [rule(value) for rule, value in zip(slots, data, strict=True)]

    def ending(self, body: bytes) -> Call:
        """A body that cancels a question or says that it was cancelled.

        Raises:
            InputError: `REFUSED`.
        """
        sent = _object(body)
        if not {"session_hash", "fn_index"} <= sent.keys() <= {"session_hash", "fn_index", "event_id"}:
            # The Python client's word names the event only.
            if sent.keys() != {"event_id"}:
                raise InputError(REFUSED)
            return Call(json.dumps({"event_id": _matching(EVENT, sent["event_id"])}).encode(), "")
        session, index = _matching(SESSION, sent["session_hash"]), sent["fn_index"]
        if not _whole(index) or index not in self._actions:
            raise InputError(REFUSED)
        event = sent.get("event_id")
        written = {
            "session_hash": session, "fn_index": index, "event_id": "" if event is None else _matching(EVENT, event),
        }  # fmt: skip
        return Call(json.dumps(written).encode(), session)


def door_of(blocks: gr.Blocks) -> Door:
    """The door to the functions of a page.

    Raises:
        TypeError: an input for which there is no rule here.
    """
    return Door(
        {
            index: Action(
                bool(made.queue), tuple(_rule(block) for block in made.inputs), bool(made.collects_event_data)
            )
            for index, made in blocks.fns.items()
            if made.fn is not None
        }
    )


def _rule(block: Any) -> Rule:
    """What a client may send for a component. By exact class: a subclass may do something else with its value."""
    match type(block):
        case gr.Textbox:
            return _text
        case gr.Dropdown if block.multiselect:
            return _names
        case gr.Dropdown | gr.Radio:
            return _name
        case gr.Slider | gr.Number:
            return _number
        case gr.Checkbox:
            return _truth
        case gr.Image:
            return _file
        case gr.Dataset:
            most = len(block.samples or ())
            return lambda value: _index(value, most)
    raise TypeError(f"payload.py has no rule for what a client may send as a {type(block).__name__}.")


def _object(body: bytes) -> dict[str, Any]:
    try:
        sent = json.loads(body)
    except (ValueError, RecursionError):  # no JSON, no UTF-8, a number with too many digits, nested too deeply
        raise InputError(REFUSED) from None
    if not isinstance(sent, dict):
        raise InputError(REFUSED)
    return sent


def _matching(pattern: re.Pattern[str], value: Any) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise InputError(REFUSED)
    return value


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _text(value: Any, most: int | None = None) -> str | None:
    """Text; half a surrogate in it could not be written into any answer."""
    if value is None:
        return None
    if not isinstance(value, str) or (most is not None and len(value) > most):
        raise InputError(REFUSED)
    return value.encode("utf-8", "replace").decode()


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise InputError(REFUSED)
    return value


def _name(value: Any) -> str | None:
    return _text(value, NAME_CHARS)


def _names(value: Any) -> list[str] | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) > MOST_CHOSEN or not all(isinstance(name, str) for name in value):
        raise InputError(REFUSED)
    return [str(_name(name)) for name in value]


def _number(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(REFUSED)
    if not math.isfinite(value) or abs(value) > LARGEST_NUMBER:
        raise InputError(REFUSED)
    return value


def _index(value: Any, most: int) -> int:
    if not _whole(value) or not 0 <= value < most:
        raise InputError(REFUSED)
    return int(value)


def _file(value: Any) -> dict[str, str] | None:
    """The name of an upload and nothing else of it. What is none becomes the empty name: all are answered alike."""
    if value is None:
        return None
    path = value.get("path") if isinstance(value, dict) else None
    return {"path": str(_text(path)) if isinstance(path, str) and len(path) <= NAME_CHARS else ""}


def _clicked(value: Any) -> dict[str, str]:
    """Which row of a table was clicked."""
    if not isinstance(value, dict) or value.keys() != {"id", "round"}:
        raise InputError(REFUSED)
    return {key: str(_matching(re.compile(r"[^\ud800-\udfff]{1,300}"), value[key])) for key in ("id", "round")}
