r"""Gold answers as data sets write them: numbers, a box, a worked solution that ends in `#### 42`, lists of golds.

What remains is text for a verifier. Nothing is guessed: a gold that stands in a sentence stays the sentence, and its
verifier refuses it; `problems.options.gold_pattern` says where in the text the gold is.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from spark_kernel.problems.texts import checked_text
from spark_kernel.prompts.verdicts import read_boxes, write_box

MARK = re.compile(r"(?:\A|\n)[ \t]*####[ \t]*(\S[^\n]*)")
TAGGED = re.compile(r"\s*<answer>(.*?)</answer>\s*", re.DOTALL | re.IGNORECASE)
BARE_BOX = re.compile(r"\\boxed\s+([^\s${}\\.,;]+)")
FRAME = re.compile(r"\\fbox(?=\s*\{)")
THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
SENTENCE = re.compile(r"\b(?:answer|result|solution)\s*(?:is|are|:|=)\s*\S", re.IGNORECASE)
LETTERED = re.compile(r"\s*(?:\(?[A-J]\)|[A-J][.:](?=\s))\s*\S.*", re.DOTALL)
NOUN = re.compile(r"\s*[-+]?\d[\d.,/]*\s*\((?!mod\b)[A-Za-z][A-Za-z .'-]{2,}\)\s*")
PLACEHOLDERS = frozenset(
    {
        *("none", "n/a", "na", "nan", "null", "nil", "unknown", "undefined answer", "missing", "tbd", "todo", "?", "-"),
        *("not found", "notfound", "no answer", "no answer found", "not available", "omitted", "error", "failed"),
        *("proof", "prove", "see solution", "see proof", "see above", "see below", "see the solution", "open-ended"),
    }
)
"""What stands in a gold field where a data set has no gold."""


def read_golds(value: object, pattern: re.Pattern[str] | None = None) -> list[str]:
    """The acceptable golds of a field, each once, in order; at least one.

    A list holds alternatives, and so does the JSON text of a list of texts. With a pattern, the gold is the last match
    of its group 1 (of all of it, where it has no group) in each text. Otherwise a gold that is a worked solution ending
    in `#### ...`, has exactly one box, or stands in `<answer>` tags is what stands there.

    Raises:
        ValueError: no text or number; says what it is.
    """
    items = value if isinstance(value, list) else _listed(value)
    golds = dict.fromkeys(_one(item, pattern) for item in items)
    if not golds:
        raise ValueError("the gold is an empty list")
    return list(golds)


def after_mark(value: object) -> str:
    """The gold of a GSM8K row: what follows the last `####`, without commas between thousands.

    Raises:
        ValueError: there is no mark.
    """
    found = MARK.findall(value) if isinstance(value, str) else []
    if not found:
        raise ValueError('the answer does not end in a line "#### GOLD", as GSM8K\'s do')
    return THOUSANDS.sub("", found[-1].strip())


def last_box(value: object) -> str:
    r"""The gold of a worked solution: the content of its last box (`\boxed{}`, `\fbox{}`, `\boxed 2`).

    Raises:
        ValueError: there is no box with anything in it.
    """
    text = FRAME.sub(r"\\boxed", value) if isinstance(value, str) else ""
    boxes = [content for content in read_boxes(text) if content] or BARE_BOX.findall(text)
    if not boxes:
        raise ValueError("the solution has no \\boxed{} with a gold in it")
    return str(boxes[-1])


def plain_gold(value: object) -> str:
    """The gold as it was read before there were formats: a number written out, one box around it taken off.

    Raises:
        ValueError: no text or number.
    """
    text = as_text(value)
    boxes = read_boxes(text)
    return boxes[0] if len(boxes) == 1 and boxes[0] and text == write_box(boxes[0]) else text


def is_placeholder(gold: str) -> bool:
    """Whether a gold only says that there is none."""
    return " ".join(gold.casefold().strip(" .!").split()) in PLACEHOLDERS or gold.strip() in PLACEHOLDERS


def in_a_dress(gold: str) -> str | None:
    """Why a gold that should be a value is more than that, and which setting reads it; None for a plain one."""
    if SENTENCE.search(gold):
        return (
            "it is a sentence: problems.options.gold_pattern says where in it the gold is, as 'answer is:? (.+?)\\.?$'"
        )
    if LETTERED.fullmatch(gold):
        return (
            "it is an option's letter and its text: give the options (problems.options.columns.choices), or take one "
            "of the two by problems.options.gold_pattern, as '\\) *(.+)'"
        )
    if NOUN.fullmatch(gold):
        return "it is a number and a word in brackets: problems.options.gold_pattern takes the number, as '^([^(]+)'"
    return None


def as_text(value: object) -> str:
    """A gold as text, stripped.

    Raises:
        ValueError: no text or number, or an empty text.
    """
    if isinstance(value, Mapping):
        inner = ", ".join(f'"{name}"' for name in list(value)[:10])
        raise ValueError(
            f"the gold is an object with the fields {inner}: name one of them by its path, as in "
            'problems.options.columns = {"gold": "reward_model.ground_truth"}'
        )
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise ValueError(f"the gold must be a text or a number, not {type(value).__name__}")
    if not isinstance(value, str) and not math.isfinite(value):
        raise ValueError(f"the gold is {value}")
    return checked_text(str(value), "gold").strip()


def _one(value: object, pattern: re.Pattern[str] | None) -> str:
    text = as_text(value)
    if pattern is not None:
        matches = list(pattern.finditer(text))
        if not matches:
            raise ValueError(f'the gold "{text[-60:]}" does not match problems.options.gold_pattern')
        return checked_text(matches[-1][1 if pattern.groups else 0] or "", "gold").strip()
    if marked := MARK.findall(text):
        return THOUSANDS.sub("", str(marked[-1]).strip())
    if tagged := TAGGED.fullmatch(text):
        text = checked_text(tagged[1], "gold").strip()
    boxes = read_boxes(text)
    return boxes[0] if len(boxes) == 1 and boxes[0] else text


def _listed(value: object) -> list[Any]:
    """A value as a list of one, or of the texts of a JSON list; `[1, 2]` is mathematics."""
    if isinstance(value, str) and value.lstrip()[:1] == "[" and '"' in value:
        try:
            items = json.loads(value)
        except (ValueError, RecursionError):
            return [value]
        if isinstance(items, list) and items and all(isinstance(item, str) for item in items):
            return items
    return [value]
