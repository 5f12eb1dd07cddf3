"""The record format of the authors' SPARK data: a chat whose single user turn is the problem.

`{"message": [{"role": "user", "content": "..."}], "answer": "..."}`, the chat being a list or its JSON text, the
content a text or a list of parts: `{"type": "text", "text": ...}`, `{"type": "image", "image": PATH or data URI}`. An
image part may say to how many pixels its image is to be made smaller: `"max_pixels": N`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spark_kernel.prompts.build import IMAGE_MARK


@dataclass(frozen=True, slots=True)
class ChatQuestion:
    """What a chat asks. `images` are the raw values of the image parts, None for a part that names no image and
    takes the next one of the record's image field. `system`: the system turn, which our prompts do not use."""

    question: str
    images: tuple[Any, ...]
    system: str | None


def read_chat(message: object) -> ChatQuestion:
    """The question of a chat; an `<image>` mark stands where an image part stood.

    A text that is no JSON is itself the question.

    Raises:
        ValueError: not a chat, or not exactly one user turn besides an optional system turn; the reason.
    """
    turns = _turns(message)
    roles = [turn.get("role") for turn in turns]
    if roles not in (["user"], ["system", "user"]):
        raise ValueError(f"the chat must be one user turn, at most a system turn before it, not {roles}")
    text, images = _content(turns[-1].get("content"))
    system = _content(turns[0].get("content"))[0] if len(turns) == 2 else None
    return ChatQuestion(text, images, system)


def _turns(message: object) -> Sequence[Mapping[str, Any]]:
    if isinstance(message, str):
        if not message.lstrip().startswith(("[", "{")):
            return [{"role": "user", "content": message}]
        try:
            message = json.loads(message)
        except RecursionError:
            raise ValueError("the chat's JSON is nested too deeply") from None
        except ValueError as error:
            raise ValueError(f"the chat is broken JSON: {error}") from None
    if isinstance(message, Mapping):
        message = [message]
    if not isinstance(message, list) or not message or not all(isinstance(turn, Mapping) for turn in message):
        raise ValueError("the chat must be a list of turns with role and content")
    return message


def _content(content: object) -> tuple[str, tuple[Any, ...]]:
    if isinstance(content, str):
        return content, ()
    if not isinstance(content, list):
        raise ValueError("a turn's content must be a text or a list of parts")
    pieces: list[str] = []
    images: list[Any] = []
    texts = "".join(_text(part) for part in content if isinstance(part, Mapping))
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text":
            pieces.append(_text(part))
        elif kind in ("image", "image_url"):
            images.append(_image(part))
            # A text that brings its own marks says itself where the images stand.
            pieces.append("" if IMAGE_MARK in texts else IMAGE_MARK)
        else:
            raise ValueError(f'a part of type {kind!r} is refused: "text" or "image"')
    return "".join(pieces), tuple(images)


def _text(part: Mapping[str, Any]) -> str:
    # Parquet gives every part all fields, with null where a part has none.
    text = part.get("text")
    if text is not None and not isinstance(text, str):
        raise ValueError("a text part's text must be a text")
    return text or ""


def _image(part: Mapping[str, Any]) -> Any:
    value = part.get("image")
    value = part.get("image_url") if value is None else value
    value = value.get("url") if isinstance(value, Mapping) and "url" in value else value
    pixels = part.get("max_pixels")
    return value if value is None or pixels is None else {"image": value, "max_pixels": pixels}
