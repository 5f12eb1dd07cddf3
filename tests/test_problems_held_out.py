from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from spark_kernel.config import load_config, validate_config
from spark_kernel.errors import InputError
from spark_kernel.problems.arithmetic import ArithmeticSource
from spark_kernel.problems.held_out import (
    CANONICAL_FORM,
    GIVEN_IMAGES,
    canonical_text,
    held_out_position,
    is_held_out,
    may_be_evaluated,
)
from spark_kernel.problems.stream import ProblemStream
from spark_kernel.records import ImageRef, Problem
from spark_kernel.runs.configuration import read_config
from workbench.views.snapshot import run_config


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
    assert held_out_position(subject, CANONICAL_FORM) == position
    assert not is_held_out(subject, position, CANONICAL_FORM)
    assert is_held_out(subject, position + 1e-9, CANONICAL_FORM)


@given(st.text(), st.text(), st.text(), st.text())
def test_only_what_is_asked_counts(question: str, identity: str, gold: str, verifier: str) -> None:
    other = problem(question, id=identity, gold=gold, verifier=verifier)
    assert held_out_position(other, CANONICAL_FORM) == held_out_position(problem(question), CANONICAL_FORM)


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
    assert canonical_text(problem(one), CANONICAL_FORM) == canonical_text(problem(same), CANONICAL_FORM)


def test_images_count_with_their_order() -> None:
    texts = {
        canonical_text(problem("Which?", *shas), CANONICAL_FORM)
        for shas in [(), ("a",), ("b",), ("a", "b"), ("b", "a")]
    }
    assert len(texts) == 5


def test_a_question_cannot_pose_as_an_image() -> None:
    assert canonical_text(problem("Which?\nimage a"), CANONICAL_FORM) != canonical_text(
        problem("Which?", "a"), CANONICAL_FORM
    )


@given(st.text())
def test_the_canonical_question_is_stable(question: str) -> None:
    once = canonical_text(problem(question), CANONICAL_FORM)
    assert canonical_text(problem(once), CANONICAL_FORM) == once


@given(st.text(), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_fraction_holds_out_more(question: str, one: float, other: float) -> None:
    small, large = sorted((one, other))
    assert is_held_out(problem(question), large, CANONICAL_FORM) or not is_held_out(
        problem(question), small, CANONICAL_FORM
    )


def test_the_share_is_the_fraction() -> None:
    """2,000 distinct questions: the count is binomial, and 5 standard deviations are allowed."""
    questions = {f"What is {index} plus {index * 7}?" for index in range(2000)}
    subjects = [problem(question) for question in sorted(questions)]
    assert len(subjects) == 2000
    for fraction in (0.1, 0.5):
        count = sum(is_held_out(subject, fraction, CANONICAL_FORM) for subject in subjects)
        assert abs(count - 2000 * fraction) < 5 * (2000 * fraction * (1 - fraction)) ** 0.5


@pytest.mark.parametrize("fraction", [-0.1, 1.5, float("nan")])
def test_an_impossible_fraction_is_refused(fraction: float) -> None:
    with pytest.raises(InputError, match="0 to 1"):
        is_held_out(problem("x"), fraction, CANONICAL_FORM)


# The second form: one problem however it is read.


def test_the_second_form_leaves_plain_problems_where_they_were() -> None:
    """So a new run holds out what an old one held out, wherever there is nothing to normalise."""
    for subject in (problem("What is 2 + 2?"), problem("What is 2 + 2?", "0" * 64), problem("Straße ﬁn ①")):
        assert held_out_position(subject, 1) == held_out_position(subject, 2)


@pytest.mark.parametrize(
    ("one", "other", "images"),
    [
        ("How wide?", "<image>How wide?", 1),
        ("From <image> to <image>", "From to", 2),
        ("What is 2 + 2?", "What is 2 + 2? Please reason step by step, and put your final answer within \\boxed{}.", 0),
        ("Which?\nA. a", "Which?\nA. a\nAnswer with the option's letter from the given choices directly.", 0),
        (
            "Start with 17, add 25, then take away 8. What do you get?",
            "Begin at 17, add 25, then subtract 8. Where do you end?",
            0,
        ),
        (
            "Take 3, multiply by 4. Which number is it?",
            "Start with 3, multiply by 4. What do you get? Put your final answer in \\boxed{}.",
            0,
        ),
    ],
)
def test_one_problem_however_it_is_read(one: str, other: str, images: int) -> None:
    first, second = (problem(text, *("ab"[:images])) for text in (one, other))
    assert canonical_text(first, CANONICAL_FORM) == canonical_text(second, CANONICAL_FORM)
    assert canonical_text(first, 1) != canonical_text(second, 1)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Take 3, multiply by 4. Which number is it?", "Take 3, multiply by 5. Which number is it?"),
        ("Take 3, multiply by 4. Which number is it?", "Take 3, add 4. Which number is it?"),
        ("Take 3, add 4, then add 5. Which number is it?", "Take 3, add 5, then add 4. Which number is it?"),
        ("What is <image>?", "What is?"),  # without images the mark is text
        ("Find x. Give it as a common fraction.", "Find x."),
    ],
)
def test_what_differs_stays_apart(one: str, other: str) -> None:
    assert canonical_text(problem(one), CANONICAL_FORM) != canonical_text(problem(other), CANONICAL_FORM)


