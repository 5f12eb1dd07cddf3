from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_kernel.errors import InputError
from spark_kernel.problems.arithmetic import ArithmeticSource
from spark_kernel.problems.held_out import canonical_text, held_out_position, is_held_out
from spark_kernel.records import ImageRef, Problem


def problem(question: str, *shas: str, **changes: str) -> Problem:
    fields = {"id": "p", "gold": "4", "verifier": "math"} | changes
    return Problem(question=question, images=tuple(ImageRef(sha, "/x.png") for sha in shas), **fields)


@pytest.mark.parametrize(
    ("subject", "position"),
    [
        (problem("What is 2 + 2?"), 0.9079958249981173),
        (problem("What is 2 + 2?", "0" * 64), 0.04406180811202964),
        (problem("Straße ﬁn ①"), 0.589860945634905),
        (problem("", "a" * 64, "b" * 64), 0.47733898212252257),
    ],
)
def test_positions_never_change(subject: Problem, position: float) -> None:
    """These numbers decide which problems a trained model has never seen: changing them leaks evaluation data."""
    assert held_out_position(subject) == position
    assert not is_held_out(subject, position)
    assert is_held_out(subject, position + 1e-9)


@given(st.text(), st.text(), st.text(), st.text())
def test_only_what_is_asked_counts(question: str, identity: str, gold: str, verifier: str) -> None:
    other = problem(question, id=identity, gold=gold, verifier=verifier)
    assert held_out_position(other) == held_out_position(problem(question))


@pytest.mark.parametrize(
    ("one", "same"),
    [
        ("What is 2 + 2?", " what\u00a0IS 2\n+\t2? "),
        ("STRASSE", "straße"),
        ("x² in ﬁve", "X2 in five"),
        ("\u1fb7", "\u1fb7".upper()),
    ],
)
def test_spelling_variants_are_one_problem(one: str, same: str) -> None:
    assert canonical_text(problem(one)) == canonical_text(problem(same))


def test_images_count_with_their_order() -> None:
    texts = {canonical_text(problem("Which?", *shas)) for shas in [(), ("a",), ("b",), ("a", "b"), ("b", "a")]}
    assert len(texts) == 5


def test_a_question_cannot_pose_as_an_image() -> None:
    assert canonical_text(problem("Which?\nimage a")) != canonical_text(problem("Which?", "a"))


@given(st.text())
def test_the_canonical_question_is_stable(question: str) -> None:
    once = canonical_text(problem(question))
    assert canonical_text(problem(once)) == once


@given(st.text(), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_fraction_holds_out_more(question: str, one: float, other: float) -> None:
    small, large = sorted((one, other))
    assert is_held_out(problem(question), large) or not is_held_out(problem(question), small)


def test_the_share_is_the_fraction() -> None:
    """2,000 distinct questions: the count is binomial, and 5 standard deviations are allowed."""
    questions = {ArithmeticSource(seed=3).problem(index).question for index in range(2300)}
    subjects = [problem(question) for question in sorted(questions)][:2000]
    assert len(subjects) == 2000
    for fraction in (0.1, 0.5):
        count = sum(is_held_out(subject, fraction) for subject in subjects)
        assert abs(count - 2000 * fraction) < 5 * (2000 * fraction * (1 - fraction)) ** 0.5


@pytest.mark.parametrize("fraction", [-0.1, 1.5, float("nan")])
def test_an_impossible_fraction_is_refused(fraction: float) -> None:
    with pytest.raises(InputError, match="0 to 1"):
        is_held_out(problem("x"), fraction)
