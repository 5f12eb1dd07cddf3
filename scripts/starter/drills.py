"""Drills: plain lines of calculation, comparison and checking, where only the result of each line is learnt."""

from __future__ import annotations

from random import Random

from spark_kernel.problems.arithmetic import draw_chain
from starter.pieces import DECISIVE, LARGEST, Demonstration, compare, slip, verdict

LINES = 14


def sums_drill(rng: Random) -> Demonstration:
    """Single steps with values up to LARGEST, line by line."""
    pieces = []
    for _ in range(LINES):
        step = rng.choice(draw_chain(rng, 3, LARGEST).steps)
        pieces += [(f"{step.before} {step.operator} {step.operand} = ", 0.0), (f"{step.after}", 1.0), ("\n", 0.0)]
    return Demonstration("Work out each line.", tuple(pieces))


def compare_drill(rng: Random) -> Demonstration:
    """Pairs of numbers, half of them equal and many of the others close.

    Half of the drills go on from the outcome to a verdict, as a judgement does.
    """
    boxed = rng.random() < 0.5
    pieces = []
    for _ in range(LINES):
        first = rng.randint(0, LARGEST)
        second = first if rng.random() < 0.5 else slip(first, rng)
        (head, _), (outcome, _), (end, _) = compare(first, second, abs(first - second))
        pieces += [(head, 0.0), (outcome, 1.0), (end, 0.0)]
        if boxed:
            box = verdict("Yes" if first == second else "No")
            pieces += [(text, float(weight == DECISIVE)) for text, weight in box] + [("\n", 0.0)]
    return Demonstration("Compare each pair.", tuple(pieces))


def facts_drill(rng: Random) -> Demonstration:
    """Quotients, remainders and orders of size, as puzzles need them."""
    pieces = []
    for _ in range(LINES):
        value = rng.randint(0, LARGEST)
        kind = rng.choice(("quotient", "remainder", "order"))
        if kind == "quotient":
            by = rng.randint(2, 9)
            result = rng.randint(1, LARGEST // by)
            pieces += [(f"{by * result} / {by} = ", 0.0), (f"{result}", 1.0), ("\n", 0.0)]
        elif kind == "remainder":
            by = rng.randint(3, 9)
            pieces += [(f"{value} mod {by} = ", 0.0), (f"{value % by}", 1.0), ("\n", 0.0)]
        else:
            other, sign = slip(value, rng) if rng.random() < 0.9 else value, rng.choice("<>")
            holds = value < other if sign == "<" else value > other
            pieces += [(f"{value} {sign} {other}", 0.0), (" yes" if holds else " no", 1.0), ("\n", 0.0)]
    return Demonstration("Check each line.", tuple(pieces))
