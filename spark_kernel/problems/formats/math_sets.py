r"""MATH and its kin: `problem`, a worked `solution` with the gold in its last box; MATH-500 has an `answer` besides.

OlympiadBench: `question` and `final_answer`, a list of acceptable golds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spark_kernel.problems.fields import find_field
from spark_kernel.problems.formats.layout import IMAGE_FIELDS, Layout, only
from spark_kernel.problems.golds import last_box, read_golds


def _fits_math(record: Mapping[str, Any]) -> bool:
    solution = find_field(record, "solution")
    return (
        find_field(record, "problem") is not None
        and isinstance(solution, str)
        and "boxed" in solution
        and find_field(record, "message") is None
        and find_field(record, "answer") is None
    )


def _fits_olympiad(record: Mapping[str, Any]) -> bool:
    return find_field(record, "question") is not None and isinstance(find_field(record, "final_answer"), list)


MATH = Layout(
    name="math",
    about="problem; solution with the gold in its last box",
    columns={"question": ("problem",), "gold": ("solution",), "id": ("unique_id", "id")},
    fits=_fits_math,
    read_gold=only(last_box),
)

MATH_500 = Layout(
    name="math-500",
    about="problem; answer; solution",
    columns={"question": ("problem",), "gold": ("answer",), "id": ("unique_id", "id")},
    read_gold=read_golds,
)

OLYMPIADBENCH = Layout(
    name="olympiadbench",
    about="question; final_answer, a list of acceptable golds",
    columns={"question": ("question",), "gold": ("final_answer",), "id": ("id",), "images": IMAGE_FIELDS},
    fits=_fits_olympiad,
)
