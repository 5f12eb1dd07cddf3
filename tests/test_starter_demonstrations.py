"""The demonstrations that the starter model learns from: complete, true, balanced, and apart from held-out problems."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from spark_kernel.keyed_random import content_hash, keyed_random
from spark_kernel.problems.arithmetic import ArithmeticSource, chain_of
from spark_kernel.problems.held_out import CANONICAL_FORM, is_held_out, may_be_evaluated
from spark_kernel.problems.puzzles.source import PuzzlesSource
from spark_kernel.prompts import build
from spark_kernel.prompts.templates import TEMPLATES
from spark_kernel.prompts.verdicts import read_answer, read_verdict
from spark_kernel.records import Kind, Origin, Parse, View
from spark_kernel.verify import VerifyRequest, score_request

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "spark_kernel" / "models" / "starter"
sys.path.insert(0, str(ROOT / "scripts"))

import make_starter  # noqa: E402
from starter import chains, demonstrations, pieces, puzzles, training  # noqa: E402
from starter.tokenizer import END  # noqa: E402


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(FOLDER, local_files_only=True)


@pytest.fixture(scope="module")
def examples():
    data = demonstrations.Demonstrations(make_starter.SEED, make_starter.PUZZLES.weights)
    return [data.demonstration(index) for index in range(3000)]


@pytest.fixture(scope="module")
def tasks(examples):
    return [example for example in examples if example.task is not None]


@pytest.fixture(scope="module")
def about_chains(tasks):
    return [example for example in tasks if example.task.problem_id.startswith("arithmetic-")]


@pytest.fixture(scope="module")
def about_puzzles(examples):
    """Demonstrations with the puzzles they are about."""
    data = demonstrations.Demonstrations(make_starter.SEED, make_starter.PUZZLES.weights)
    return [
        (example, data.puzzle(index))
        for index, example in enumerate(examples)
        if example.task is not None and example.task.problem_id.startswith("puzzle-")
    ]


# The demonstrations


@pytest.mark.parametrize("subject", ["arithmetic-", "puzzle-"])
def test_demonstrations_cover_every_template_view_origin_and_letter_map(tasks, subject):
    own = [t.task for t in tasks if t.task.problem_id.startswith(subject)]
    assert {task.template_id for task in own} == {template.id for template in TEMPLATES if template.words is None}
    recycled = [task for task in own if task.kind is not Kind.SOLVE]
    assert {(t.kind, t.view, t.origin) for t in recycled} == {
        (kind, view, origin)
        for kind in (Kind.POINTWISE, Kind.PAIRWISE, Kind.REFLECTION)
        for view in View
        for origin in (Origin.SOLVE, Origin.REFLECTION)
    }
    assert {t.label_map["A"] for t in recycled if t.label_map} == {"Yes", "No"}


def test_every_demonstration_reads_as_its_label(tasks):
    for example in tasks:
        task = example.task
        if not task.kind.judges:
            assert read_answer(example.response)
            continue
        letters = task.kind is Kind.PAIRWISE or task.label_map
        reading = read_verdict(example.response, ("A", "B") if letters else ("Yes", "No"))
        assert reading.parse is Parse.OK
        meaning = task.label_map[reading.verdict] if task.label_map else reading.verdict
        assert meaning == task.label


def test_labels_are_the_truth_by_an_independent_calculation(about_chains):
    """The shown candidate's box against the question's own numbers, worked out anew from the text."""
    for example in about_chains:
        task = example.task
        answer = _evaluate(example.user)
        if not task.kind.judges:
            assert int(task.label) == answer == int(read_answer(example.response))
        elif task.kind is Kind.POINTWISE:
            assert (task.label == "Yes") == (_shown(example.user, "answer") == answer)
        else:
            assert _shown(example.user, f"answer_{task.label.lower()}") == answer
            assert _shown(example.user, "answer_a") != _shown(example.user, "answer_b")


def test_labels_of_puzzles_are_what_the_verifier_says_of_the_shown_answers(about_puzzles):
    assert len(about_puzzles) > 1000
    for example, problem in about_puzzles:
        task = example.task
        assert problem.question in example.user
        if not task.kind.judges:
            assert _satisfies(read_answer(example.response), problem)
        elif task.kind is Kind.POINTWISE:
            assert (task.label == "Yes") == _satisfies(_shown_text(example.user, "answer"), problem)
        else:
            for letter in "AB":
                shown = _shown_text(example.user, f"answer_{letter.lower()}")
                assert (task.label == letter) == _satisfies(shown, problem)


def test_every_line_about_a_puzzle_is_true_and_a_check_ends_with_what_fails(about_puzzles):
    """By Python's own arithmetic; what a check's last line says is what the judgement or reflection then does."""
    for example, _ in about_puzzles:
        kind = example.task.kind
        *lines, last = [line for line in example.response.split("\n") if line not in ("correct", "not correct")]
        held = [_line_holds(line) for line in lines]
        assert lines
        if kind is Kind.SOLVE:
            assert all(held)
        elif kind is Kind.REFLECTION:
            kept = last == rf"\boxed{{{_shown_text(example.user, 'answer')}}}"
            assert held.count(False) == (not kept)
            assert held[-1], "a check that holds, or the working of another answer"
        else:
            assert all(held[:-1])
            assert held[-1] == (example.task.label == ("Yes" if kind is Kind.POINTWISE else "A"))


def test_labels_are_balanced(tasks):
    for kind, label in ((Kind.POINTWISE, "Yes"), (Kind.PAIRWISE, "A")):
        labels = [t.task.label for t in tasks if t.task.kind is kind]
        share = labels.count(label) / len(labels)
        assert abs(share - 0.5) < 2.6 * (0.25 / len(labels)) ** 0.5  # 99 % of fair coins


@pytest.mark.slow
def test_no_demonstration_is_made_of_a_held_out_problem():
    data = demonstrations.Demonstrations(make_starter.SEED, make_starter.PUZZLES.weights)
    for draw, source in (
        (data.problem, ArithmeticSource(seed=make_starter.SEED)),
        (data.puzzle, PuzzlesSource(seed=make_starter.SEED)),
    ):
        shown = [draw(index) for index in range(1500)]
        assert not any(is_held_out(problem, 0.1, CANONICAL_FORM) for problem in shown)
        assert not any(may_be_evaluated(problem, 0.1, CANONICAL_FORM) for problem in shown)
        assert any(is_held_out(source.problem(i), 0.1, CANONICAL_FORM) for i in range(200)), "there is something to do"


def test_a_task_prompt_is_the_one_the_kernel_builds():
    data = demonstrations.Demonstrations(3, {"solve": 1.0})
    problem = data.problem(11)
    assert data.demonstration(11).user == build.solve_task(problem, seed=3, round=11).messages[0].text


@pytest.mark.parametrize(("recipe", "digest"), [("starter", "2b282ce3e0fd"), ("puzzles", "28b5570a7f49")])
def test_the_demonstrations_are_still_those_that_were_measured(recipe, digest):
    """A change of prompts or problems that fails here makes the script's models others than those of the page."""
    chosen = make_starter.RECIPES[recipe]
    data = demonstrations.Demonstrations(make_starter.SEED, chosen.weights, chosen.form)
    shown = [data.demonstration(index) for index in range(1000)]
    assert content_hash(*(d.user + d.response for d in shown)) == digest


