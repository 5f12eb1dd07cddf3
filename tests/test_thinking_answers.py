"""No answer and no verdict is read inside thinking, whatever marks it; against a slow, plain reading."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_kernel.prompts.thinking import TAGS, final_part
from spark_kernel.prompts.verdicts import read_answer, read_verdict
from spark_kernel.records import Parse

PAIRS = tuple((tags.opening, tags.closing) for tags in TAGS)
CHANNELS = "<|channel|>analysis<|message|>{}<|end|><|start|>assistant<|channel|>final<|message|>{}<|return|>"


def plain_final_part(text: str, tags: Sequence[tuple[str, str]]) -> str:
    """The definition, letter by letter."""
    kept, inside, place = "", None, 0
    while place < len(text):
        tag = max((t for pair in tags for t in pair if text.startswith(t, place)), key=len, default=None)
        if tag is None:
            kept += text[place] if inside is None else ""
            place += 1
            continue
        place += len(tag)
        closing = next((close for opening, close in tags if opening == tag), None)
        if inside is None and closing is not None:
            inside = closing
        elif inside is None:
            kept = ""
        elif tag == inside:
            inside = None
    return kept


PIECES = st.lists(
    st.sampled_from(["a", "b ", r"\boxed{7}", *(tag for pair in PAIRS[:4] for tag in pair)]), max_size=9
).map("".join)


@given(PIECES)
def test_it_is_as_defined(text: str) -> None:
    assert final_part(text) == plain_final_part(text, PAIRS)


@pytest.mark.parametrize("tags", PAIRS, ids=lambda tags: tags[0])
def test_a_box_inside_thinking_is_no_answer_and_no_verdict(tags: tuple[str, str]) -> None:
    opening, closing = tags
    assert read_answer(rf"{opening}Maybe \boxed{{8}}{closing} So \boxed{{7}}") == "7"
    assert read_answer(rf"{opening}\boxed{{7}}{closing} I do not know") is None
    assert read_answer(rf"{opening}\boxed{{7}}? Let me") is None, "cut off inside the thought"
    assert read_answer(rf"Maybe \boxed{{8}}{closing} \boxed{{7}}") == "7", "opened by the template"
    assert read_verdict(rf"{opening}\boxed{{Yes}}{closing} \boxed{{No}} it is", ["Yes", "No"]).verdict == "No"
    assert read_verdict(rf"{opening}\boxed{{Yes}}", ["Yes", "No"]).parse is Parse.NONE


def test_only_the_final_channel_is_an_answer() -> None:
    assert read_answer(CHANNELS.format(r"\boxed{8}", r"\boxed{7}")) == "7"
    assert read_answer(CHANNELS.format(r"\boxed{8}", "none")) is None
    assert read_answer(r"<|channel|>analysis<|message|>\boxed{7}") is None
    assert read_answer(r"\boxed{8}<|end|><|start|>assistant<|channel|>final<|message|>\boxed{7}") == "7"
    assert read_answer(r"<|channel|>final <|constrain|>json<|message|>\boxed{7}<|return|>") == "7"
    assert read_answer(r"<|channel|>commentary to=f <|message|>\boxed{8}<|call|>") is None
