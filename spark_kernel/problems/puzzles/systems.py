"""Two linear equations in two unknowns; each system has one answer."""

from __future__ import annotations

from random import Random

from spark_kernel.problems.puzzles.form import Drawn, Form

BOTH = " Give both as x, y."


def _sum_and_difference(rng: Random, largest: int) -> Drawn:
    s = rng.randint(3, largest)
    y = rng.randint(1, (s - 1) // 2)
    x = s - y
    return Drawn({"s": s, "d": x - y}, f"{x}, {y}")


def _sum_and_multiple(rng: Random, largest: int) -> Drawn:
    k = rng.randint(2, 6)
    y = rng.randint(1, largest // (k + 1))
    return Drawn({"s": (k + 1) * y, "k": k}, f"{k * y}, {y}")


def _weighted_sum(rng: Random, largest: int) -> Drawn:
    a = rng.randint(2, 5)
    x = rng.randint(2, (largest - 1) // a)
    y = rng.randint(1, min(x - 1, largest - a * x))
    return Drawn({"a": a, "s": a * x + y, "d": x - y}, f"{x}, {y}")


def _two_weighted_sums(rng: Random, largest: int) -> Drawn:
    while True:
        a, b, c, d = (rng.randint(2, 5) for _ in range(4))
        if a * d != b * c:
            break
    x, y = (rng.randint(1, max(1, largest // 10)) for _ in range(2))
    return Drawn({"a": a, "b": b, "c": c, "d": d, "s": a * x + b * y, "t": c * x + d * y}, f"{x}, {y}")


FORMS = (
    Form(
        "system",
        1,
        "x, y: x + y = {s}; x - y = {d}",
        (
            "x plus y is {s}, and x minus y is {d}." + BOTH,
            "Two numbers x and y add up to {s}, and x is larger than y by {d}." + BOTH,
        ),
        _sum_and_difference,
    ),
    Form(
        "system",
        2,
        "x, y: x + y = {s}; x = {k} * y",
        (
            "x plus y is {s}, and x is {k} times y." + BOTH,
            "Two numbers x and y add up to {s}, and x is y multiplied by {k}." + BOTH,
        ),
        _sum_and_multiple,
    ),
    Form(
        "system",
        3,
        "x, y: {a} * x + y = {s}; x - y = {d}",
        (
            "{a} times x plus y is {s}, and x minus y is {d}." + BOTH,
            "For which numbers is {a} * x + y = {s} and x - y = {d}?" + BOTH,
        ),
        _weighted_sum,
    ),
    Form(
        "system",
        4,
        "x, y: {a} * x + {b} * y = {s}; {c} * x + {d} * y = {t}",
        (
            "{a} times x plus {b} times y is {s}, and {c} times x plus {d} times y is {t}." + BOTH,
            "For which numbers is {a} * x + {b} * y = {s} and {c} * x + {d} * y = {t}?" + BOTH,
        ),
        _two_weighted_sums,
    ),
)
