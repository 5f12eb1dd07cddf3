"""The verifier of properties: every answer that satisfies the gold is right, no other is, and nothing is evaluated."""

from __future__ import annotations

import ast
from collections.abc import Callable
from fractions import Fraction
from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from spark_kernel.errors import ProblemError
from spark_kernel.records import Parse, Problem, Score
from spark_kernel.verify import VerifierPool, get_verifier
from spark_kernel.verify.conditions import read_property
from spark_kernel.verify.expressions import (
    Binary,
    Expression,
    Unary,
    UndefinedError,
    Unknown,
    UnreadableError,
    Whole,
    read_expression,
    value_of,
    write_expression,
)
from spark_kernel.verify.property import PropertyVerifier
from tests.helpers.verify import request

VERIFIER = PropertyVerifier()
EQUATION = "x: 3 * x + 4 = 25"
PAIR = "x, y: x + y = 12; x - y = 4"
PRODUCT = "x, y: x * y = 24; x > 1; y > 1"
NUMBER = "x: x > 20; x <= 40; x mod 6 = 0; digits(x) = 3"
MADE = "3, 5, 7 with + - *: 22"


def score(answer: str, gold: str) -> Score:
    return VERIFIER.score(request(rf"So \boxed{{{answer}}}", gold, "property"))


def refused(gold: str, **meta: object) -> str:
    with pytest.raises(ProblemError) as raised:
        VERIFIER.check_gold(Problem("p1", "What?", gold, "property", meta=meta))
    return str(raised.value)


# What is right


@pytest.mark.parametrize(
    "answer", ["7", "x = 7", "$7$", "7.0", "+7", r"\text{7}", r"\frac{14}{2}", "x=7", "The answer is 7"]
)
def test_an_unknown_in_any_dress(answer: str) -> None:
    assert score(answer, EQUATION).correct


@pytest.mark.parametrize(
    "answer",
    [
        "8, 4",
        "8,4",
        "(8, 4)",
        r"\{8, 4\}",
        "[8, 4]",
        "8 and 4",
        r"8 \text{ and } 4",
        "8; 4",
        "x = 8, y = 4",
        "y = 4, x = 8",
        r"\left(8, 4\right)",
    ],
)
def test_two_unknowns_in_order_or_by_name(answer: str) -> None:
    found = score(answer, PAIR)
    assert (found.correct, found.answer) == (True, "8, 4")


@pytest.mark.parametrize(
    "answer",
    [
        "3 * 5 + 7",
        "3*5+7",
        "7 + 5 * 3",
        r"3 \times 5 + 7",
        "3 × 5 + 7",
        r"3 \cdot 5 + 7 = 22",
        "(3 * 5) + 7",
        "[3 * 5] + 7",
        "$7+3*5$",
    ],
)
def test_an_expression_in_any_dress(answer: str) -> None:
    assert score(answer, MADE).correct


def test_all_pairs_that_satisfy_are_right_and_no_others() -> None:
    right = {(x, y) for x in range(-30, 31) for y in range(-30, 31) if score(f"{x}, {y}", PRODUCT).correct}
    assert right == {(2, 12), (3, 8), (4, 6), (6, 4), (8, 3), (12, 2)}


def test_several_conditions_are_all_needed() -> None:
    assert [x for x in range(-50, 100) if score(str(x), NUMBER).correct] == [30]
    assert [x for x in range(-50, 60) if score(str(x), "x: x mod 25 = 3; x != 28").correct] == [-47, -22, 3, 53]


# What is wrong, and what is no answer