def test_the_further_demonstrations_judge_by_two_habits_and_answer_by_one():
    """At a glance nothing is put in, and what is said stays true; solving and chains are as they were."""
    recipe = make_starter.PUZZLES
    further = demonstrations.Demonstrations(make_starter.SEED + 1, recipe.weights, glance=make_starter.GLANCE)
    plain = demonstrations.Demonstrations(make_starter.SEED + 1, recipe.weights)
    glances, recycled = 0, 0
    for index in range(1500):
        one, other = further.demonstration(index), plain.demonstration(index)
        assert one.user == other.user
        if one.response == other.response:
            continue
        glances += 1
        assert one.task.problem_id.startswith("puzzle-")
        assert one.task.kind is not Kind.SOLVE
        assert other.response.endswith(one.response)  # the lines that put the answer in are gone
    for index in range(1500):
        task = plain.demonstration(index).task
        recycled += task is not None and task.problem_id.startswith("puzzle-") and task.kind is not Kind.SOLVE
    assert abs(glances / recycled - make_starter.GLANCE) < 0.06


def test_wrong_candidates_are_wrong_and_look_like_work():
    for index in range(500):
        problem = ArithmeticSource(seed=5).problem(index)
        chain = chain_of(problem)
        other = chains.mistaken(chain, keyed_random(5, "test", index))
        assert other.answer != chain.answer
        assert len(other.steps) == len(chain.steps)
        assert all(0 <= step.after <= pieces.LARGEST for step in other.steps)


