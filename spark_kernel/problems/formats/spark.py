"""The SPARK authors' data: training rows {message, answer, images}, benchmark rows {problem, answer, image_path}."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spark_kernel.problems.fields import find_field
from spark_kernel.problems.formats.layout import IMAGE_FIELDS, Layout


def _fits(record: Mapping[str, Any]) -> bool:
    answer = find_field(record, "answer")
    chat = find_field(record, "message") is not None and find_field(record, "question") is None
    benchmark = "image_path" in record and find_field(record, "problem") is not None
    return answer is not None and (chat or benchmark)


SPARK = Layout(
    name="spark",
    about="message, a chat or its JSON, and answer; or problem, answer and image_path",
    columns={
        "message": ("message",),
        "question": ("question", "problem"),
        "gold": ("answer", "gold"),
        "id": ("id",),
        "images": IMAGE_FIELDS,
        "choices": ("choices",),
        "verifier": ("verifier",),
    },
    fits=_fits,
)
