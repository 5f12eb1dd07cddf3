"""The grammar of boxes: written and read back, by hand-made cases and against a slow, plain reading."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from spark_kernel.prompts.verdicts import read_answer, read_boxes, read_verdict, strip_thinking, write_box
from spark_kernel.records import Parse

DATA = Path(__file__).parent / "data"
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
    st.lists(st.sampled_from(["Yes", "No", "yes.", r"\text{NO}", "42", ""]), max_size=5),
    st.sampled_from(["", ".", " so it is", "**.", " $", " 7"]),
)
def test_a_verdict_counts_where_all_agree_or_the_last_one_stands_at_the_end(contents: list[str], after: str) -> None:
    reading = read_verdict(" so ".join(map(write_box, contents)) + after, ["Yes", "No"])
    meant = {"yes": "Yes", "no": "No"}
    said = {
        meant[word] for word in (re.sub(r"[^a-z]|text", "", content.lower()) for content in contents) if word in meant
    }
    if not said:
        assert reading.parse is Parse.NONE
    elif len(said) == 2 and (re.search(r"\w", after) or contents[-1] in ("42", "")):
        assert reading.parse is Parse.AMBIGUOUS
    elif len(said) == 2:
        assert reading.verdict == meant[re.sub(r"[^a-z]|text", "", contents[-1].lower())]
    else:
        assert (reading.parse, reading.verdict) == (Parse.OK, said.pop())


@pytest.mark.parametrize("content", ["Yes or No", "Y", "Yes, I think", "AB", "", "A or B", "C"])
def test_what_is_no_verdict_does_not_count(content: str) -> None:
    assert read_verdict(write_box(content), ["Yes", "No", "A", "B"]).parse is Parse.NONE
    assert read_verdict(write_box(content) + write_box("B"), ["A", "B"]).verdict == "B"


DRESSES = [
    "{}", "**{}**", "*{}*", "`{}`", '"{}"', "'{}'", "“{}”", "${}$", r"\({}\)", r"\text{{{}}}", r"\textrm{{{}}}",
    r"\textbf{{{}}}", r"\mathbf{{{}}}", r"\mathsf{{{}}}", r"\boxed{{{}}}", r"\fbox{{{}}}",
    r"\textcolor{{red}}{{{}}}", "({})", "[{}]", "{}.", "{})", "Answer: {}", "Verdict: {}", "The answer is {}",
    "Option {}", "Response {}", "final verdict: {}", " {} ", r"\large {}", "__{}__",
]  # fmt: skip
"""What a verdict may wear, with the word in the braces."""


@given(st.sampled_from(["Yes", "No", "A", "B"]), st.lists(st.sampled_from(DRESSES), max_size=3))
def test_a_verdict_in_any_dress_is_read(verdict: str, dresses: list[str]) -> None:
    content, words = verdict, 0
    for dress in dresses:
        words += any(character.isalpha() for character in dress.replace("\\", " ").split(" ")[0]) and " " in dress
        content = dress.format(content)
    allowed = ["Yes", "No"] if verdict in ("Yes", "No") else ["A", "B"]
    reading = read_verdict(write_box(content), allowed)
    if words <= 1:
        assert reading.verdict == verdict, content
    other = next(one for one in allowed if one != verdict)
    assert reading.verdict != other


@pytest.mark.parametrize(
    "content",
    ["Yes, because 7 is prime", "The answer is correct", "Yes or No", "not Yes", "Yes and No", "A or B", "A and B",
     "Yesterday", "I say Yes", "both A and B", "(A) (B)", "A, B", "Yes/No", "No, it is Yes", "Is it Yes?", "A = B",
     "correct", "Yes" * 60],
)  # fmt: skip
def test_a_sentence_or_several_verdicts_in_one_box_are_none(content: str) -> None:
    assert read_verdict(write_box(content), ["Yes", "No", "A", "B"]).parse is Parse.NONE


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        (r"The answer says \boxed{Yes}. It is wrong: \boxed{No}", "No"),
        (r"\boxed{Yes} at first sight; on a closer look \boxed{No}", "No"),
        (r'"... \boxed{Yes}"? No: **\boxed{No}**.', "No"),
        (r"It quotes \boxed{No}, and I agree not: \[\boxed{\text{Yes}}\]", "Yes"),
        (r"\boxed{Yes} $\boxed{No}$<|im_end|>", "No"),
        (r"\boxed{Yes}. \boxed{No} </answer>", "No"),
        (r"\boxed{No} was quoted. \boxed{Yes} is my verdict", None),
        (r"\boxed{No}. \boxed{Yes} \boxed{42}", None),
        (r"\boxed{No}. \boxed{Yes} and \boxed{", None),
        (r"It suggests Yes, but: \boxed{No}", "No"),
        (r"Work it out yourself, then write \boxed{Yes} or \boxed{No}.", None),
        (r"Work it out and write \boxed{Yes}$ or $\boxed{\text{No}}$.", None),
        (r"\boxed{No}: I had to choose \boxed{Yes}/\boxed{No}", None),
        (r"\boxed{Yes} or not? Hardly: \boxed{No}", "No"),
    ],
)
def test_a_verdict_quoted_and_then_decided_otherwise(text: str, verdict: str | None) -> None:
    reading = read_verdict(text, ["Yes", "No"])
    assert reading.verdict == verdict
    assert reading.parse is (Parse.OK if verdict else Parse.AMBIGUOUS)


def test_what_a_small_model_really_wrote_is_read_or_refused() -> None:
    """Judge outputs of SmolLM2-135M-Instruct before training; docs/verifiers.md has the figures."""
    rows = [json.loads(line) for line in (DATA / "smollm2_judgements.jsonl").read_text("utf-8").splitlines()]
    readings = [read_verdict(row["output"], row["meanings"]) for row in rows]
    assert Counter(reading.parse for reading in readings) == {Parse.OK: 58, Parse.NONE: 36, Parse.AMBIGUOUS: 2}
    # Both that name two verdicts repeat the prompt's last sentence; the last box alone would be a verdict, and wrong.
    for row, reading in zip(rows, readings, strict=True):
        if reading.parse is Parse.AMBIGUOUS:
            assert re.search(r"write \\boxed\{A\}\$? or \\boxed\{B\}\.$", row["output"])
            assert row["meanings"]["B"] != row["label"]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{7}. Let me check: \boxed{", None),
        (r"\boxed{7} Wait, wrong. Final: \boxed{8", None),
        (r"\boxed{7 and \boxed{8}", "8"),
        (r"\boxed{7} {", "7"),
        (r"\fbox{7}", "7"),
        (r"\boxed{8}, \fbox{7}", "7"),
        (r"\boxed{7} \boxed{}", "7"),
    ],
)
def test_which_box_is_the_answer(text: str, answer: str | None) -> None:
    assert read_answer(text) == answer
