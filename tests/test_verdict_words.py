"""Judging answers that look like verdicts: other words are asked for, read, and meant."""

from __future__ import annotations

import pytest

from spark_kernel.evaluate.cases import Candidate, CaseMaker
from spark_kernel.evaluate.judge_metrics import judge_metrics
from spark_kernel.prompts.build import answers_like_verdicts, pairwise_task, pointwise_prompt, pointwise_task
from spark_kernel.prompts.examples import META
from spark_kernel.prompts.templates import TEMPLATES, templates_of
from spark_kernel.prompts.verdicts import read_boxes, read_verdict
from spark_kernel.records import Group, Kind, Origin, Parse, Problem, Rollout, Score, Task, View
from spark_kernel.test_time.asking import read_pointwise
from spark_kernel.test_time.verdict_probability import spellings
from spark_kernel.verify.scoring import score_request
from spark_kernel.verify.verifier import VerifyRequest

CHOICE = Problem("c", "Which is prime?\nA) 4\nB) 7\nC) 9", "B", "choice", meta={"choices": ["4", "7", "9"]})
YES_NO = Problem("y", "Is 7 prime?", "Yes", "exact")
PLAIN = Problem("p", "What is 3 + 4?", "7", "exact")


def candidate(answer: str, correct: bool) -> Rollout:
    text = rf"I say \boxed{{{answer}}}."
    return Rollout(
        f"r-{answer}", "t", 0, 0, (), (), text, False, score=Score(float(correct), correct, Parse.OK, answer)
    )


@pytest.mark.parametrize(
    ("gold", "verifier", "meta", "alike"),
    [
        ("B", "choice", {}, True),
        ("7", "math", {"choices": ["5", "7"]}, True),
        ("Yes", "exact", {}, True),
        (r"\text{No}", "math", {}, True),
        ("(A)", "exact", {}, True),
        ("$b.$", "math", {}, True),
        ("7", "math", {}, False),
        ("C", "exact", {}, False),
        ("AB", "math", {}, False),
        ("nobody", "exact", {}, False),
        ("", "exact", {}, False),
    ],
)
def test_which_problems_have_such_answers(gold: str, verifier: str, meta: dict[str, object], alike: bool) -> None:
    assert answers_like_verdicts(Problem("p", "q", gold, verifier, meta=meta)) is alike


def tasks(problem: Problem, seed: int) -> list[Task]:
    right, wrong = candidate("B" if problem is CHOICE else "Yes", True), candidate("C", False)
    settings = {"origin": Origin.SOLVE, "view": View.ANSWER, "mixed": True, "seed": seed, "round": 1}
    return [
        pointwise_task(problem, right, **settings),  # type: ignore[arg-type]
        pointwise_task(problem, wrong, **settings),  # type: ignore[arg-type]
        pairwise_task(problem, right, wrong, **settings),  # type: ignore[arg-type]
    ]


def verdict_of(task: Task, output: str) -> Score:
    return score_request(VerifyRequest(output, CHOICE, task))


@pytest.mark.parametrize("problem", [CHOICE, YES_NO])
@pytest.mark.parametrize("seed", range(8))
def test_an_option_in_a_box_is_no_verdict_and_the_verdict_is_read(problem: Problem, seed: int) -> None:
    for task in tasks(problem, seed):
        assert task.label_map is not None
        asked = read_boxes(task.messages[-1].text)
        assert set(asked) == set(task.label_map)
        assert not {"a", "b", "yes", "no"} & {word.casefold() for word in asked}
        for box in ("A", "B", "C", "Yes", "No"):
            assert verdict_of(task, rf"It must be \boxed{{{box}}}.").parse is Parse.NONE
        word = next(w for w, meaning in task.label_map.items() if meaning == task.label)
        assert verdict_of(task, rf"Option \boxed{{B}} is right, so \boxed{{{word}}}").correct is True
        other = next(w for w, meaning in task.label_map.items() if meaning != task.label)
        found = verdict_of(task, rf"\boxed{{{other}}}")
        assert (found.correct, found.parse) == (False, Parse.OK)


def test_other_problems_are_judged_in_the_usual_words() -> None:
    words = {task.template_id for seed in range(40) for task in tasks(PLAIN, seed)}
    assert words == {"pointwise-1", "pointwise-2", "pointwise-3", "pairwise-1", "pairwise-2"}
    apart = {task.template_id for seed in range(40) for task in tasks(CHOICE, seed)}
    assert apart == {"pointwise-4", "pointwise-5", "pairwise-3", "pairwise-4"}
    assert {t.id for kind in Kind for flag in (0, 1) for t in templates_of(kind, apart=bool(flag))} == {
        t.id for t in TEMPLATES
    }


def test_evaluation_and_the_loop_ask_in_the_same_words() -> None:
    maker = CaseMaker({"c": CHOICE}, 0, 0, "own")
    one = Candidate("c", 0, "r0", 0, r"\boxed{B}", "B", True, True)
    two = Candidate("c", 1, "r1", 0, r"\boxed{C}", "C", False, True)
    for case, label in zip(maker.pair(one, two, View.ANSWER), "AB", strict=True):
        assert (case.task.label, case.task.label_map) == (label, {"first": "A", "second": "B"})
    assert maker.pointwise(one, View.FULL).task.label_map == {"correct": "Yes", "incorrect": "No"}
    import random

    written = pointwise_prompt(CHOICE, r"\boxed{B}", View.ANSWER, random.Random(0))
    assert read_pointwise(r"\boxed{B}. \boxed{incorrect}", written.label_map).verdict == "No"
    assert spellings(written.label_map) == ("correct", "incorrect")
    assert read_verdict(r"\boxed{Incorrect.}", written.label_map or ()).verdict == "incorrect"


def test_worked_examples_are_in_the_prompts_own_words() -> None:
    problem = Problem("c", CHOICE.question, "B", "choice", meta=dict(CHOICE.meta) | {META: True})
    for seed in range(6):
        for task in tasks(problem, seed):
            shown = [box for m in task.messages if m.role == "assistant" for box in read_boxes(m.text)]
            assert shown
            assert set(shown) <= set(task.label_map or {})
            assert not any("answer A" in m.text or "answer B" in m.text for m in task.messages)
    right = {"Yes": "correct", "No": "incorrect", "A": "first", "B": "second"}
    from spark_kernel.prompts.examples import EXAMPLES

    for task in tasks(problem, 1):
        shown = [box for m in task.messages if m.role == "assistant" for box in read_boxes(m.text)]
        assert shown == [right[example.box] for example in EXAMPLES[task.kind]]


def test_words_are_no_letters_in_the_share_of_a() -> None:
    groups = []
    for seed in range(4):
        for task in tasks(CHOICE, seed):
            word = next(iter(task.label_map or {}))
            score = verdict_of(task, rf"\boxed{{{word}}}")
            rollout = Rollout(f"{task.id}#0", task.id, 0, 0, (), (), "", False, score=score)
            groups.append(Group(task, (rollout,)))
    assert judge_metrics(groups, Kind.PAIRWISE).a_rate is None
    assert judge_metrics(groups, Kind.POINTWISE).a_rate is None
    assert judge_metrics(groups, Kind.PAIRWISE).coverage == 1
