r"""The one grammar of answers and verdicts: `\boxed{...}`, written and read here and nowhere else.

Prompt, parser, training and test time share it. For answers the last box wins. For verdicts only boxes that hold
an allowed verdict count, because a judge may quote the candidate's box; boxes that disagree are ambiguous.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from spark_kernel.prompts.thinking import final_part
from spark_kernel.records import Parse

BOX = re.compile(r"\\boxed\s*\{")
BRACE = re.compile(r"\\+boxed\s*\{|\\.|[{}]", re.DOTALL)
TEXT_COMMAND = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mathit|mbox)\s*\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class VerdictReading:
    """What a judge's output says: `parse` OK with a verdict in its allowed spelling, NONE or AMBIGUOUS without."""

    parse: Parse
    verdict: str | None = None


def write_box(content: str) -> str:
    r"""`\boxed{content}`."""
    return rf"\boxed{{{content}}}"


def strip_thinking(text: str) -> str:
    """The text outside thoughts (`prompts.thinking`)."""
    return final_part(text)


def read_boxes(text: str) -> list[str]:
    r"""The contents of every closed `\boxed{...}`, nested braces included, in reading order.

    A backslash-escaped brace does not count as a brace. A box inside another closed box is part of the outer one.
    An unclosed box is skipped. One pass: linear in the text's length, however many boxes stay unclosed.
    """
    first = BOX.search(text)
    if first is None:
        return []
    open_braces: list[int] = []
    closed: list[tuple[int, int]] = []
    for match in BRACE.finditer(text, first.start()):
        token = match[0]
        if token == "{":
            open_braces.append(-1)
        elif token == "}":
            start = open_braces.pop() if open_braces else -1
            if start >= 0:
                while closed and closed[-1][0] > start:
                    closed.pop()
                closed.append((start, match.start()))
        elif token[-1] == "{" and len(token) > 2:
            open_braces.append(match.end())
    return [text[start:end].strip() for start, end in closed]


def read_answer(text: str) -> str | None:
    """The content of the last box that is not empty, outside thinking; None if there is none."""
    filled = [content for content in read_boxes(strip_thinking(text)) if content]
    return filled[-1] if filled else None


def read_verdict(text: str, allowed: Iterable[str]) -> VerdictReading:
    """The verdict a judge gives, in the spelling of `allowed`; case, a full stop and `\\text{}` are forgiven."""
    spelling = {verdict.casefold(): verdict for verdict in allowed}
    found = {
        spelling[content]
        for content in map(_normalise_verdict, read_boxes(strip_thinking(text)))
        if content in spelling
    }
    if not found:
        return VerdictReading(Parse.NONE)
    if len(found) > 1:
        return VerdictReading(Parse.AMBIGUOUS)
    return VerdictReading(Parse.OK, found.pop())


def _normalise_verdict(content: str) -> str:
    return TEXT_COMMAND.sub(r"\1", content).strip().strip(".!").strip().casefold()
