"""GSM8K: `question`, and an `answer` that is a worked solution with the gold after `####`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spark_kernel.problems.fields import find_field
from spark_kernel.problems.formats.layout import Layout, only
from spark_kernel.problems.golds import MARK, after_mark


def _fits(record: Mapping[str, Any]) -> bool:
    answer = find_field(record, "answer")
    return find_field(record, "question") is not None and isinstance(answer, str) and MARK.search(answer) is not None


GSM8K = Layout(
    name="gsm8k",
    about="question; answer ending in #### GOLD",
    columns={"question": ("question",), "gold": ("answer",), "id": ("id",)},
    fits=_fits,
    read_gold=only(after_mark),
)
