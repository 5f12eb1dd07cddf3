"""Countdown: make a number out of given ones, each used once; most targets can be made in several ways."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from random import Random

from spark_kernel.problems.puzzles.form import Drawn, Form
from spark_kernel.verify.expressions import Binary, Expression, UndefinedError, Whole, value_of, write_expression

PLACES = "pqrs"
LARGEST_GIVEN = 12


def _drawing(count: int, operations: str, *, brackets: bool) -> Callable[[Random, int], Drawn]:
    """Draws `count` different numbers and an expression of them with these operations."""

    def draw(rng: Random, largest: int) -> Drawn:
        while True:
            given = rng.sample(range(1, LARGEST_GIVEN + 1), count)
            made = _joined(rng, given, operations) if brackets else _in_line(rng, given, operations)
            value = _value(made)
            if value is not None and value.denominator == 1 and 1 <= value <= largest and value not in given:
                shown = rng.sample(given, count)
                numbers = dict(zip(PLACES, shown, strict=False)) | {"t": int(value)}
                return Drawn(numbers, write_expression(made))

    return draw


def _in_line(rng: Random, given: list[int], operations: str) -> Expression:
    """The numbers in their order with drawn operations between them, products first."""
    sums: Expression | None = None
    joint, product = "+", Whole(given[0])
    term: Expression = product
    for number in given[1:]:
        operation = rng.choice(operations)
        if operation in "*/":
            term = Binary(operation, term, Whole(number))
            continue
        sums = term if sums is None else Binary(joint, sums, term)
        joint, term = operation, Whole(number)
    return term if sums is None else Binary(joint, sums, term)


def _joined(rng: Random, given: list[int], operations: str) -> Expression:
    """The numbers put together two at a time, in a drawn order."""
    parts: list[Expression] = [Whole(number) for number in given]
    while len(parts) > 1:
        second, first = (parts.pop(rng.randrange(len(parts))) for _ in range(2))
        parts.append(Binary(rng.choice(operations), first, second))
    return parts[0]


def _value(made: Expression) -> Fraction | None:
    try:
        return value_of(made, {})
    except UndefinedError:
        return None


FORMS = (
    Form(
        "countdown",
        1,
        "{p}, {q}, {r} with + -: {t}",
        (
            "Make {t} out of {p}, {q} and {r} with + and -. Use each number once.",
            "Use {p}, {q} and {r} once each, with + and - between them, to get {t}.",
        ),
        _drawing(3, "+-", brackets=False),
    ),
    Form(
        "countdown",
        2,
        "{p}, {q}, {r} with + - *: {t}",
        (
            "Make {t} out of {p}, {q} and {r} with +, - and *. Use each number once.",
            "Use {p}, {q} and {r} once each, with +, - and * between them, to get {t}.",
        ),
        _drawing(3, "+-*", brackets=False),
    ),
    Form(
        "countdown",
        3,
        "{p}, {q}, {r}, {s} with + - *: {t}",
        (
            "Make {t} out of {p}, {q}, {r} and {s} with +, - and *. Use each number once.",
            "Use {p}, {q}, {r} and {s} once each, with +, - and * between them, to get {t}.",
        ),
        _drawing(4, "+-*", brackets=False),
    ),
    Form(
        "countdown",
        4,
        "{p}, {q}, {r}, {s} with + - * /: {t}",
        (
            "Make {t} out of {p}, {q}, {r} and {s} with +, -, *, / and brackets. Use each number once.",
            "Use {p}, {q}, {r} and {s} once each, with +, -, *, / and brackets, to get {t}.",
        ),
        _drawing(4, "+-*/", brackets=True),
    ),
)