def test_a_chain_is_trained_on_in_no_phrasing_where_any_is_evaluated() -> None:
    source = ArithmeticSource(seed=3, max_operations=2, max_value=20)
    subjects = [source.problem(index) for index in range(4000)]
    evaluated = {canonical_text(p, CANONICAL_FORM) for p in subjects if may_be_evaluated(p, 0.3, CANONICAL_FORM)}
    trained = {canonical_text(p, CANONICAL_FORM) for p in subjects if not is_held_out(p, 0.3, CANONICAL_FORM)}
    assert len(evaluated) > 50
    assert not evaluated & trained
    phrasings = {canonical_text(p, 1) for p in subjects if canonical_text(p, CANONICAL_FORM) in evaluated}
    assert len(phrasings) > len(evaluated), "some of them were met in several phrasings"
    assert all(is_held_out(p, 0.3, 1) for p in subjects if may_be_evaluated(p, 0.3, CANONICAL_FORM)), (
        "unseen by the starter"
    )


@pytest.mark.parametrize("form", [1, 2])
@given(st.text(), st.floats(0, 1))
def test_what_is_evaluated_is_held_out(form: int, question: str, fraction: float) -> None:
    subject = problem(question)
    assert is_held_out(subject, fraction, form) or not may_be_evaluated(subject, fraction, form)


def test_an_image_that_was_made_smaller_counts_as_published() -> None:
    smaller = replace(problem("Which?", "b" * 64), meta={GIVEN_IMAGES: ["a" * 64]})
    assert canonical_text(smaller, CANONICAL_FORM) == canonical_text(problem("Which?", "a" * 64), CANONICAL_FORM)


# A run keeps the form it began with.

BEFORE = "seed: 3\nproblems: {source: files, options: {path: a.jsonl}}\n"


def test_a_run_from_before_there_were_forms_keeps_its_split(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(BEFORE)
    assert load_config(tmp_path / "config.yaml").problems.canonical_form == 2, "a person's own file is a new run's"
    (tmp_path / "run.json").write_text("{}")
    for read in (read_config(tmp_path), load_config(tmp_path / "config.yaml"), run_config(BEFORE)):
        assert read.problems.canonical_form == 1
        assert read.problems.options == {"path": "a.jsonl", "format": "columns-1"}
        assert validate_config(yaml.safe_load(read.to_yaml())) == read


def test_a_new_run_stores_its_form(tmp_path: Path) -> None:
    config = load_config("quickstart")
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    assert read_config(tmp_path) == config
    assert config.problems.canonical_form == 2


@dataclass
class Listed:
    """A finite source."""

    problems: list[Problem]

    @property
    def size(self) -> int | None:
        return len(self.problems)

    def problem(self, index: int) -> Problem:
        return self.problems[index]


@pytest.mark.parametrize("form", [1, 2])
def test_a_finite_source_is_split_by_its_runs_form(form: int) -> None:
    chains = [ArithmeticSource(seed=5).problem(index) for index in range(400)]
    stream = ProblemStream(Listed(chains), seed=0, held_out_fraction=0.2, canonical_form=form)
    trained = {p.id for p in chains if not is_held_out(p, 0.2, form)}
    evaluated = {p.id for p in chains if may_be_evaluated(p, 0.2, form)}
    assert {p.id for p in stream.take(0, stream.trainable_count or 0, round=1).problems} == trained
    assert {p.id for p in stream.held_out(len(evaluated), seed=0)} == evaluated
    assert len(evaluated) > 5


@pytest.mark.parametrize("form", [1, 2])
def test_the_stream_splits_by_its_runs_form(form: int) -> None:
    stream = ProblemStream(ArithmeticSource(seed=5), seed=0, held_out_fraction=0.2, canonical_form=form)
    trained, evaluated = stream.take(0, 300, round=1).problems, stream.held_out(60, seed=0)
    assert not any(is_held_out(p, 0.2, form) for p in trained)
    assert all(may_be_evaluated(p, 0.2, form) for p in evaluated)
    # The second form is the stricter one: what it trains on, a run of the first form might have trained on.
    assert any(is_held_out(p, 0.2, 2) for p in trained) == (form == 1)
    assert all(is_held_out(p, 0.2, 1) for p in evaluated)
