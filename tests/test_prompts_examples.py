"""Worked examples: off unless asked for, right by the project's own verifiers, and before every kind of prompt."""

from __future__ import annotations

import pytest

from spark_kernel.keyed_random import keyed_random
from spark_kernel.problems.arithmetic import ArithmeticSource
from spark_kernel.problems.held_out import CANONICAL_FORM, canonical_text
from spark_kernel.problems.worked_examples import WithWorkedExamples
from spark_kernel.prompts.build import draw_letters, fill, letter_places, solve_task, word_map
from spark_kernel.prompts.examples import EXAMPLES, example_turns
from spark_kernel.prompts.templates import TEMPLATES, Template
from spark_kernel.prompts.verdicts import read_answer, read_boxes, read_verdict
from spark_kernel.records import Kind, Problem

PLAIN = Problem("p", "What is 6 + 7?", "13", "integer")
MARKED = Problem("p", "What is 6 + 7?", "13", "integer", meta={"worked_examples": True})
PLACES = {"candidate": "13", "first": "13", "second": "14"}


def value(question: str) -> int:
    """The answer of an example's question."""
    words = question.removeprefix("What is ").removesuffix("?").split()
    left, right = int(words[0]), int(words[2])
    return left + right if words[1] == "+" else left - right


def places_of(template: Template, draw: int) -> tuple[dict[str, str], dict[str, str] | None]:
    letters = dict(draw_letters(keyed_random(0, "letters", draw))) if template.letters else None
    return PLACES | letter_places(letters), letters or dict(word_map(template) or {}) or None


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.id)
def test_examples_come_first_and_only_where_asked_for(template: Template) -> None:
    places, _ = places_of(template, 0)
    plain = fill(template, PLAIN, places)
    marked = fill(template, MARKED, places)
    assert len(plain) == 1
    assert marked[-1] == plain[0]
    assert [message.role for message in marked] == ["user", "assistant"] * len(EXAMPLES[template.kind]) + ["user"]
    assert all("{" not in m.text.replace("\\boxed{", "").replace("{}", "") for m in marked if m.role == "user")


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.id)
@pytest.mark.parametrize("draw", range(6))
def test_every_example_is_right(template: Template, draw: int) -> None:
    places, letters = places_of(template, draw)
    turns = example_turns(template, MARKED, places)
    for example, reply in zip(EXAMPLES[template.kind], turns[1::2], strict=True):
        right = value(example.question)
        assert len(read_boxes(reply.text)) == 1
        if not template.kind.judges:
            assert read_answer(reply.text) == str(right)
            continue
        verdict = read_verdict(reply.text, letters or (("Yes", "No") if template.kind is Kind.POINTWISE else "AB"))
        meaning = letters[verdict.verdict] if letters and verdict.verdict else verdict.verdict
        if template.kind is Kind.POINTWISE:
            assert meaning == ("Yes" if int(example.places["candidate"]) == right else "No")
        else:
            candidates = {"A": int(example.places["first"]), "B": int(example.places["second"])}
            assert [letter for letter, answer in candidates.items() if answer == right] == [meaning]


@pytest.mark.parametrize("kind", [Kind.POINTWISE, Kind.PAIRWISE])
def test_verdicts_are_balanced(kind: Kind) -> None:
    boxes = [example.box for example in EXAMPLES[kind]]
    assert {boxes.count(box) for box in set(boxes)} == {len(boxes) / 2}


def test_a_marked_source_has_the_same_problems_in_the_same_bucket() -> None:
    source = ArithmeticSource(seed=0)
    marked = WithWorkedExamples(source)
    assert marked.size == source.size
    for index in range(5):
        problem, other = source.problem(index), marked.problem(index)
        assert (other.id, other.question, other.gold) == (problem.id, problem.question, problem.gold)
        assert canonical_text(other, CANONICAL_FORM) == canonical_text(problem, CANONICAL_FORM)
        task = solve_task(other, seed=0, round=1)
        assert task.messages[-1:] == solve_task(problem, seed=0, round=1).messages
        assert len(task.messages) == 7
