"""Whether two equations are the same line, circle, condition: they hold at the same points."""

from __future__ import annotations

from random import Random
from typing import Any

import mpmath

from spark_kernel.verify.answer_types import Equation
from spark_kernel.verify.formula import Formula, Op, symbols
from spark_kernel.verify.formula_value import NoValue, TooLarge, value_at

DIGITS = 50
NOISE = mpmath.mpf(10) ** -30
POINTS = 6
FARTHEST = 10**6


def same_equation(gold: Equation, answer: Equation) -> bool | None:
    """Whether one difference of sides is a constant multiple of the other, or vanishes wherever the other does."""
    ours, theirs = _difference(gold), _difference(answer)
    names = sorted(symbols(ours) | symbols(theirs))
    if not names or len(names) > 6:
        return None
    if symbols(ours) != symbols(theirs):
        return False
    draw = Random(" ".join(names))
    proportional: list[Any] = []
    for _ in range(3 * POINTS):
        point = {name: draw.uniform(0.2, 3.0) * (1 if draw.random() < 0.7 else -1) for name in names}
        one, other = _value(ours, point), _value(theirs, point)
        if one is not None and other is not None and abs(one) > NOISE and abs(other) > NOISE:
            proportional.append(other / one)
        if len(proportional) == POINTS:
            break
    if len(proportional) < 3:
        return None
    if all(abs(ratio / proportional[0] - 1) < NOISE for ratio in proportional):
        return True
    return _same_zeros(ours, theirs, names, draw)


def _same_zeros(ours: Formula, theirs: Formula, names: list[str], draw: Random) -> bool | None:
    """Points of one are points of the other, both ways; found where one of the symbols stands linearly."""
    found = 0
    for one, other in ((ours, theirs), (theirs, ours)):
        here = 0
        for _ in range(POINTS):
            for name in names:
                point = {each: draw.uniform(0.3, 3.0) for each in names}
                zero = _linear_zero(one, name, point)
                if zero is None:
                    continue
                value = _value(other, point | {name: zero})
                if value is None:
                    continue
                if abs(value) > NOISE * FARTHEST:
                    return False
                here += 1
                break
        found += here >= 3
    return True if found == 2 else None


def _linear_zero(formula: Formula, name: str, point: dict[str, Any]) -> Any:
    """Where the formula vanishes along one symbol, if it is linear in it; else None."""
    at = [_value(formula, point | {name: place}) for place in (0, 1, 2)]
    if any(value is None for value in at):
        return None
    slope = at[1] - at[0]
    if abs(at[2] - at[1] - slope) > NOISE * (1 + abs(slope)) or abs(slope) < NOISE:
        return None
    return -at[0] / slope


def _difference(equation: Equation) -> Formula:
    return Op("+", (equation.left, Op("neg", (equation.right,))))


def _value(formula: Formula, point: dict[str, Any]) -> Any:
    try:
        return value_at(formula, point, digits=DIGITS)
    except (NoValue, TooLarge):
        return None
