"""Records of a question and a gold under usual names: what is taken where no published format is recognised."""

from __future__ import annotations

from spark_kernel.problems.formats.layout import IMAGE_FIELDS, Layout, only
from spark_kernel.problems.golds import plain_gold

COLUMNS = Layout(
    name="columns",
    about="a question and a gold under usual names",
    columns={
        "question": ("question", "problem"),
        "message": ("message",),
        "gold": ("gold", "answer"),
        "id": ("id",),
        "images": IMAGE_FIELDS,
        "choices": ("choices",),
        "verifier": ("verifier",),
    },
)

OTHER_QUESTIONS = ("query", "prompt", "instruction", "input")
"""Looked for where there is neither question, problem nor message; taken where there is exactly one."""
OTHER_GOLDS = ("final_answer", "expected_answer", "ground_truth", "gold_answer", "correct_answer", "target", "label")
"""Looked for where there is neither gold nor answer; taken where there is exactly one."""

FIRST = Layout(
    name="columns-1",
    about="columns as they were read before there were formats",
    columns={
        "question": ("question", "problem"),
        "message": ("message",),
        "gold": ("gold", "answer"),
        "id": ("id",),
        "images": ("images", "image"),
        "choices": ("choices",),
    },
    read_gold=only(plain_gold),
)
"""What a run from before `problems.canonical_form` goes on with: the same questions and golds, so the same split."""