@pytest.mark.parametrize(
    ("answer", "gold", "says"),
    [
        ("6", EQUATION, "3 * x + 4 = 25 does not hold for x = 6"),
        ("7, 5", PAIR, "x - y = 4 does not hold for x = 7, y = 5"),
        ("4, 8", PAIR, "x - y = 4 does not hold"),
        ("x = 4, y = 8", PAIR, "does not hold for x = 4, y = 8"),
        ("1, 24", PRODUCT, "x > 1 does not hold"),
        ("3 + 5 + 7", MADE, "is 15 and not 22"),
        ("11 * 2", MADE, "uses 2, 11 and not 3, 5, 7"),
        ("22", MADE, "uses 22 and not 3, 5, 7"),
        ("3 * 5 + 7 + 7 - 7", MADE, "uses 3, 5, 7, 7, 7"),
        ("3 * 5 + 7 / 1", MADE, "uses 1, 3, 5, 7"),
        ("(7 / 5) * 3", MADE, 'uses "/"'),
        ("-3 + 5 * 7", MADE, "holds more than numbers"),
        ("digits(3) * 5 + 7", MADE, "holds more than numbers"),
        ("3 * five + 7", MADE, "holds more than numbers"),
        ("3 * 5 + 7 = 23", MADE, "is said to be 23"),
        ("8 / (4 - 3 - 1)", "1, 3, 4, 8 with - /: 5", "divides by 0"),
    ],
)
def test_a_wrong_answer_says_what_is_wrong_with_it(answer: str, gold: str, says: str) -> None:
    found = score(answer, gold)
    assert (found.reward, found.correct, found.parse) == (0.0, False, Parse.OK)
    assert says in found.reason


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("7.5", EQUATION),
        ("seven", EQUATION),
        ("7, 8", EQUATION),
        ("x", EQUATION),
        ("7\\%", EQUATION),
        ("8", PAIR),
        ("8, 4, 4", PAIR),
        ("8, four", PAIR),
        ("8, 4.5", PAIR),
        ("a = 8, b = 4", PAIR),
        ("x = 8, x = 4", PAIR),
        ("x = 8, 4", PAIR),
        ("3 *", MADE),
        ("3 5 7", MADE),
        ("((3 * 5) + 7", MADE),
        ("22 = 3 * 5 + 7", MADE),
        ("__import__('os').system('true')", MADE),
        ("3**5**7", MADE),
        ("9" * 2000, EQUATION),
        ("(" * 400, MADE),
        ("3" + " + 5" * 400, MADE),
        ("1e999999", EQUATION),
        (r"\frac{1}{0}", EQUATION),
        ("nan", EQUATION),
        ("∞", PAIR),
        ("\x00", PAIR),
    ],
)
def test_what_holds_nothing_of_the_kind_is_no_answer(answer: str, gold: str) -> None:
    found = score(answer, gold)
    assert (found.reward, found.correct, found.parse) == (0.0, False, Parse.NONE)


def test_an_output_without_a_box_has_no_answer() -> None:
    assert VERIFIER.score(request("7", EQUATION, "property")).parse is Parse.NONE


@given(
    st.text(alphabet="0123456789 +-*/()[]{},;=xy<>.\\andtimesfrac", max_size=80),
    st.sampled_from([EQUATION, PAIR, MADE]),
)
def test_no_text_breaks_it(answer: str, gold: str) -> None:
    assert score(answer, gold).parse in (Parse.OK, Parse.NONE)


def test_it_works_in_a_worker() -> None:
    with VerifierPool(1, 10.0) as pool:
        found = pool.score(
            [request(r"\boxed{4, 6}", PRODUCT, "property"), request(r"\boxed{4, 5}", PRODUCT, "property")]
        )
    assert [one.correct for one in found] == [True, False]


# Expressions against Python's own


def random_expression(rng: Random, depth: int, leaf: Callable[[], Expression]) -> Expression:
    if depth == 0 or rng.random() < 0.2:
        return leaf()
    if rng.random() < 0.1:
        return Unary("-", random_expression(rng, depth - 1, leaf))
    sides = (random_expression(rng, depth - 1, leaf) for _ in range(2))
    return Binary(rng.choice(["+", "-", "*", "/", "mod"]), *sides)


@given(st.randoms(use_true_random=False))
def test_values_and_brackets_are_pythons(rng: Random) -> None:
    expression = random_expression(rng, 5, lambda: Whole(rng.randint(0, 12)))
    text = write_expression(expression)
    assert read_expression(text) == expression
    try:
        found = value_of(expression, {})
    except UndefinedError:
        assume(False)
    assert found == python_value(text.replace("mod", "%"))


