r"""The one grammar of answers and verdicts: `\boxed{...}`, written and read here and nowhere else.

Prompt, parser, training and test time share it. For answers the last box wins, and a box that is never closed takes
back what was boxed before it. For verdicts only boxes that hold an allowed verdict count, because a judge may quote
the candidate's box; where they disagree, the last one decides if only punctuation follows it and it is not named as an
alternative ("\boxed{A} or \boxed{B}"), else it is ambiguous.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from spark_kernel.prompts.thinking import final_part
from spark_kernel.records import Parse

BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
BRACE = re.compile(r"\\+(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
TEXT_COMMAND = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mbox)\s*\{([^{}]*)\}")
DRESS_COMMAND = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|normal|up)?|math(?:bf|it|rm|sf|tt|bb)|bm|boldsymbol|pmb|mbox|hbox|emph|underline"
    r"|operatorname|boxed|fbox)\s*\{([^{}]*)\}"
)
COLOUR = re.compile(r"\\(?:textcolor|color)\s*\{[^{}]*\}\s*(?:\{([^{}]*)\})?")
DOUBLE_BRACES = re.compile(r"\{\s*\{([^{}]*)\}\s*\}")
SWITCH = re.compile(
    r"\\(?:left|right|displaystyle|textstyle|bf|rm|it|sf|tt|bfseries|tiny|small|normalsize|large|Large|LARGE|huge|Huge"
    r"|quad|qquad)(?![A-Za-z])|\\[,;:!>( )\[\]]|~"
)
QUOTES = "\"'`“”‘’«»„*_$. ,!:;\t\n"
BRACKETS = (("(", ")"), ("[", "]"), ("{", "}"), ("<", ">"), ("（", "）"), ("【", "】"))
VERDICT_WORD = re.compile(
    r"(?:(?:the|my)\s+)?(?:final\s+)?(?:answer|verdict|judge?ment|choice|option|response|candidate|solution|decision)"
    r"(?:\s+is)?\s*[:=]?\s*(?=\W*\w+\W*$)",
    re.IGNORECASE,
)
CLOSING = re.compile(
    r"(?:[\s.,;:!?*_`'\"“”’$)\]}>（）。！|]|\\[\])\\!,;: ]|</?\w+>|<\|\w+\|>|\\(?:right|q?quad)(?![A-Za-z]))*"
)
r"""What may follow a box that stands on its own at the end: punctuation, closing brackets and marks, no word."""

ALTERNATIVE = re.compile(
    r"[\s.,;$*_`\"')\]]*(?:or|and|nor|versus|vs\.?|/|\||&|或)[\s$*_`\"'(\[]*\\(?:boxed|fbox)\s*\{\s*", re.IGNORECASE
)
r"""Between two boxes that are named side by side, as the prompt itself does: "write \boxed{A} or \boxed{B}"."""


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
    r"""The contents of every closed `\boxed{...}` or `\fbox{...}`, nested braces included, in reading order.

    A backslash-escaped brace does not count as a brace. A box inside another closed box is part of the outer one.
    An unclosed box is skipped. One pass: linear in the text's length, however many boxes stay unclosed.
    """
    return [text[start:end].strip() for start, end in _spans(text)[0]]


def read_answer(text: str) -> str | None:
    """The content of the last box that is not empty, outside thinking.

    None if there is none, and where a box opens after the last closed one and never closes: the answer given last was
    cut off, and the one before it is not it.

    Args:
        text: an output.
    """
    text = final_part(text)
    closed, unclosed = _spans(text)
    for start, end in reversed(closed):
        if content := text[start:end].strip():
            return None if unclosed and unclosed[-1] > end else content
    return None


def read_verdict(text: str, allowed: Iterable[str]) -> VerdictReading:
    """The verdict a judge gives, in the spelling of `allowed`; case and dress (`undress_verdict`) are forgiven.

    Args:
        text: an output.
        allowed: the verdicts.
    """
    spelling = {verdict.casefold(): verdict for verdict in allowed}
    text = final_part(text)
    found = [
        (verdict, start, end)
        for start, end in _spans(text)[0]
        if (verdict := spelled_verdict(text[start:end], spelling)) is not None
    ]
    if not found:
        return VerdictReading(Parse.NONE)
    last, start, end = found[-1]
    others = [before for verdict, _, before in found if verdict != last]
    alone_at_the_end = CLOSING.fullmatch(text, end + 1) is not None
    if others and (not alone_at_the_end or ALTERNATIVE.fullmatch(text, others[-1] + 1, start)):
        return VerdictReading(Parse.AMBIGUOUS)
    return VerdictReading(Parse.OK, last)


def spelled_verdict(content: str, spelling: Mapping[str, str]) -> str | None:
    """The allowed verdict that a box's content is, or None. `spelling` goes from case-folded to allowed spelling."""
    if len(content) > 120:
        return None
    bare = content.strip().casefold()
    if bare in spelling:
        return spelling[bare]
    plain = undress_verdict(content).casefold()
    if plain in spelling:
        return spelling[plain]
    word = VERDICT_WORD.match(plain)
    return spelling.get(undress_verdict(plain[word.end() :])) if word else None


@lru_cache(maxsize=1024)
def undress_verdict(content: str) -> str:
    r"""A verdict without boxes, fonts, colours, quotes, dollars, Markdown, brackets and closing punctuation.

    `\text{**(A)**}.` is `A`. What is more than one verdict stays more than one: nothing between words is taken out.
    """
    text, before = content, None
    while text != before:
        before = text
        text = DOUBLE_BRACES.sub(r"{\1}", DRESS_COMMAND.sub(r"\1", COLOUR.sub(r"\1", text)))
        text = SWITCH.sub(" ", text).strip(QUOTES)
        for opening, closing in BRACKETS:
            if text.startswith(opening) and text.endswith(closing):
                text = text[len(opening) : len(text) - len(closing)].strip(QUOTES)
            elif text.endswith(closing) and opening not in text and len(text) > 1:
                text = text[: -len(closing)].strip(QUOTES)  # "A)"
    return text


def _spans(text: str) -> tuple[list[tuple[int, int]], list[int]]:
    """Start and end of the content of every outermost closed box, and the starts of unclosed ones; in reading order."""
    first = BOX.search(text)
    if first is None:
        return [], []
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
    return closed, [start for start in open_braces if start >= 0]
