"""Multiple choice as published: MMLU, MMLU-Pro, ARC (and CommonsenseQA), AQuA, and options in columns A, B, ..."""

from __future__ import annotations

from collections.abc import Mapping
from string import ascii_uppercase
from typing import Any

from spark_kernel.problems.fields import find_field
from spark_kernel.problems.formats.layout import IMAGE_FIELDS, Layout

LETTERS = tuple(ascii_uppercase[:10])


def _fits_mmlu(record: Mapping[str, Any]) -> bool:
    index = find_field(record, "answer")
    return _has(record, "question", "choices") and isinstance(index, int) and not isinstance(index, bool)


def _fits_mmlu_pro(record: Mapping[str, Any]) -> bool:
    return _has(record, "question", "options", "answer", "answer_index")


def _fits_arc(record: Mapping[str, Any]) -> bool:
    return _has(record, "question", "choices", "answerKey")


def _fits_aqua(record: Mapping[str, Any]) -> bool:
    return _has(record, "question", "options", "correct")


def _fits_lettered(record: Mapping[str, Any]) -> bool:
    return _has(record, "question", "A", "B", "answer") and "choices" not in record


def _has(record: Mapping[str, Any], *names: str) -> bool:
    return all(find_field(record, name) is not None for name in names)


MMLU = Layout(
    name="mmlu",
    about="question; choices; answer, an index from 0",
    columns={"question": ("question",), "choices": ("choices",), "gold": ("answer",), "id": ("id",)},
    fits=_fits_mmlu,
    index_from=0,
)
MMLU_PRO = Layout(
    name="mmlu-pro",
    about="question; options; answer, a letter",
    columns={"question": ("question",), "choices": ("options",), "gold": ("answer",), "id": ("question_id", "id")},
    fits=_fits_mmlu_pro,
)
ARC = Layout(
    name="arc",
    about="question; choices.text and choices.label; answerKey",
    columns={"question": ("question",), "choices": ("choices",), "gold": ("answerKey",), "id": ("id",)},
    fits=_fits_arc,
)
AQUA = Layout(
    name="aqua",
    about="question; options that carry their letter; correct",
    columns={"question": ("question",), "choices": ("options",), "gold": ("correct",), "id": ("id",)},
    fits=_fits_aqua,
)
LETTERED = Layout(
    name="lettered",
    about="question; an option in each of the columns A, B, C, ...; answer",
    columns={
        "question": ("question",),
        "choices": LETTERS,
        "gold": ("answer",),
        "id": ("id", "index"),
        "images": IMAGE_FIELDS,
    },
    fits=_fits_lettered,
    split_choices=True,
)
