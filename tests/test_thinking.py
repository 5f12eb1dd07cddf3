"""Thinking is told apart from the answer, whatever marks it; against a slow, plain reading."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_kernel.errors import InputError
from spark_kernel.prompts.thinking import DEFAULT_TAGS, Tags, final_part, read_tags
from spark_kernel.prompts.verdicts import read_answer, read_verdict
from spark_kernel.records import Parse

CHANNELS = "<|channel|>analysis<|message|>{}<|end|><|start|>assistant<|channel|>final<|message|>{}<|return|>"


def plain_final_part(text: str, tags: Tags) -> str:
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
    st.sampled_from(["a", "b ", r"\boxed{7}", *(tag for pair in DEFAULT_TAGS[:4] for tag in pair)]), max_size=9
).map("".join)


@given(PIECES)
def test_it_is_as_defined(text: str) -> None:
    assert final_part(text) == plain_final_part(text, DEFAULT_TAGS)


@pytest.mark.parametrize("tags", DEFAULT_TAGS, ids=lambda tags: tags[0])
def test_a_box_inside_thinking_is_no_answer_and_no_verdict(tags: tuple[str, str]) -> None:
    opening, closing = tags
    assert read_answer(rf"{opening}Maybe \boxed{{8}}{closing} So \boxed{{7}}") == "7"
    assert read_answer(rf"{opening}\boxed{{7}}{closing} I do not know") is None
    assert read_answer(rf"{opening}\boxed{{7}}? Let me") is None, "cut off inside the thought"
    assert read_answer(rf"Maybe \boxed{{8}}{closing} \boxed{{7}}") == "7", "opened by the template"
    assert read_verdict(rf"{opening}\boxed{{Yes}}{closing} \boxed{{No}} it is", ["Yes", "No"]).verdict == "No"
    assert read_verdict(rf"{opening}\boxed{{Yes}}", ["Yes", "No"]).parse is Parse.NONE


def test_a_thought_that_the_prompt_opened_and_that_was_cut_off_has_no_answer() -> None:
    text = r"Maybe \boxed{7}? Let me check"
    assert read_answer(text) == "7", "nothing in the text shows it"
    assert read_answer(text, opened=True) is None
    assert read_answer(text + r"</think>\boxed{8}", opened=True) == "8"
    assert read_verdict(r"\boxed{Yes}", ["Yes", "No"], opened=True).parse is Parse.NONE


def test_only_the_final_channel_is_an_answer() -> None:
    assert read_answer(CHANNELS.format(r"\boxed{8}", r"\boxed{7}")) == "7"
    assert read_answer(CHANNELS.format(r"\boxed{8}", "none")) is None
    assert read_answer(r"<|channel|>analysis<|message|>\boxed{7}") is None
    assert read_answer(r"\boxed{8}<|end|><|start|>assistant<|channel|>final<|message|>\boxed{7}") == "7"
    assert read_answer(r"<|channel|>final <|constrain|>json<|message|>\boxed{7}<|return|>") == "7"
    assert read_answer(r"<|channel|>commentary to=f <|message|>\boxed{8}<|call|>") is None


def test_tags_of_ones_own_are_known_beside_the_others() -> None:
    tags = read_tags([["<plan>", "</plan>"]])
    text = r"<plan>\boxed{8}</plan>"
    assert read_answer(text) == "8"
    assert read_answer(text, tags=tags) is None
    assert read_answer(r"<think>\boxed{8}</think>", tags=tags) is None
    assert read_tags([]) == DEFAULT_TAGS
    assert read_tags([["<think>", "</think>"]]) == DEFAULT_TAGS


@pytest.mark.parametrize("pairs", [["<think>"], [["<a>"]], [["<a>", ""]], [["x", "x"]], [["<a>", 3]]])
def test_what_is_no_pair_of_tags_is_refused(pairs: list) -> None:
    with pytest.raises(InputError, match="tags"):
        read_tags(pairs)


@given(st.text(max_size=60), st.text(max_size=60))
def test_a_text_without_tags_is_left_alone(one: str, other: str) -> None:
    text = (one + other).replace("<", "(").replace("[", "(").replace("◁", "(")
    assert final_part(text) == text
