"""What is wrong with a gold that no right answer would match, and which setting or mapping would read it."""

from __future__ import annotations

import re

from spark_kernel.prompts.verdicts import read_boxes
from spark_kernel.verify.answer_types import Option, Reading
from spark_kernel.verify.dress import undress
from spark_kernel.verify.findings import shorten

PLACEHOLDER_LINES = """
proof|proven|proved|proof omitted|see proof|q.e.d|qed|notfound|not found|not_found|no answer|no answer found
answer not found|see solution|see the solution|see answer|see explanation|see above|see below|none|n/a|n.a|na|null|nil
nan|unknown|not available|not applicable|not given|missing|tbd|todo|omitted|no final answer|-|--|?|...
无|略|见解析|证明略|答案略
"""
PLACEHOLDERS = frozenset(PLACEHOLDER_LINES.strip().replace("\n", "|").split("|"))
WORKED = re.compile(r"####\s*(\S.*)$", re.MULTILINE)
TAGGED = re.compile(r"<(answer|final_answer|result)>\s*(.*?)\s*</\1>", re.DOTALL | re.IGNORECASE)


def is_placeholder(gold: str) -> bool:
    """Whether this stands where data sets have no answer."""
    plain = " ".join(gold.replace("\\text", "").strip("{}$ .!\t\n").split()).casefold()
    return plain in PLACEHOLDERS


AMBIGUOUS_PAIR = re.compile(r"\(\d{1,3}(?:,0\d{2}|,\d{3})+\)")
LISTED = re.compile(r"\[\s*([\"']).*\1\s*,\s*([\"']).*\2\s*\]", re.DOTALL)


def is_worked(gold: str) -> bool:
    """Whether this is a solution that holds its answer somewhere, or several golds as one text."""
    boxes = read_boxes(gold)
    boxed = bool(boxes) and undress(gold) != undress(boxes[-1])
    return boxed or any(pattern.search(gold) for pattern in (WORKED, TAGGED, LISTED))


def advice(gold: str, reading: Reading | None) -> str:
    """Why a gold is refused and what to do, as the end of a sentence."""
    if match := WORKED.search(gold):
        return (
            f'it is a worked solution whose answer "{shorten(match[1])}" stands behind "####"; '
            'problems.options.format = "gsm8k" reads it'
        )
    if LISTED.search(gold):
        return (
            'it is a list as one text: give a list of acceptable golds, or the verifier "any_of" with them in '
            'meta["any_of"]'
        )
    if match := TAGGED.search(gold):
        return f'its answer "{shorten(match[2])}" stands in tags; write that alone'
    boxes = read_boxes(gold)
    if boxes and undress(gold) != undress(boxes[-1]):
        return (
            f'it is a solution whose answer "{shorten(boxes[-1])}" stands in a box; problems.options.format = "math" '
            "reads it"
        )
    if reading is not None and isinstance(reading.value, Option):
        letter = reading.value.letter
        return (
            f'it is the letter of an option beside its value: write the value alone, or use the verifier "choice" with '
            f'the gold "{letter}" and the options in meta["choices"] (problems.options.columns.choices)'
        )
    if AMBIGUOUS_PAIR.fullmatch(gold.strip()):
        return "it may be a pair or thousands in brackets: write the pair with a space, or the number without brackets"
    if reading is not None and reading.removed:
        return (
            f'"{shorten(reading.removed)}" stands around its value: write the value alone, or use "exact"; '
            "problems.options.columns can name another column for the gold"
        )
    return (
        'it is not readable as mathematics; correct it, use the verifier "exact", or name the column of the final '
        "answer with problems.options.columns"
    )
