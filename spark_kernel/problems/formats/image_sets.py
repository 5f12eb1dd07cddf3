"""Problems with images: ViRL39K (`question`, `answer`, `image`, `qid`), Geometry3K (`problem`, `answer`, `images`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spark_kernel.problems.fields import find_field
from spark_kernel.problems.formats.layout import IMAGE_FIELDS, Layout


def _fits_virl(record: Mapping[str, Any]) -> bool:
    asked = find_field(record, "question") is not None or find_field(record, "problem") is not None
    return asked and find_field(record, "answer") is not None and find_field(record, "qid") is not None


VIRL39K = Layout(
    name="virl39k",
    about="question; answer; image, a list of paths; qid",
    columns={"question": ("question", "problem"), "gold": ("answer",), "id": ("qid",), "images": IMAGE_FIELDS},
    fits=_fits_virl,
)
GEOMETRY3K = Layout(
    name="geometry3k",
    about="problem; answer; images",
    columns={"question": ("problem",), "gold": ("answer",), "id": ("id",), "images": IMAGE_FIELDS},
)
"""Recognised as columns, which read it the same way."""
