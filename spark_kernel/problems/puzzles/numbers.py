"""A number with given properties; as a rule several numbers have them."""

from __future__ import annotations

from random import Random

from spark_kernel.problems.puzzles.form import Drawn, Form

NARROW = 9
"""How far from the drawn answer the bounds lie at most."""


def _multiple(rng: Random, largest: int) -> Drawn:
    m = rng.randint(3, 9)
    x = m * rng.randint(1, (largest - 1) // m)
    return Drawn({"m": m, **_around(rng, x, largest)}, str(x))


def _remainder(rng: Random, largest: int) -> Drawn:
    m = rng.randint(3, 9)
    r = rng.randint(1, m - 1)
    x = m * rng.randint(1, (largest - 1 - r) // m) + r
    return Drawn({"m": m, "r": r, **_around(rng, x, largest)}, str(x))


def _digit_sum(rng: Random, largest: int) -> Drawn:
    while True:
        m = rng.randint(2, 9)
        x = m * rng.randint(1, (largest - 1) // m)
        if x > 9:
            return Drawn({"m": m, "s": sum(map(int, str(x))), "b": rng.randint(x + 1, largest)}, str(x))


def _two_remainders(rng: Random, largest: int) -> Drawn:
    m, n = rng.sample(range(3, 10), 2)
    x = rng.randint(2, largest - 1)
    return Drawn({"m": m, "r": x % m, "n": n, "t": x % n, "b": rng.randint(x + 1, largest)}, str(x))


def _around(rng: Random, x: int, largest: int) -> dict[str, int]:
    return {"a": max(0, x - rng.randint(1, NARROW)), "b": min(largest, x + rng.randint(1, NARROW))}


FORMS = (
    Form(
        "number",
        1,
        "x: x > {a}; x < {b}; x mod {m} = 0",
        (
            "Find a number larger than {a} and smaller than {b} that {m} divides.",
            "Which multiple of {m} is larger than {a} and smaller than {b}?",
        ),
        _multiple,
    ),
    Form(
        "number",
        2,
        "x: x > {a}; x < {b}; x mod {m} = {r}",
        (
            "Find a number larger than {a} and smaller than {b} that leaves {r} when divided by {m}.",
            "Which number larger than {a} and smaller than {b} has the remainder {r} after division by {m}?",
        ),
        _remainder,
    ),
    Form(
        "number",
        3,
        "x: x > 9; x < {b}; x mod {m} = 0; digits(x) = {s}",
        (
            "Find a number larger than 9 and smaller than {b} that {m} divides and whose digits add up to {s}.",
            "Which multiple of {m} with a digit sum of {s} is larger than 9 and smaller than {b}?",
        ),
        _digit_sum,
    ),
    Form(
        "number",
        4,
        "x: x > 0; x < {b}; x mod {m} = {r}; x mod {n} = {t}",
        (
            "Find a number larger than 0 and smaller than {b} that leaves {r} when divided by {m} and {t} when divided "
            "by {n}.",
            "Which number larger than 0 and smaller than {b} has the remainder {r} after division by {m} and {t} after "
            "division by {n}?",
        ),
        _two_remainders,
    ),
)
