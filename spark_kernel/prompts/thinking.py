r"""What a model thinks before it answers, told apart from what it answers: one rule for all who read outputs.

A box inside thinking is no answer and no verdict. Thinking stands between an opening and a closing tag. An opening tag
without its closing one reaches to the end: a thought that was cut off has no answer. A closing tag without its opening
one ends a thought that the prompt's template opened, so everything before it is thinking. Where the text of such an
output was cut off before the closing tag, nothing in it shows that; `opened=True` says so.

Channels (`<|channel|>analysis<|message|>...<|end|>`, as gpt-oss writes them): only the last `final` channel is no
thinking; where there are channels and no `final` one, there is no answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from spark_kernel.errors import InputError

Tags = tuple[tuple[str, str], ...]

DEFAULT_TAGS: Tags = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<seed:think>", "</seed:think>"),
)
"""Opening and closing tags, as DeepSeek, Qwen, Mistral, Kimi, Cohere, Seed and others write them."""

CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)[^<]*(?:<\|(?!message)[^|<>]*\|>[^<]*)*<\|message\|>")
CHANNEL_END = re.compile(r"<\|(?:end|return|call|start|channel)\|>")


def final_part(text: str, *, opened: bool = False, tags: Tags = DEFAULT_TAGS) -> str:
    """The text outside thinking; empty where the output ends inside a thought.

    Args:
        text: an output, or any part of one.
        opened: the prompt ended in an opening tag that is not part of `text`.
        tags: pairs of opening and closing tag.
    """
    if opened and not any(closing in text for _, closing in tags):
        return ""
    if "<|channel|>" in text:
        text = _final_channel(text)
    if not any(tag in text for pair in tags for tag in pair):
        return text
    kept: list[str] = []
    inside: str | None = None
    position = 0
    for match in _tag_pattern(tags).finditer(text):
        tag = match[0]
        closes = _closing(tags).get(tag)
        if inside is None:
            if closes is not None:
                kept.append(text[position : match.start()])
                inside = closes
            else:  # closes what the template opened: all before it is thinking
                kept.clear()
                position = match.end()
        elif tag == inside:
            inside = None
            position = match.end()
    if inside is None:
        kept.append(text[position:])
    return "".join(kept)


def read_tags(pairs: Iterable[Sequence[str]]) -> Tags:
    """Tags from a setting: pairs of opening and closing text, beside those that are always known.

    Raises:
        InputError: an entry is no pair of two different texts that are not empty.
    """
    added: list[tuple[str, str]] = []
    for pair in pairs:
        if isinstance(pair, str) or len(pair) != 2 or not all(isinstance(tag, str) and tag.strip() for tag in pair):
            raise InputError(
                f"The thinking tags {pair!r} are refused: each entry is a pair of an opening and a closing text, "
                'such as ["<think>", "</think>"].'
            )
        opening, closing = pair
        if opening == closing:
            raise InputError(
                f'The thinking tags {pair!r} are refused: the opening and the closing one are both "{opening}".'
            )
        added.append((opening, closing))
    return (*DEFAULT_TAGS, *(pair for pair in added if pair not in DEFAULT_TAGS))


@lru_cache(maxsize=8)
def _tag_pattern(tags: Tags) -> re.Pattern[str]:
    # Longest first: an added tag may begin with a known one.
    names = sorted({tag for pair in tags for tag in pair}, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, names)))


@lru_cache(maxsize=8)
def _closing(tags: Tags) -> dict[str, str]:
    return dict(tags)


def _final_channel(text: str) -> str:
    """The message of the last channel that is named `final`; empty where there is none."""
    found = ""
    for match in CHANNEL.finditer(text):
        if match[1] == "final":
            end = CHANNEL_END.search(text, match.end())
            found = text[match.end() : end.start() if end else len(text)]
    return found
