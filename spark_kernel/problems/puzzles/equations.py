"""Linear equations in one unknown; each has one answer."""

from __future__ import annotations

from random import Random

from spark_kernel.problems.puzzles.form import Drawn, Form

LARGEST_FACTOR = 9


def _plus(rng: Random, largest: int) -> Drawn:
    c = rng.randint(3, largest)
    a = rng.randint(1, c - 1)
    return Drawn({"a": a, "c": c}, str(c - a))


def _minus(rng: Random, largest: int) -> Drawn:
    x = rng.randint(3, largest)
    a = rng.randint(1, x - 1)
    return Drawn({"a": a, "c": x - a}, str(x))


def _times(rng: Random, largest: int) -> Drawn:
    a = rng.randint(2, LARGEST_FACTOR)
    x = rng.randint(2, max(2, largest // a))
    return Drawn({"a": a, "c": a * x}, str(x))


def _times_plus(rng: Random, largest: int) -> Drawn:
    a = rng.randint(2, LARGEST_FACTOR)
    x = rng.randint(1, (largest - 1) // a)
    b = rng.randint(1, largest - a * x)
    return Drawn({"a": a, "b": b, "c": a * x + b}, str(x))


def _times_minus(rng: Random, largest: int) -> Drawn:
    a = rng.randint(2, LARGEST_FACTOR)
    x = rng.randint(2, max(2, largest // a))
    b = rng.randint(1, a * x - 1)
    return Drawn({"a": a, "b": b, "c": a * x - b}, str(x))


def _both_sides(rng: Random, largest: int) -> Drawn:
    a = rng.randint(3, LARGEST_FACTOR)
    c = rng.randint(2, a - 1)
    x = rng.randint(1, (largest - 1) // a)
    value = rng.randint(a * x + 1, largest)
    return Drawn({"a": a, "b": value - a * x, "c": c, "d": value - c * x}, str(x))


def _brackets(rng: Random, largest: int) -> Drawn:
    a = rng.randint(3, 6)
    c = rng.randint(2, a - 1)
    inside = rng.randint(2, largest // a)
    b = rng.randint(1, inside - 1)
    x = inside - b
    return Drawn({"a": a, "b": b, "c": c, "d": a * inside - c * x}, str(x))


FORMS = (
    Form(
        "equation",
        1,
        "x: x + {a} = {c}",
        ("Which number plus {a} is {c}?", "Add {a} to a number and you get {c}. Which number is it?"),
        _plus,
    ),
    Form(
        "equation",
        1,
        "x: x - {a} = {c}",
        ("Which number minus {a} is {c}?", "Take {a} from a number and {c} is left. Which number is it?"),
        _minus,
    ),
    Form(
        "equation",
        1,
        "x: {a} * x = {c}",
        ("Which number times {a} is {c}?", "Multiply a number by {a} and you get {c}. Which number is it?"),
        _times,
    ),
    Form(
        "equation",
        2,
        "x: {a} * x + {b} = {c}",
        (
            "Multiply a number by {a}, then add {b}: you get {c}. Which number is it?",
            "For which number x is {a} * x + {b} = {c}?",
        ),
        _times_plus,
    ),
    Form(
        "equation",
        2,
        "x: {a} * x - {b} = {c}",
        (
            "Multiply a number by {a}, then subtract {b}: you get {c}. Which number is it?",
            "For which number x is {a} * x - {b} = {c}?",
        ),
        _times_minus,
    ),
    Form(
        "equation",
        3,
        "x: {a} * x + {b} = {c} * x + {d}",
        (
            "{a} times a number plus {b} is the same as {c} times this number plus {d}. Which number is it?",
            "For which number x is {a} * x + {b} = {c} * x + {d}?",
        ),
        _both_sides,
    ),
    Form(
        "equation",
        4,
        "x: {a} * (x + {b}) - {c} * x = {d}",
        (
            "Add {b} to a number and multiply by {a}; subtract {c} times the number: you get {d}. Which number is it?",
            "For which number x is {a} * (x + {b}) - {c} * x = {d}?",
        ),
        _brackets,
    ),
)