def python_value(text: str) -> Fraction:
    """The value by Python's parser and exact fractions."""
    tree = ast.parse(text, mode="eval")
    for node in ast.walk(tree):
        for name, child in ast.iter_fields(node):
            if isinstance(child, ast.Constant):
                call = ast.Call(ast.Name("Fraction", ast.Load()), [child], [])
                setattr(node, name, call)
    return eval(compile(ast.fix_missing_locations(tree), "test", "eval"), {"Fraction": Fraction})


def test_digits_are_of_whole_numbers() -> None:
    assert value_of(read_expression("digits(x * 2)"), {"x": -95}) == 1 + 9
    with pytest.raises(UndefinedError):
        value_of(read_expression("digits(x / 2)"), {"x": 3})
    assert not read_property("x: digits(x * x * x * x * x) = 9").conditions[0].holds({"x": 10**999})


@pytest.mark.parametrize("text", ["", "3 +", "(3", "3)", "3 4", "mod 3", "3 = 4", "digits 3", "3 ^ 2", "²"])
def test_what_is_no_expression_is_unreadable(text: str) -> None:
    with pytest.raises(UnreadableError):
        read_expression(text)


@given(st.randoms(use_true_random=False))
def test_a_gold_is_read_as_it_is_written(rng: Random) -> None:
    sides = [
        write_expression(
            random_expression(rng, 3, lambda: rng.choice([Unknown("x"), Unknown("y"), Whole(rng.randint(0, 99))]))
        )
        for _ in range(4)
    ]
    gold = f"x, y: {sides[0]} = {sides[1]}; {sides[2]} <= {sides[3]}; x != y"
    assert str(read_property(gold)) == gold
    assert str(read_property("7, 3,5  with + *:22")) == "3, 5, 7 with + *: 22"


# The gold


@pytest.mark.parametrize(
    ("gold", "meta"),
    [
        (EQUATION, {}),
        (PAIR, {}),
        (MADE, {}),
        (NUMBER, {"example": "30"}),
        (MADE, {"example": "7 + 3 * 5"}),
        ("a, b, c, d: a * b * c * d = 210", {"example": "2, 3, 5, 7"}),
        ("x: x * x = 1000000", {}),
    ],
)
def test_golds_that_can_be_satisfied_are_taken(gold: str, meta: dict) -> None:
    VERIFIER.check_gold(Problem("p1", "What?", gold, "property", meta=meta))


@pytest.mark.parametrize(
    ("gold", "meta", "says"),
    [
        ("7", {}, 'use the verifier "integer"'),
        ("", {}, "it is empty"),
        ("3 * x = 9", {}, 'there is no ":"'),
        ("x: 3 * x", {}, "is no condition"),
        ("x: 3 * x = 9 = 9", {}, "is too much"),
        ("x: 3 * y = 9", {}, '"y" is not among its unknowns x'),
        ("x, y: 3 * x = 9", {}, 'says anything of "y"'),
        ("x, x: 3 * x = 9", {}, "different letters"),
        ("xy: xy = 9", {}, "neither names"),
        ("3, 5 with ^: 8", {}, "neither names"),
        ("3, 5 with +: eight", {}, "no whole number"),
        ("x: x * x = 3", {}, "no small answer satisfies it"),
        ("3, 5 with + -: 9", {}, "no small answer satisfies it"),
        ("a, b, c, d: a + b + c + d = 4", {}, 'meta["example"]'),
        (EQUATION, {"example": "6"}, 'meta["example"] does not score right (3 * x + 4 = 25 does not hold'),
        (EQUATION, {"example": 7}, "must be a text"),
        ("x: " + "(" * 60 + "x" + ")" * 60 + " = 1", {}, "nested deeper"),
        ("x: x = " + "1 + " * 200 + "1", {}, "longer than"),
        (r"x: \boxed{x} = 1", {}, "not understood"),
    ],
)
def test_other_golds_are_refused_with_what_to_do(gold: str, meta: dict, says: str) -> None:
    assert says in refused(gold, **meta)


def test_it_is_registered_and_its_name_is_taken() -> None:
    assert isinstance(get_verifier("property"), PropertyVerifier)
