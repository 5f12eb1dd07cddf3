"""Whether two equations are the same line, circle, condition: they hold at the same points."""

from __future__ import annotations

from random import Random
from typing import Any

import mpmath

from spark_kernel.verify.answer_types import Equation
from spark_kernel.verify.formula import Formula, NoValueError, Op, TooLargeError, symbols
from spark_kernel.verify.formula_value import value_at

DIGITS = 50
NOISE = 1e-30
POINTS = 6
FARTHEST = 10**6
PLACES = (0, 1, 2, -9.1, -4.3, -2.2, -1.1, -0.4, -0.05, 0.05, 0.4, 1.1, 2.2, 4.3, 9.1)


def same_equation(gold: Equation, answer: Equation) -> bool | None:
    """Whether one difference of sides is a constant multiple of the other, or vanishes wherever the other does."""
    with mpmath.workdps(DIGITS):
        return _same(_difference(gold), _difference(answer))


def _same(ours: Formula, theirs: Formula) -> bool | None:
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
    """Points of one are points of the other, both ways."""
    found = 0
    for one, other in ((ours, theirs), (theirs, ours)):
        here = 0
        for _ in range(POINTS):
            for name in names:
                point = {each: draw.uniform(0.3, 3.0) for each in names}
                zero = _zero(one, name, point)
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


def _zero(formula: Formula, name: str, point: dict[str, Any]) -> Any:
    """Where the formula vanishes along one symbol: solved if it is linear in it, else between two signs; or None."""
    at = [_value(formula, point | {name: place}) for place in PLACES]
    if at[0] is not None and at[1] is not None and at[2] is not None:
        slope = at[1] - at[0]
        if abs(at[2] - at[1] - slope) <= NOISE * (1 + abs(slope)) and abs(slope) >= NOISE:
            return -at[0] / slope
    for low, high, one, other in zip(PLACES[3:], PLACES[4:], at[3:], at[4:], strict=False):
        if one is not None and other is not None and one * other < 0:
            return _between(formula, name, point, low, high)
    return None


def _between(formula: Formula, name: str, point: dict[str, Any], low: float, high: float) -> Any:
    def value(place: Any) -> Any:
        found = _value(formula, point | {name: place})
        if found is None:
            raise NoValueError
        return found

    try:
        zero = mpmath.findroot(value, (low, high), solver="anderson", tol=mpmath.mpf(10) ** (-2 * DIGITS + 10))
    except (ValueError, ZeroDivisionError):
        return None
    return zero if abs(_value(formula, point | {name: zero}) or 1) < NOISE else None


def _difference(equation: Equation) -> Formula:
    return Op("+", (equation.left, Op("neg", (equation.right,))))


def _value(formula: Formula, point: dict[str, Any]) -> Any:
    try:
        return value_at(formula, point, digits=DIGITS)
    except (NoValueError, TooLargeError):
        return None