def test_wrong_answers_to_puzzles_are_wrong_and_of_the_kind_asked_for():
    source = PuzzlesSource(seed=5, **demonstrations.PUZZLE_OPTIONS)
    for index in range(400):
        problem = source.problem(index)
        other = puzzles.mistaken_answer(problem, problem.meta["example"], keyed_random(5, "test", index))
        score = score_request(VerifyRequest(rf"\boxed{{{other}}}", problem, build.solve_task(problem, seed=0, round=1)))
        assert (score.correct, score.parse) == (False, Parse.OK), (problem.question, other)


def test_only_results_of_drills_and_whole_responses_of_tasks_are_learnt(tokenizer, examples):
    rows = training.encode(tokenizer.backend_tokenizer, examples[:300])
    for example, row in zip(examples[:300], rows, strict=True):
        learnt = tokenizer.decode([i for i, counts in zip(row.ids, row.weights, strict=True) if counts])
        expected = "".join(text for text, weight in example.pieces if weight)
        assert learnt == expected + (END if example.task else "")


def test_a_judgements_comparison_tells_its_verdict(about_chains):
    """ "off by 0" goes with Yes, and in a pair with the right one only."""
    for example in about_chains:
        gaps = [int(gap) for gap in re.findall(r"off by (\d+)", example.response)]
        if example.task.kind is Kind.POINTWISE:
            assert (gaps == [0]) == (example.task.label == "Yes")
        elif example.task.kind is Kind.PAIRWISE:
            assert (gaps[0] == 0, gaps[1] == 0) == (example.task.label == "A", example.task.label == "B")


def _satisfies(answer: str, problem) -> bool:
    task = build.solve_task(problem, seed=0, round=1)
    return score_request(VerifyRequest(rf"\boxed{{{answer}}}", problem, task)).correct is True


def _line_holds(line: str) -> bool:
    """Whether a check's line says that something holds; that what it says is true is asserted."""
    if match := re.fullmatch(r"(-?\d+) vs (-?\d+) off by (\d+)", line):
        mine, theirs, gap = map(int, match.groups())
        assert abs(mine - theirs) == gap, line
        return gap == 0
    if match := re.fullmatch(r"(-?\d+) ([<>]) (-?\d+) (yes|no)", line):
        assert eval("".join(match.groups()[:3])) == (match[4] == "yes"), line
        return match[4] == "yes"
    if match := re.fullmatch(r"(\d+) (yes|no)", line):
        return match[2] == "yes"
    left, right = line.replace("mod", "%").split(" = ")
    assert eval(left) == int(right), line
    return True


def _shown_text(user: str, tag: str) -> str:
    """The answer between tags: as it is in answer view, in its box in full view."""
    inside = re.search(rf"<{tag}>\n(.*?)\n</{tag}>", user, re.DOTALL).group(1)
    return read_answer(inside) or inside


def _evaluate(user: str) -> int:
    """The value of the chain in a prompt, read from its words."""
    question = re.search(r"(?:Start with|Take|Begin at) (\d+), (.*?)\.", user)
    value = int(question.group(1))
    for verb, operand in re.findall(r"(add|take away|subtract|multiply by) (\d+)", question.group(2)):
        number = int(operand)
        value = value + number if verb == "add" else value * number if verb == "multiply by" else value - number
    return value


def _shown(user: str, tag: str) -> int:
    """The number that a candidate between tags ends with: bare in answer view, boxed in full view."""
    inside = re.search(rf"<{tag}>\n(.*?)\n</{tag}>", user, re.DOTALL).group(1)
    return int(re.findall(r"\d+", inside)[-1])
