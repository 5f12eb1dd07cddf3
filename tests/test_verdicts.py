"""The grammar of boxes: written and read back, by hand-made cases and against a slow, plain reading."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from spark_kernel.prompts.verdicts import read_answer, read_boxes, read_verdict, strip_thinking, write_box
from spark_kernel.records import Parse

PIECES = st.lists(
    st.sampled_from([r"\boxed{", r"\boxed {", "{", "}", r"\{", r"\}", "\\\\", "a", " ", r"\frac", "5", r"\\boxed{"]),
    max_size=14,
).map("".join)


def plain_boxes(text: str) -> list[str]:
    """The definition, spelled out: for each box from the left, look for its closing brace; quadratic."""
    found, position = [], 0
    while match := re.compile(r"\\boxed\s*\{").search(text, position):
        depth, end = 1, match.end()
        while end < len(text) and depth:
            if text[end] == "\\":
                end += 2
                continue
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        if depth:
            position = match.end()
        else:
            found.append(text[match.end() : end - 1].strip())
            position = end
    return found


@given(PIECES)
@example(r"\boxed{\boxed{1} \boxed{2}")
@example(r"{ \boxed{5} }} \boxed{6}")
def test_boxes_are_read_as_defined(text: str) -> None:
    assert read_boxes(text) == plain_boxes(text)


BALANCED = st.recursive(
    st.text(st.characters(exclude_characters="{}\\", exclude_categories=["Cs"]), max_size=6)
    | st.sampled_from([r"\frac{1}{2}", r"\{", r"\}", r"\text{a}", r"\\ "]),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda parts: "{" + "".join(parts) + "}") | st.tuples(inner, inner).map("".join)
    ),
    max_leaves=8,
)


@given(BALANCED, BALANCED)
def test_what_is_written_in_a_box_is_read_back(content: str, before: str) -> None:
    if "<think>" in content or "</think>" in content:
        return
    box = write_box(content)
    assert read_boxes(f"So {box} it is.") == [content.strip()]
    if content.strip():
        assert read_answer(f"{write_box(before)} then {box}. Done.") == content.strip()


def test_many_unclosed_boxes_are_read_in_linear_time() -> None:
    """Two hundred thousand of them: a quadratic reading would not end."""
    assert read_boxes(r"\boxed{" * 200_000) == []
    assert read_boxes(r"\boxed{" * 100_000 + "}" * 100_000) == [(r"\boxed{" * 99_999 + "}" * 99_999)]
    assert read_boxes(r"\boxed{" * 100_000 + r"\boxed{7}") == ["7"]
    assert read_answer("<think>" * 100_000) is None


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("a<think>b</think>c", "ac"),
        ("<think>b", ""),
        ("b</think>c", "c"),
        ("<think>a</think>b</think>c", "c"),
        ("<think>a <think>b</think>c</think>d", "d"),
        ("a<think>b</think>c<think>d", "ac"),
        ("no thinking", "no thinking"),
        ("<think></think>\n\nx", "\n\nx"),
    ],
)
def test_thinking_is_taken_out(text: str, rest: str) -> None:
    assert strip_thinking(text) == rest


@given(
    st.sampled_from(["Yes", "No"]), st.lists(st.sampled_from(["Yes", "No", "yes.", r"\text{NO}", "42", ""]), max_size=5)
)
def test_a_verdict_counts_exactly_when_all_verdicts_agree(allowed_first: str, contents: list[str]) -> None:
    reading = read_verdict(" so ".join(map(write_box, contents)), ["Yes", "No"])
    meant = {"yes": "Yes", "no": "No"}
    said = {
        meant[word] for word in (re.sub(r"[^a-z]|text", "", content.lower()) for content in contents) if word in meant
    }
    if not said:
        assert reading.parse is Parse.NONE
    elif len(said) == 2:
        assert reading.parse is Parse.AMBIGUOUS
    else:
        assert (reading.parse, reading.verdict) == (Parse.OK, said.pop())


@pytest.mark.parametrize("content", ["Yes or No", "Y", "Yes, I think", "AB", "", "A or B", "C"])
def test_what_is_no_verdict_does_not_count(content: str) -> None:
    assert read_verdict(write_box(content), ["Yes", "No", "A", "B"]).parse is Parse.NONE
    assert read_verdict(write_box(content) + write_box("B"), ["A", "B"]).verdict == "B"
