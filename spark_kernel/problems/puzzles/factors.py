"""Numbers with a given product, and a second property at higher levels; either order and several pairs may do."""

from __future__ import annotations

from random import Random

from spark_kernel.problems.puzzles.form import Drawn, Form


def _pair(rng: Random, largest: int) -> tuple[int, int]:
    x = rng.randint(2, int(largest**0.5))
    return x, rng.randint(2, largest // x)


def _product(rng: Random, largest: int) -> Drawn:
    x, y = rng.sample(_pair(rng, largest), 2)
    return Drawn({"p": x * y}, f"{x}, {y}")


def _product_and_sum(rng: Random, largest: int) -> Drawn:
    x, y = rng.sample(_pair(rng, largest), 2)
    return Drawn({"p": x * y, "s": x + y}, f"{x}, {y}")


def _product_and_difference(rng: Random, largest: int) -> Drawn:
    x, y = sorted(_pair(rng, largest), reverse=True)
    return Drawn({"p": x * y, "d": x - y}, f"{x}, {y}")


def _three(rng: Random, largest: int) -> Drawn:
    x = rng.randint(2, max(2, int(largest ** (1 / 3))))
    y = rng.randint(2, max(2, largest // (2 * x)))
    z = rng.randint(2, max(2, largest // (x * y)))
    x, y, z = rng.sample((x, y, z), 3)
    return Drawn({"p": x * y * z, "s": x + y + z}, f"{x}, {y}, {z}")


FORMS = (
    Form(
        "factors",
        1,
        "x, y: x * y = {p}; x > 1; y > 1",
        (
            "Find two whole numbers larger than 1 whose product is {p}.",
            "Write {p} as a product of two whole numbers, none of them 1, as x, y.",
        ),
        _product,
    ),
    Form(
        "factors",
        2,
        "x, y: x * y = {p}; x + y = {s}",
        (
            "Find two numbers whose product is {p} and whose sum is {s}.",
            "Two numbers add up to {s}, and multiplied they give {p}. Which are they?",
        ),
        _product_and_sum,
    ),
    Form(
        "factors",
        3,
        "x, y: x * y = {p}; x - y = {d}",
        (
            "Find two whole numbers x, y whose product is {p}, where x minus y is {d}.",
            "x is {d} more than y, and x times y is {p}. Give whole numbers x, y for which this is so.",
        ),
        _product_and_difference,
    ),
    Form(
        "factors",
        4,
        "x, y, z: x * y * z = {p}; x + y + z = {s}; x > 1; y > 1; z > 1",
        (
            "Find three whole numbers larger than 1 whose product is {p} and whose sum is {s}.",
            "Three whole numbers, all larger than 1, add up to {s}, and multiplied they give {p}. Which are they?",
        ),
        _three,
    ),
)
