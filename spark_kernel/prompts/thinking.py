"""Thinking: which part of an output is a model's thought, and which is what it says in the end.

Models mark their thoughts in different ways; the marks are read here and nowhere else. The text that is recorded keeps
them. Where the chat template itself opens the thought, the recorded text begins with what the template wrote (the
sampled tokens do not), so that a text can always be read by itself: also one that was cut off inside its thought.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ThinkingTags:
    """What opens and what closes a thought."""

    opening: str
    closing: str


TAGS: tuple[ThinkingTags, ...] = (
    ThinkingTags("<think>", "</think>"),  # Qwen3, DeepSeek-R1, SmolLM3, GLM, Hunyuan
    ThinkingTags("<thinking>", "</thinking>"),
    ThinkingTags("<thought>", "</thought>"),
    ThinkingTags("<reasoning>", "</reasoning>"),
    ThinkingTags("[THINK]", "[/THINK]"),  # Magistral
    ThinkingTags("◁think▷", "◁/think▷"),  # Kimi
    ThinkingTags("<seed:think>", "</seed:think>"),  # Seed-OSS
    ThinkingTags("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A
    ThinkingTags("<|begin_of_thought|>", "<|end_of_thought|>"),  # OpenThinker
    ThinkingTags("<|channel>thought", "<channel|>"),  # Gemma 4
)
"""The tags that are known without a setting. The first pair is the one that a model's own tags are recorded as."""
CHANNEL, BODY = "<|channel|>", "<|message|>"
CHANNEL_MARKS = (CHANNEL, BODY, "<|start|>", "<|end|>", "<|return|>", "<|call|>")
"""gpt-oss writes `<|channel|>analysis<|message|>...<|end|><|start|>assistant<|channel|>final<|message|>...`."""
FINAL_CHANNEL = "final"

_CLOSING_OF = {tags.opening: tags.closing for tags in TAGS}
_CLOSINGS = frozenset(_CLOSING_OF.values())
_TAG = re.compile("|".join(re.escape(mark) for tags in TAGS for mark in (tags.opening, tags.closing)))
_BEGINS_A_MARK = re.compile("|".join(sorted({re.escape(mark[0]) for pair in _CLOSING_OF.items() for mark in pair})))
_CHANNEL_MARK = re.compile(f"({'|'.join(map(re.escape, CHANNEL_MARKS))})")


def final_part(text: str, opened_by_prompt: str = "") -> str:
    """The text outside thoughts: what the model says in the end; empty where it was cut off inside its first thought.

    A thought that is not closed reaches to the end. A closing tag without an opening one closes a thought that began
    before the text, so everything before it is thinking. Of channels, only the one named "final" counts. One pass:
    linear in the text's length.

    Args:
        opened_by_prompt: what the prompt ends in, where it opens a thought and the text does not say so itself.
    """
    text = opened_by_prompt + text
    if _BEGINS_A_MARK.search(text) is None:
        return text
    if CHANNEL in text:
        text = _final_channel(text)
    kept: list[str] = []
    position, waiting_for = 0, ""
    for match in _TAG.finditer(text):
        mark = match[0]
        if waiting_for:
            if mark == waiting_for:
                position, waiting_for = match.end(), ""
        elif mark in _CLOSINGS:
            kept.clear()
            position = match.end()
        else:
            kept.append(text[position : match.start()])
            waiting_for = _CLOSING_OF[mark]
    if not waiting_for:
        kept.append(text[position:])
    return "".join(kept)


def opened_thought(generation_prompt: str, own: Mapping[str, str] | None = None) -> str:
    """The end of a generation prompt from the tag that opens a thought there; empty where none is left open.

    Args:
        generation_prompt: what the chat template writes where the assistant begins.
        own: further tags, from opening to closing.
    """
    pairs = _CLOSING_OF | dict(own or {})
    start, opening = max((generation_prompt.rfind(opening), opening) for opening in pairs)
    if start < 0 or pairs[opening] in generation_prompt[start + len(opening) :]:
        return ""
    return generation_prompt[start:]


def recorded_tags(text: str, own: Mapping[str, str]) -> str:
    """The text with a model's own tags written as the first known pair, so that every reader knows them."""
    for opening, closing in own.items():
        text = text.replace(opening, TAGS[0].opening).replace(closing, TAGS[0].closing)
    return text


def own_tags(text: str, own: Mapping[str, str]) -> str:
    """The inverse of `recorded_tags`, for one pair of tags; with several the first is taken."""
    for opening, closing in list(own.items())[:1]:
        text = text.replace(TAGS[0].opening, opening).replace(TAGS[0].closing, closing)
    return text


def marks_among(tokens: Iterable[str], own: Mapping[str, str] | None = None) -> set[str]:
    """Those of a tokenizer's special tokens that mark thinking: they belong to the text, other special tokens do not.

    A channel's marks count only where the tokenizer has channels: elsewhere `<|end|>` ends a turn and nothing else.
    """
    known = {tag for tags in TAGS for tag in (tags.opening, tags.closing)} | {"<|channel>"}
    known |= {tag for pair in (own or {}).items() for tag in pair}
    found = set(tokens)
    if CHANNEL in found:
        known |= set(CHANNEL_MARKS)
    return found & known


def _final_channel(text: str) -> str:
    """What stands in the channel "final", and in no channel at all; headers left out."""
    kept: list[str] = []
    channel, in_header = FINAL_CHANNEL, False
    for piece in _CHANNEL_MARK.split(text):
        if piece == CHANNEL:
            channel, in_header = "", True
        elif piece == BODY:
            in_header = False
        elif piece in CHANNEL_MARKS:
            channel, in_header = FINAL_CHANNEL, piece == "<|start|>"
        elif in_header:
            channel = channel or "".join(piece.split()[:1])
        elif channel == FINAL_CHANNEL:
            kept.append(piece)
    return "".join(kept)
