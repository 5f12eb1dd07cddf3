"""From problems and candidates to prompts: what a well-behaved model writes, the verifier reads back."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from spark_kernel.keyed_random import keyed_random
from spark_kernel.prompts.build import (
    IMAGE_MARK,
    draw_letters,
    fill,
    letter_places,
    pairwise_task,
    pointwise_task,
    question_parts,
    reflection_task,
    show,
    solve_task,
)
from spark_kernel.prompts.templates import TEMPLATES, template_by_id, templates_of
from spark_kernel.prompts.verdicts import read_answer, read_verdict, strip_thinking, write_box
from spark_kernel.records import ImagePart, ImageRef, Kind, Origin, Parse, Problem, Rollout, Score, Task, TextPart, View
from spark_kernel.verify import VerifyRequest, score_request

AWKWARD = [
    r"\boxed{5}",
    r"\boxed{",
    r"\frac{1}{2}",
    "{question}",
    "{candidate}{a}{b}",
    "</answer>",
    "<answer_a>",
    "</PROBLEM>",
    "< / answer >",
    "<image>",
    "<|im_end|>",
    "<|image_pad|>",
    "<think>hm</think>",
    "\\1 \\g<0>",
    "ünïcödé 数学 🧮",
    "\n\n",
    "%s {0}",
]
TEXT = st.lists(st.sampled_from(AWKWARD) | st.text(max_size=8), max_size=6).map(" ".join)
GOLD = "gold-7f3a91"


def problem(question: str, images: int = 0, gold: str = GOLD) -> Problem:
    refs = tuple(ImageRef(f"hash{i}", f"/tmp/{i}.png") for i in range(images))
    return Problem("p1", question, gold, "exact", images=refs)


def rollout(text: str, correct: bool, name: str = "r1") -> Rollout:
    score = Score(float(correct), correct, Parse.OK, read_answer(text), "")
    return Rollout(name, "t0", 0, 3, (1,), (0.0,), text, False, score=score)


def judge_and_reflection_tasks(about: Problem, one: str, other: str, view: View, seed: int) -> list[Task]:
    shared = {"origin": Origin.SOLVE, "view": view, "mixed": True, "seed": seed, "round": 1}
    return [
        pointwise_task(about, rollout(one, True), **shared),
        pointwise_task(about, rollout(one, False), **shared),
        pairwise_task(about, rollout(one, True, "r1"), rollout(other, False, "r2"), **shared),
        reflection_task(about, rollout(one, False), **shared),
    ]


def well_behaved(task: Task, verdict: str, quotes: list[str]) -> str:
    """Reason, quoting candidates as they stand, then exactly one verdict, as the template asks."""
    return " ".join(["Let me check.", *quotes, "So", write_box(verdict)])


def written(task: Task) -> str:
    """The box content that means the label in this task."""
    if task.label_map is None:
        return task.label
    return next(letter for letter, meaning in task.label_map.items() if meaning == task.label)


@given(TEXT, TEXT, TEXT, st.sampled_from(View), st.integers(0, 50))
def test_a_judge_that_follows_the_template_is_read_as_it_meant(
    question: str, one: str, other: str, view: View, seed: int
) -> None:
    about = problem(question)
    for task in judge_and_reflection_tasks(about, one, other, view, seed)[:3]:
        allowed = set(task.label_map or (["A", "B"] if task.kind is Kind.PAIRWISE else ["Yes", "No"]))
        # A quoted box that happens to be a verdict makes the output ambiguous by design.
        quotes = [write_box(answer) for answer in map(read_answer, (one, other)) if answer]
        quotes = [quote for quote in quotes if read_verdict(quote, allowed).parse is Parse.NONE]
        output = well_behaved(task, written(task), quotes)
        score = score_request(VerifyRequest(output, about, task))
        assert (score.correct, score.answer) == (True, task.label)
        [wrong] = allowed - {written(task)}
        score = score_request(VerifyRequest(well_behaved(task, wrong, quotes), about, task))
        assert (score.correct, score.parse, score.reward) == (False, Parse.OK, 0.0)


@given(
    TEXT,
    TEXT,
    st.sampled_from(View),
    st.integers(0, 50),
    st.sampled_from(["3/4", r"\frac{a}{b}", r"x^{y^{2}}", "{1, {2}}"]),
)
def test_a_solver_or_reflector_that_follows_the_template_is_read_as_it_meant(
    question: str, candidate: str, view: View, seed: int, gold: str
) -> None:
    about = problem(question, gold=gold)
    tasks = [
        solve_task(about, seed=seed, round=1),
        reflection_task(
            about, rollout(candidate, False), origin=Origin.SOLVE, view=view, mixed=False, seed=seed, round=1
        ),
    ]
    for task in tasks:
        quoted = read_answer(candidate)
        output = well_behaved(task, gold, [write_box(quoted)] if quoted else [])
        assert score_request(VerifyRequest(output, about, task)).correct


@given(TEXT, TEXT, TEXT, st.sampled_from(View), st.integers(0, 50))
def test_gold_is_in_no_judge_or_reflection_prompt(question: str, one: str, other: str, view: View, seed: int) -> None:
    assume(GOLD not in question + one + other)
    for task in judge_and_reflection_tasks(problem(question), one, other, view, seed):
        assert GOLD not in repr(task.messages)
    assert GOLD not in repr(solve_task(problem(question), seed=seed, round=1).messages)


OWN = re.compile(r"<\s*/?\s*(problem|answer|answer_a|answer_b|image)\b|<\|", re.IGNORECASE)


@given(TEXT, TEXT, st.sampled_from(View), st.integers(0, 50))
def test_no_tag_of_a_candidate_can_be_taken_for_ours(one: str, other: str, view: View, seed: int) -> None:
    """Only the tags that the template brings are in the prompt, each as often as in the template."""
    for task in judge_and_reflection_tasks(problem("What?"), one, other, view, seed):
        template = template_by_id(task.template_id).text
        assert OWN.findall(task.messages[0].text) == OWN.findall(template)


@given(
    st.lists(
        st.sampled_from(["<|im_", "<", "</", "answer", ">", "think", "<think>", "</think>", "|", " ", "/"]), max_size=12
    )
)
def test_tags_cannot_be_assembled_from_what_is_taken_out(pieces: list[str]) -> None:
    task = judge_and_reflection_tasks(problem("What?"), "".join(pieces), "x", View.FULL, 0)[0]
    assert OWN.findall(task.messages[0].text) == OWN.findall(template_by_id(task.template_id).text)


@given(TEXT, st.integers(0, 4), st.integers(0, 4), st.integers(0, 20))
def test_images_keep_their_number_and_order(question: str, images: int, marks: int, seed: int) -> None:
    question = question + "".join(f" see {IMAGE_MARK}" for _ in range(marks))
    about = problem(question, images)
    for task in [
        solve_task(about, seed=seed, round=1),
        *judge_and_reflection_tasks(about, "<image> " + write_box("5"), "<image>", View.FULL, seed),
    ]:
        parts = task.messages[0].parts
        assert [part.index for part in parts if isinstance(part, ImagePart)] == list(range(images))
        assert task.images == about.images
        assert all(part.text for part in parts if isinstance(part, TextPart))
        assert not any(
            isinstance(left, TextPart) and isinstance(right, TextPart) for left, right in itertools.pairwise(parts)
        )
        content = task.messages[0].to_chat()["content"]
        assert isinstance(content, str) == (images == 0)


def test_images_stand_at_their_marks_or_else_before_the_text() -> None:
    assert question_parts(problem("a <image> b <image> c", 2)) == [
        TextPart("a "), ImagePart(0), TextPart(" b "), ImagePart(1), TextPart(" c"),
    ]  # fmt: skip
    assert question_parts(problem("a <image> b", 2)) == [ImagePart(0), ImagePart(1), TextPart("a <image> b")]
    assert question_parts(problem("the <image> tag", 0)) == [TextPart("the <image> tag")]


@given(TEXT, TEXT)
def test_question_and_full_response_stand_in_the_prompt_as_they_are(question: str, candidate: str) -> None:
    """Nothing is interpreted: no place name, no backslash."""
    calm = re.sub(r"<.*?>|<", "", candidate)
    task = judge_and_reflection_tasks(problem(question), calm, "x", View.FULL, 0)[0]
    assert question in task.messages[0].text
    assert calm.strip() in task.messages[0].text


def test_answer_view_shows_the_answer_only() -> None:
    text = rf"<think>secret</think> long reasoning \boxed{{1}} {write_box(r'x^{2}')}"
    assert show(text, View.ANSWER) == "x^{2}"
    assert show("no box", View.ANSWER) == "(no answer)"
    task = judge_and_reflection_tasks(problem("What?"), text, text, View.ANSWER, 0)[2]
    assert "reasoning" not in task.messages[0].text
    assert "secret" not in task.messages[0].text


def test_labels_and_places_follow_what_the_verifier_found() -> None:
    shared = {"origin": Origin.SOLVE, "view": View.ANSWER, "mixed": True, "round": 1}
    right, wrong = rollout(write_box("RIGHT"), True, "r1"), rollout(write_box("WRONG"), False, "r2")
    positions = set()
    for seed in range(40):
        pair = pairwise_task(problem("What?"), right, wrong, seed=seed, **shared)
        first = pair.messages[0].text.index("RIGHT") < pair.messages[0].text.index("WRONG")
        assert pair.label == pair.gold_position == ("A" if first else "B")
        assert pair.sources == (("r1", "r2") if first else ("r2", "r1"))
        assert pair.source_correct == ((True, False) if first else (False, True))
        positions.add(pair.label)
        for source, label in ((right, "Yes"), (wrong, "No")):
            point = pointwise_task(problem("What?"), source, seed=seed, **shared)
            assert point.label == label
            text = point.messages[0].text
            if point.label_map:
                for letter, meaning in point.label_map.items():
                    assert f"{write_box(letter)} means {'correct' if meaning == 'Yes' else 'not correct'}" in text
            else:
                assert write_box("Yes") in text
                assert write_box("No") in text
    assert positions == {"A", "B"}


def test_reflection_prompts_do_not_tell_right_from_wrong() -> None:
    for seed in range(20):
        prompts = {
            reflection_task(
                problem("What?"), rollout(write_box("5"), correct), origin=Origin.SOLVE, view=View.FULL, mixed=True,
                seed=seed, round=1,
            ).messages
            for correct in (True, False)
        }  # fmt: skip
        assert len(prompts) == 1


def test_a_source_without_a_finding_is_refused() -> None:
    unscored = Rollout("r9", "t0", 0, 3, (1,), (0.0,), "x", False)
    with pytest.raises(ValueError, match="r9"):
        reflection_task(problem("?"), unscored, origin=Origin.SOLVE, view=View.FULL, mixed=False, seed=0, round=1)


def test_every_template_asks_for_a_box_and_has_its_places() -> None:
    places = {
        Kind.SOLVE: {"question"},
        Kind.POINTWISE: {"question", "candidate"},
        Kind.PAIRWISE: {"question", "first", "second"},
        Kind.REFLECTION: {"question", "candidate"},
    }
    assert len({template.id for template in TEMPLATES}) == len(TEMPLATES)
    for template in TEMPLATES:
        assert re.search(r"\\boxed\{", template.text)
        assert set(re.findall(r"(?<!boxed)\{(\w+)\}", template.text)) == places[template.kind] | (
            {"a", "b"} if template.letters else set()
        )
    for kind in Kind:
        assert len(templates_of(kind)) >= 2
    with pytest.raises(KeyError):
        template_by_id("no-such")


def test_letters_are_drawn_fairly_and_mean_both_verdicts() -> None:
    maps = [draw_letters(keyed_random(0, "letters", i)) for i in range(400)]
    assert all(sorted(letters.values()) == ["No", "Yes"] for letters in maps)
    assert 150 < sum(letters["A"] == "Yes" for letters in maps) < 250
    assert letter_places({"A": "No", "B": "Yes"}) == {"a": "not correct", "b": "correct"}
    assert letter_places(None) == {}


def test_draws_depend_on_the_key_and_on_nothing_else() -> None:
    tasks = [judge_and_reflection_tasks(problem("What?"), "x", "y", View.FULL, seed) for seed in (1, 2, 1)]
    assert tasks[0] == tasks[2]
    assert len({solve_task(problem("What?"), seed=s, round=1).template_id for s in range(30)}) == 3


def test_a_place_that_was_not_given_is_an_error() -> None:
    with pytest.raises(KeyError):
        fill(template_by_id("pairwise-1"), problem("?"), {"first": "x"})


def test_thinking_is_never_shown() -> None:
    for view in View:
        for task in judge_and_reflection_tasks(problem("?"), "<think>secret</think>x", "secret</think>y", view, 0):
            assert "secret" not in task.messages[0].text
    assert strip_thinking("<think>secret") == ""
