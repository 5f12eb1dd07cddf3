"""The source of puzzles: exact, readable back, held out in all its words at once, and judged by what it asks."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_kernel.errors import InputError
from spark_kernel.problems.held_out import CANONICAL_FORM, canonical_text, is_held_out, may_be_evaluated
from spark_kernel.problems.puzzles.catalogue import FAMILIES, FORMS, read_puzzle
from spark_kernel.problems.puzzles.source import PuzzlesSource
from spark_kernel.problems.registry import make_source
from spark_kernel.problems.stream import ProblemStream
from spark_kernel.prompts import build
from spark_kernel.records import Group, Kind, Origin, Problem, Rollout, View
from spark_kernel.recycle.recycle import recycle
from spark_kernel.verify import VerifyRequest, score_request
from spark_kernel.verify.property import PropertyVerifier
from tests.helpers.recycling import everything_fits, quotas_of, settings_of

DIGITS = re.compile(r"\d+")
# What a question asks, by the words it holds and the numbers in it, in their order: no part of the package has a say.
ONE: list[tuple[str, Callable[..., bool]]] = [
    (r"Which number plus", lambda x, a, c: x + a == c),
    (r"Add \d+ to a number and you", lambda x, a, c: x + a == c),
    (r"Which number minus", lambda x, a, c: x - a == c),
    (r"Take \d+ from a number", lambda x, a, c: x - a == c),
    (r"Which number times", lambda x, a, c: x * a == c),
    (r"Multiply a number by \d+ and you", lambda x, a, c: x * a == c),
    (r"Multiply a number by \d+, then add", lambda x, a, b, c: x * a + b == c),
    (r"Multiply a number by \d+, then subtract", lambda x, a, b, c: x * a - b == c),
    (r"For which number x is \d+ \* x \+ \d+ = \d+\?", lambda x, a, b, c: x * a + b == c),
    (r"For which number x is \d+ \* x - \d+ = \d+\?", lambda x, a, b, c: x * a - b == c),
    (r"For which number x is \d+ \* x \+ \d+ = \d+ \* x", lambda x, a, b, c, d: x * a + b == c * x + d),
    (r"\d+ times a number plus", lambda x, a, b, c, d: x * a + b == c * x + d),
    (r"Add \d+ to a number and multiply", lambda x, b, a, c, d: (x + b) * a - c * x == d),
    (r"For which number x is \d+ \* \(x", lambda x, a, b, c, d: (x + b) * a - c * x == d),
    (r".* that \d+ divides\.", lambda x, a, b, m: a < x < b and x % m == 0),
    (r"Which multiple of \d+ is larger", lambda x, m, a, b: a < x < b and x % m == 0),
    (r".* smaller than \d+ that leaves \d+ when divided by \d+\.", lambda x, a, b, r, m: a < x < b and x % m == r),
    (r".* the remainder \d+ after division by \d+\?", lambda x, a, b, r, m: a < x < b and x % m == r),
    (r".* that \d+ divides and whose", lambda x, a, b, m, s: a < x < b and x % m == 0 and digit_sum(x) == s),
    (r"Which multiple of \d+ with a digit", lambda x, m, s, a, b: a < x < b and x % m == 0 and digit_sum(x) == s),
    (r".* leaves \d+ when divided by \d+ and", lambda x, a, b, r, m, t, n: a < x < b and x % m == r and x % n == t),
    (r".* the remainder \d+ .* and \d+ after", lambda x, a, b, r, m, t, n: a < x < b and x % m == r and x % n == t),
]
SEVERAL: list[tuple[str, int, Callable[..., bool]]] = [
    (r"x plus y is \d+, and x minus", 2, lambda x, y, s, d: x + y == s and x - y == d),
    (r"Two numbers x and y .* larger than", 2, lambda x, y, s, d: x + y == s and x - y == d),
    (r"x plus y is \d+, and x is", 2, lambda x, y, s, k: x + y == s and x == k * y),
    (r"Two numbers x and y .* multiplied by", 2, lambda x, y, s, k: x + y == s and x == k * y),
    (r"\d+ times x plus y", 2, lambda x, y, a, s, d: a * x + y == s and x - y == d),
    (r"For which numbers is \d+ \* x \+ y", 2, lambda x, y, a, s, d: a * x + y == s and x - y == d),
    (r"\d+ times x plus \d+ times", 2, lambda x, y, a, b, s, c, d, t: a * x + b * y == s and c * x + d * y == t),
    (
        r"For which numbers is \d+ \* x \+ \d+",
        2,
        lambda x, y, a, b, s, c, d, t: a * x + b * y == s and c * x + d * y == t,
    ),
    (r"Find two whole numbers larger than 1", 2, lambda x, y, _, p: x * y == p and x > 1 and y > 1),
    (r"Write \d+ as a product", 2, lambda x, y, p, _: x * y == p and x > 1 and y > 1),
    (r"Find two numbers whose product", 2, lambda x, y, p, s: x * y == p and x + y == s),
    (r"Two numbers add up", 2, lambda x, y, s, p: x * y == p and x + y == s),
    (r"Find two whole numbers x, y", 2, lambda x, y, p, d: x * y == p and x - y == d),
    (r"x is \d+ more than y", 2, lambda x, y, d, p: x * y == p and x - y == d),
    (r"Find three whole", 3, lambda x, y, z, _, p, s: x * y * z == p and x + y + z == s and min(x, y, z) > 1),
    (r"Three whole", 3, lambda x, y, z, _, s, p: x * y * z == p and x + y + z == s and min(x, y, z) > 1),
]


def digit_sum(x: int) -> int:
    return x // 100 + x // 10 % 10 + x % 10


def puzzles(count: int, seed: int = 1, **options: object) -> list[Problem]:
    source = PuzzlesSource(seed=seed, **options)
    return [source.problem(index) for index in range(count)]


def correct(problem: Problem, answer: str) -> bool:
    task = build.solve_task(problem, seed=0, round=1)
    return score_request(VerifyRequest(rf"\boxed{{{answer}}}", problem, task)).correct is True


def rule_of(question: str, table: list) -> tuple:
    (found,) = [row for row in table if re.match(row[0], question)]
    return found


# Right and wrong, by brute force


@pytest.mark.parametrize("family", ["equation", "number"])
def test_one_unknown_is_right_exactly_where_the_words_say_so(family: str) -> None:
    for problem in puzzles(60, families=(family,), max_level=4):
        _, rule = rule_of(problem.question, ONE)
        numbers = list(map(int, DIGITS.findall(problem.question)))
        wanted = [x for x in range(70) if rule(x, *numbers)]
        assert [x for x in range(70) if correct(problem, str(x))] == wanted, problem.question
        assert int(problem.meta["example"]) in wanted


@pytest.mark.parametrize("family", ["system", "factors"])
def test_several_unknowns_are_right_exactly_where_the_words_say_so(family: str) -> None:
    for problem in puzzles(60, families=(family,), max_level=4):
        _, count, rule = rule_of(problem.question, SEVERAL)
        numbers = list(map(int, DIGITS.findall(problem.question)))
        reach = range(0, 61) if count == 2 else range(1, 31)
        wanted = {values for values in itertools.product(reach, repeat=count) if rule(*values, *numbers)}
        tried = wanted | {tuple(v + (place == 0) for place, v in enumerate(values)) for values in wanted}
        tried |= {values[::-1] for values in wanted} | {tuple(numbers[:count])}
        for values in tried:
            assert correct(problem, ", ".join(map(str, values))) == rule(*values, *numbers), (problem.question, values)
        assert tuple(map(int, problem.meta["example"].split(", "))) in wanted


def test_what_countdown_takes_is_what_trying_everything_finds() -> None:
    for problem in puzzles(25, families=("countdown",), min_level=1, max_level=2):
        numbers = list(map(int, DIGITS.findall(problem.question)))
        target = numbers[0] if problem.question.startswith("Make") else numbers[-1]
        given = numbers[1:] if problem.question.startswith("Make") else numbers[:-1]
        signs = "+-*" if "*" in problem.question else "+-"
        right = 0
        for a, b, c in itertools.permutations(given):
            for first, second in itertools.product(signs, repeat=2):
                for text in (
                    f"{a} {first} {b} {second} {c}",
                    f"({a} {first} {b}) {second} {c}",
                    f"{a} {first} ({b} {second} {c})",
                ):
                    value = eval(text)
                    assert correct(problem, text) == (value == target), (problem.question, text)
                    right += value == target
        assert right > 0
        assert correct(problem, problem.meta["example"])


def test_countdown_with_division_has_exact_values() -> None:
    for problem in puzzles(40, families=("countdown",), min_level=4, max_level=4):
        text = re.sub(r"(\d+)", r"Fraction(\1)", problem.meta["example"])
        assert eval(text, {"Fraction": Fraction}) == int(problem.gold.split(": ")[1])
        assert correct(problem, problem.meta["example"])


# The source


def test_every_form_is_met_and_its_golds_are_taken() -> None:
    found = puzzles(1500, max_level=4)
    assert {(p.meta["family"], p.meta["level"]) for p in found} == {(f.family, f.level) for f in FORMS}
    assert len(FAMILIES) == 5
    for problem in found[:400]:
        PropertyVerifier().check_gold(problem)


def test_numbers_stay_within_the_largest() -> None:
    for largest in (40, 60, 250):
        for problem in puzzles(300, max_level=3, max_value=largest):
            limit = 2 * largest if problem.meta["family"] == "system" else largest
            assert max(map(int, DIGITS.findall(problem.question))) <= limit


def test_a_seed_gives_the_same_puzzles_for_ever() -> None:
    first = [(p.question, p.gold, p.meta["example"]) for p in puzzles(3, seed=7)]
    assert first == FROZEN
    assert [p.id for p in puzzles(50, seed=7)] == [p.id for p in puzzles(50, seed=7)]
    assert [p.id for p in puzzles(50, seed=7)] != [p.id for p in puzzles(50, seed=8)]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"families": ["equations"]}, "one or more of equation, system, factors, countdown, number"),
        ({"families": []}, "one or more of"),
        ({"min_level": 3}, "min_level = 3 and max_level = 2"),
        ({"max_level": 5}, "<= 4"),
        ({"max_value": 30}, "40 to 999"),
        ({"levels": 2}, "no option of the source"),
    ],
)
def test_unfit_options_are_refused(options: dict, says: str) -> None:
    with pytest.raises(InputError, match=re.escape(says)):
        make_source("puzzles", options, 0)


def test_the_registry_makes_it_with_its_options() -> None:
    made = make_source("puzzles", {"families": ["countdown"], "min_level": 3, "max_level": "3"}, 5)
    expected = PuzzlesSource(seed=5, families=("countdown",), min_level=3, max_level=3)
    assert [made.problem(i) for i in range(5)] == [expected.problem(i) for i in range(5)]


# The canonical form


def test_all_words_for_a_puzzle_are_one_problem() -> None:
    for form in FORMS:
        numbers = {name: 10 + place for place, name in enumerate(re.findall(r"\{(\w)\}", form.gold))}
        texts = {canonical_text(asked(frame.format(**numbers)), CANONICAL_FORM) for frame in form.frames}
        texts.add(canonical_text(asked(form.frames[0].format(**numbers).upper() + " "), CANONICAL_FORM))
        assert texts == {f"puzzle {form.gold.format(**numbers)}"}
        assert len({canonical_text(asked(frame.format(**numbers)), 1) for frame in form.frames}) == len(form.frames)


def test_the_order_of_countdowns_numbers_makes_no_difference_and_everything_else_does() -> None:
    one = "Make 22 out of 3, 5 and 7 with +, - and *. Use each number once."
    assert read_puzzle(one) == read_puzzle("Use 7, 3 and 5 once each, with +, - and * between them, to get 22.")
    for other in (one.replace("22", "23"), one.replace("7", "8"), one.replace("+, - and *", "+ and -"), one[:-1] + "!"):
        assert canonical_text(asked(one), CANONICAL_FORM) != canonical_text(asked(other), CANONICAL_FORM)
    assert read_puzzle("x plus y is 12, and x minus y is 4. Give both as x, y.") == "x, y: x + y = 12; x - y = 4"
    assert read_puzzle("What is x plus y?") is None


def test_questions_of_the_source_read_back_as_their_golds() -> None:
    for problem in puzzles(400, max_level=4):
        assert read_puzzle(problem.question) == problem.gold


def test_what_is_evaluated_is_trained_on_in_no_words() -> None:
    found = puzzles(2500)
    trained = {p.gold for p in found if not is_held_out(p, 0.3, CANONICAL_FORM)}
    evaluated = {p.gold for p in found if may_be_evaluated(p, 0.3, CANONICAL_FORM)}
    assert trained
    assert not trained & evaluated
    words = {p.question for p in found if p.gold in evaluated}
    assert len(words) > len(evaluated) > 200
    share = sum(is_held_out(p, 0.3, CANONICAL_FORM) for p in found) / len(found)
    assert 0.2 < share < 0.4


def test_the_stream_hands_out_puzzles_and_keeps_others_back() -> None:
    stream = ProblemStream(PuzzlesSource(seed=5), seed=0, held_out_fraction=0.1, canonical_form=CANONICAL_FORM)
    trained, kept = stream.take(0, 200, round=1).problems, stream.held_out(100, seed=0)
    assert len({p.id for p in kept}) == 100
    assert not {p.gold for p in trained} & {p.gold for p in kept}


@given(st.text())
def test_any_other_question_is_none_of_ours(question: str) -> None:
    assert read_puzzle(question) is None


# Recycling: several answers are right


def asked(question: str) -> Problem:
    return Problem("p", question, "x: x = 1", "property")


def group_of(problem: Problem, answers: list[str]) -> Group:
    task = build.solve_task(problem, seed=0, round=1)
    rollouts = []
    for index, answer in enumerate(answers):
        text = rf"\boxed{{{answer}}}"
        score = score_request(VerifyRequest(text, problem, task))
        rollouts.append(Rollout(f"r{index}", task.id, index, 0, (1,), (-0.5,), text, False, score=score))
    return Group(task, tuple(rollouts))


FACTORS = Problem(
    "f",
    "Find two whole numbers larger than 1 whose product is 24.",
    "x, y: x * y = 24; x > 1; y > 1",
    "property",
    meta={"example": "12, 2"},
)


def recycled_from(answers: list[str], **settings: object) -> list:
    group = group_of(FACTORS, answers)
    chosen = settings_of(**settings)
    found = recycle([group], {FACTORS.id: FACTORS}, chosen, quotas_of(chosen), seed=0, round=1, fits=everything_fits)
    return list(found.tasks)


def test_different_right_answers_are_both_judged_right_and_never_a_pair() -> None:
    labels = {
        task.label
        for answers in (["4, 6"], ["6, 4"], ["3, 8"], ["8, 3"])
        for task in recycled_from(answers, balance_pointwise=False)
        if task.kind is Kind.POINTWISE
    }
    assert labels == {"Yes"}
    tasks = recycled_from(["4, 6", "3, 8", "2, 12"], mixed_pairwise_share=1.0, balance_pointwise=False)
    assert not [task for task in tasks if task.kind is Kind.PAIRWISE]


def test_a_pair_is_a_right_answer_against_a_wrong_one_whichever_right_one_it_is() -> None:
    tasks = recycled_from(["3, 8", "3, 9", "4, 6"], mixed_pairwise_share=1.0)
    (pair,) = [task for task in tasks if task.kind is Kind.PAIRWISE]
    shown = re.search(rf"<answer_{pair.label.lower()}>\n(.*?)\n<", pair.messages[-1].text, re.DOTALL).group(1)
    assert shown.removeprefix(r"\boxed{").removesuffix("}") in ("3, 8", "4, 6")


def test_a_reflection_is_right_with_any_answer_that_satisfies_and_is_shown_none() -> None:
    group = group_of(FACTORS, ["5, 5"])
    task = build.reflection_task(
        FACTORS, group.rollouts[0], origin=Origin.SOLVE, view=View.FULL, mixed=False, seed=0, round=1
    )
    assert task.label == FACTORS.gold
    prompt = task.messages[-1].text
    assert FACTORS.gold not in prompt
    assert "12, 2" not in prompt
    for answer, holds in (("4, 6", True), ("3, 8", True), ("12, 2", True), ("5, 5", False), ("1, 24", False)):
        assert score_request(VerifyRequest(rf"\boxed{{{answer}}}", FACTORS, task)).correct is holds


def test_answers_to_puzzles_are_not_taken_for_verdicts() -> None:
    assert not any(build.answers_like_verdicts(problem) for problem in puzzles(200, max_level=4))


FROZEN = [
    (
        "Which number larger than 18 and smaller than 31 has the remainder 1 after division by 4?",
        "x: x > 18; x < 31; x mod 4 = 1",
        "25",
    ),
    ("Use 2, 4 and 11 once each, with +, - and * between them, to get 9.", "2, 4, 11 with + - *: 9", "2 + 11 - 4"),
    ("x plus y is 39, and x minus y is 27. Give both as x, y.", "x, y: x + y = 39; x - y = 27", "33, 6"),
]
